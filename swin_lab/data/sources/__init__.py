"""Data sources, one file each: classes with `train`, `val` and `class_names`, selected by `_target_` in conf/data."""

from swin_lab.data.sources.cifar import Cifar
from swin_lab.data.sources.digits import Digits
from swin_lab.data.sources.folder import Folder
from swin_lab.data.sources.imagenet import ImageNet
from swin_lab.data.sources.listed import Listed
from swin_lab.data.sources.map_dataset import MapDataset
from swin_lab.data.sources.multi_label import MultiLabel
from swin_lab.data.sources.parquet import Parquet
from swin_lab.data.sources.shards import Shards
from swin_lab.data.sources.synthetic import Synthetic
from swin_lab.data.sources.zipped import Zipped

__all__ = [
    "Cifar",
    "Digits",
    "Folder",
    "ImageNet",
    "Listed",
    "MapDataset",
    "MultiLabel",
    "Parquet",
    "Shards",
    "Synthetic",
    "Zipped",
]
