"""Where pictures come from: one file per kind of source, each with `train`, `val` and `class_names`."""

from swin_lab.data.sources.cifar import Cifar
from swin_lab.data.sources.digits import Digits
from swin_lab.data.sources.folder import Folder
from swin_lab.data.sources.parquet import Parquet
from swin_lab.data.sources.synthetic import Synthetic

__all__ = ["Cifar", "Digits", "Folder", "Parquet", "Synthetic"]
