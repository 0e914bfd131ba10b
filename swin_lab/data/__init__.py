"""Data: sources of encoded images, decoding, transforms, samplers and the LightningDataModule."""

from swin_lab.data.augment import TimmAugment
from swin_lab.data.classes import check_source, class_shares, has_several_labels
from swin_lab.data.datamodule import ImageData, LoaderConfig, cores
from swin_lab.data.images import ImageSet, ImageSource
from swin_lab.data.sources import (
    Cifar,
    Digits,
    Folder,
    ImageNet,
    Listed,
    MapDataset,
    MultiLabel,
    Parquet,
    Shards,
    Synthetic,
    Zipped,
)
from swin_lab.data.statistics import channel_statistics, fingerprint

__all__ = [
    "Cifar",
    "Digits",
    "Folder",
    "ImageData",
    "ImageNet",
    "ImageSet",
    "ImageSource",
    "Listed",
    "LoaderConfig",
    "MapDataset",
    "MultiLabel",
    "Parquet",
    "Shards",
    "Synthetic",
    "TimmAugment",
    "Zipped",
    "channel_statistics",
    "check_source",
    "class_shares",
    "cores",
    "fingerprint",
    "has_several_labels",
]
