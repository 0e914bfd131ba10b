"""Where images come from: one file per kind of source, each with `train`, `val` and `class_names`."""

from swin_lab.data.sources.cifar import Cifar
from swin_lab.data.sources.digits import Digits
from swin_lab.data.sources.folder import Folder
from swin_lab.data.sources.imagenet import ImageNet
from swin_lab.data.sources.listed import Listed
from swin_lab.data.sources.parquet import Parquet
from swin_lab.data.sources.shards import Shards
from swin_lab.data.sources.synthetic import Synthetic
from swin_lab.data.sources.zipped import Zipped

__all__ = ["Cifar", "Digits", "Folder", "ImageNet", "Listed", "Parquet", "Shards", "Synthetic", "Zipped"]
