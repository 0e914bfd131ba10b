"""Where images come from, how they become batches, in which order."""

from swin_lab.data.augment import TimmAugment
from swin_lab.data.datamodule import ImageData, Loading
from swin_lab.data.pictures import ImageSource, channel_statistics, fingerprint
from swin_lab.data.sources import Cifar, Digits, Folder, Parquet, Synthetic
from swin_lab.data.transforms import Preprocessing

__all__ = [
    "Cifar",
    "Digits",
    "Folder",
    "ImageData",
    "ImageSource",
    "Loading",
    "Parquet",
    "Preprocessing",
    "Synthetic",
    "TimmAugment",
    "channel_statistics",
    "fingerprint",
]
