"""Where images come from, how they become batches, in which order."""

from swin_lab.data.augment import TimmAugment
from swin_lab.data.datamodule import ImageData, LoaderConfig, cores
from swin_lab.data.images import ImageSource, channel_statistics, fingerprint
from swin_lab.data.sources import Cifar, Digits, Folder, ImageNet, Listed, Parquet, Shards, Synthetic, Zipped
from swin_lab.data.transforms import Preprocessing

__all__ = [
    "Cifar",
    "Digits",
    "Folder",
    "ImageData",
    "ImageNet",
    "ImageSource",
    "Listed",
    "LoaderConfig",
    "Parquet",
    "Preprocessing",
    "Shards",
    "Synthetic",
    "TimmAugment",
    "Zipped",
    "channel_statistics",
    "cores",
    "fingerprint",
]
