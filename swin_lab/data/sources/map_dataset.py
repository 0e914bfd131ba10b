"""Any map-style torch dataset of (image, label) items, such as those of torchvision or a custom class."""

import logging
import operator
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset

from swin_lab.data.classes import check_class_names, count_classes, has_several_labels, printable
from swin_lab.data.decoding import UNREADABLE, Encoded, first_line, to_rgb
from swin_lab.data.images import NO_IMAGES, ImageSet
from swin_lab.data.splitting import SplitSeed, ValFraction, split_by_class
from swin_lab.errors import UserError

log = logging.getLogger("swin_lab.data")

CHECKED_ITEMS = 8
"""Number of items whose labels are compared with those that the dataset lists."""
MAX_ITEMS = 10**9

ITEM = (
    "an item must be (image, label) with the class index as label; or, for several labels, with an array or tensor of 0 and 1 "
    "for each class"
)
IMAGES = (
    "an image must be a PIL image, the bytes of an image file, a (C, H, W) or (H, W) tensor, or an (H, W, C) or (H, W) array, "
    "of uint8 or of floats from 0 to 1, with 1 or 3 channels"
)


class MapDataset:
    """Provides the training and validation images of two map-style datasets, or of one that is split.

    Items are (image, label); the label is a class index, or an array or tensor (classes,) of 0 and 1, if an image has several
    labels. Resizing, augmentation and normalisation are those of the run, so the datasets should return
    images without normalisation; ToTensor() is fine. With random transforms in a dataset, set `data.cache_mib=0`.

    Args:
        train: dataset of the training images, an object with `__len__` and `__getitem__`. If None, only evaluation is possible.
        val: dataset of the validation images; if None, a part of the training images.
        class_names: names by class index; if None, the dataset's `classes`, or else the indices.
        val_fraction: fraction of every class in the validation set, if `val` is None.
        split_seed: seed of the split.

    Raises:
        UserError: a dataset is not map-style, its items are not (image, label) or have other labels than the dataset lists, a
            label is negative or has no class name, or the two datasets have different classes.
    """

    def __init__(
        self,
        train: Any = None,
        val: Any = None,
        class_names: list[str] | None = None,
        val_fraction: ValFraction = 0.1,
        split_seed: SplitSeed = 0,
    ) -> None:
        if train is None and val is None:
            raise UserError("data.train and data.val are null; give at least one dataset")
        images: DatasetImages | None = None if train is None else DatasetImages(train, "train")
        self.train: ImageSet = images or NO_IMAGES
        if val is not None:
            self.val: ImageSet = DatasetImages(val, "val")
        elif images is not None:
            train_indices, val_indices = split_by_class(images.labels, val_fraction, split_seed)
            self.train, self.val = images.select(train_indices), images.select(val_indices)
        several = [np.shape(part.labels)[1] for part in (self.train, self.val) if has_several_labels(part)]
        count = max(several) if several else count_classes("data", self.train.labels, self.val.labels)
        self.class_names = class_names or _classes(train, val) or [str(label) for label in range(count)]
        check_class_names(self.class_names)
        if count > len(self.class_names):
            raise UserError(f"data: there are {len(self.class_names)} class names, and the labels contain class {count - 1}")


class DatasetImages:
    """Images of a map-style dataset, whose labels are known without loading the images if the dataset lists them.

    Args:
        dataset: items are (image, label).
        split: `train` or `val`, for messages.
        labels: (N,) class indices, or (N, classes) of 0 and 1; if None, those that the dataset lists, or those of its items.
        indices: (N,) items that belong to this set; if None, all items.
    """

    def __init__(self, dataset: Any, split: str, labels: np.ndarray | None = None, indices: np.ndarray | None = None) -> None:
        self.dataset = dataset
        self.split = split
        self.labels = _labels(dataset, split) if labels is None else labels
        self.indices = np.arange(len(self.labels)) if indices is None else indices

    def select(self, indices: np.ndarray) -> "DatasetImages":
        """Returns the images at the given indices."""
        return DatasetImages(self.dataset, self.split, self.labels[indices], self.indices[indices])

    def encoded(self, index: int) -> Encoded:
        """Returns the image of an item as bytes or as (H, W, 3) of uint8."""
        image, _ = _item(self.dataset, self.split, int(self.indices[index]))
        return as_encoded(image, f"data.{self.split}[{self.indices[index]}]")

    def name(self, index: int) -> str:
        """Returns the class of the dataset and the index of the item, or its path if the dataset lists `samples`."""
        item = int(self.indices[index])
        samples = getattr(self.dataset, "samples", None)
        if isinstance(samples, list) and len(samples) > item and isinstance(samples[item], tuple | list):
            return printable(str(samples[item][0]))
        return f"{type(self.dataset).__name__} {self.split}[{item}]"


def _labels(dataset: Any, split: str) -> np.ndarray:
    """Returns the class index of every item, (N,), or its classes, (N, classes) of 0 and 1.

    Raises:
        UserError: the dataset is not map-style or empty, an item is not (image, label), or a label is negative.
    """
    iterable = isinstance(dataset, IterableDataset)
    if iterable or not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        kind = "iterable-style" if iterable else "not a map-style dataset"
        raise UserError(
            f"data.{split} is {kind} ({type(dataset).__name__}); give a dataset with __len__ and __getitem__, "
            "because images are shuffled and counted by index"
        )
    length = _length(dataset, split)
    labels = _listed_labels(dataset, length)
    _check_items(dataset, split, length, labels)
    if labels is None:
        log.info("note       data.%s lists no labels; its %s items are loaded once to read them", split, f"{length:,}")
        labels = _joined([_item(dataset, split, index)[1] for index in range(length)], split)
    if labels.ndim == 1 and labels.min() < 0:
        index = int(labels.argmin())
        raise UserError(f"data.{split}[{index}] has label {labels[index]}; labels must be non-negative class indices")
    return labels


def _length(dataset: Any, split: str) -> int:
    try:
        length = len(dataset)
    except (TypeError, ValueError, OverflowError, NotImplementedError) as error:
        raise UserError(f"data.{split} ({type(dataset).__name__}) has no valid length: {first_line(error)}") from error
    if length == 0:
        raise UserError(f"data.{split} ({type(dataset).__name__}) is empty")
    if length > MAX_ITEMS:
        raise UserError(f"data.{split} ({type(dataset).__name__}) claims {length:,} items; its __len__ must be their number")
    return length


def _check_items(dataset: Any, split: str, length: int, labels: np.ndarray | None) -> None:
    """Loads a few evenly spaced items, and checks that they are images with the labels that the dataset lists.

    Args:
        dataset: the dataset.
        split: `train` or `val`, for messages.
        length: number of items.
        labels: (length,) or (length, classes), the labels that the dataset lists. If None, it lists none, and only the first
            item is checked, because all items are loaded afterwards.
    """
    for index in [0] if labels is None else np.unique(np.linspace(0, length - 1, num=CHECKED_ITEMS, dtype=int)).tolist():
        try:
            image, label = _item(dataset, split, index)
        except UserError:
            raise
        except UNREADABLE as error:  # such an image is reported or skipped when it is loaded for a batch
            log.warning("data.%s[%d] cannot be loaded: %s", split, index, first_line(error))
            continue
        as_encoded(image, f"data.{split}[{index}]")
        if labels is not None and not np.array_equal(label, labels[index]):
            raise UserError(
                f"data.{split} lists label {labels[index]} for item {index}, and the item has label {label}; make them equal, "
                "or remove the list (targets, labels or samples)"
            )


def _listed_labels(dataset: Any, length: int) -> np.ndarray | None:
    """Returns the labels that a dataset lists. If it lists none, or transforms them in `__getitem__`, returns None."""
    if getattr(dataset, "target_transform", None) is not None:
        return None
    for name in ("targets", "labels", "samples"):
        listed = getattr(dataset, name, None)
        if not isinstance(listed, Sequence | np.ndarray | Tensor) or getattr(listed, "ndim", 1) == 0 or len(listed) != length:
            continue
        try:
            labels = np.asarray([entry[1] for entry in listed] if name == "samples" else listed)
        except (TypeError, IndexError, KeyError, ValueError):
            continue
        if labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer):
            return labels.astype(np.int64)
        if labels.ndim == 2 and not isinstance(listed, Sequence) and np.isin(labels, (0, 1)).all():
            return labels.astype(np.uint8)
    return None


def _joined(labels: list[int | np.ndarray], split: str) -> np.ndarray:
    """Returns the labels of all items as an array; raises UserError if some have other numbers of classes."""
    shapes = list(dict.fromkeys(map(np.shape, labels)))
    if len(shapes) > 1:
        raise UserError(f"data.{split} has labels of shape {shapes[0]} and {shapes[1]}; {ITEM}")
    return np.stack(labels) if shapes[0] else np.array(labels, dtype=np.int64)


def _item(dataset: Any, split: str, index: int) -> tuple[Any, int | np.ndarray]:
    """Returns the image and the class index of an item, or (classes,) of uint8 for several labels."""
    try:
        item = dataset[index]
    except (IndexError, KeyError) as error:
        raise UserError(f"data.{split}[{index}] does not exist: {type(dataset).__name__} has {len(dataset)} items") from error
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise UserError(f"data.{split}[{index}] is {_described(item)}; {ITEM}")
    image, label = item
    if isinstance(label, np.ndarray | Tensor) and label.ndim == 1:
        values = np.asarray(label)
        if not np.isin(values, (0, 1)).all():
            raise UserError(f"data.{split}[{index}] has the label {repr(label)[:50]}; {ITEM}")
        return image, values.astype(np.uint8)
    try:
        return image, operator.index(label)
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: a tensor of several values
        raise UserError(f"data.{split}[{index}] has the label {repr(label)[:50]}; {ITEM}") from error


def as_encoded(image: Any, where: str) -> Encoded:
    """Returns bytes unchanged, and any other image as (H, W, 3) of uint8.

    Args:
        image: a PIL image, bytes, an array (H, W, C) or (H, W), or a tensor (C, H, W) or (H, W); of uint8, or floats in [0, 1].
        where: name of the image, for messages.

    Raises:
        UserError: it is none of these.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, Image.Image):
        return np.asarray(to_rgb(image))
    pixels = image
    if isinstance(image, Tensor):
        tensor = image.detach().cpu()
        tensor = tensor.float() if tensor.is_floating_point() else tensor  # numpy has no bfloat16
        pixels = (tensor.movedim(0, -1) if tensor.ndim == 3 else tensor).numpy()
    if not isinstance(pixels, np.ndarray) or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3)):
        raise UserError(f"{where} has {_described(image)} as image; {IMAGES}")
    height, width = pixels.shape[:2]
    if not height or not width:
        raise UserError(f"{where} has {_described(image)} as image, which has no pixels")
    channels_last = _as_uint8(pixels, where).reshape(height, width, -1)
    return np.ascontiguousarray(np.broadcast_to(channels_last, (height, width, 3)))


def _as_uint8(pixels: np.ndarray, where: str) -> np.ndarray:
    """Scales floats from 0 to 1 to uint8."""
    if pixels.dtype == np.uint8:
        return pixels
    if not np.issubdtype(pixels.dtype, np.floating):
        raise UserError(f"{where} has an image of {pixels.dtype}; {IMAGES}")
    if not (pixels.min() >= 0 and pixels.max() <= 1):
        raise UserError(
            f"{where} has values from {pixels.min():.3g} to {pixels.max():.3g}; {IMAGES}.\n"
            "Remove the normalisation from the dataset's transforms: the run normalises."
        )
    scaled: np.ndarray = (pixels.astype(np.float64) * 255).round().astype(np.uint8)
    return scaled


def _classes(train: Any, val: Any) -> list[str] | None:
    """Returns the class names that a dataset lists as `classes`; raises UserError if those of the two datasets differ."""
    named = [_names(getattr(dataset, "classes", None)) for dataset in (train, val)]
    if named[0] is not None and named[1] is not None and named[0] != named[1]:
        raise UserError("data.train.classes and data.val.classes differ; both datasets need the same classes in the same order")
    return named[0] or named[1]


def _names(classes: Any) -> list[str] | None:
    """Returns the names in a dataset's `classes`; names that are not unique, as in torchvision's ImageNet, get their index."""
    if not isinstance(classes, list | tuple) or not classes:
        return None
    names = [", ".join(map(str, name)) if isinstance(name, tuple | list) else str(name) for name in classes]
    count = Counter(names)
    return [name if count[name] == 1 else f"{name} ({index})" for index, name in enumerate(names)]


def _described(value: Any) -> str:
    """Describes a value for a message, without its contents."""
    shape = f" of shape {tuple(value.shape)}" if isinstance(value, Tensor | np.ndarray) else ""
    length = f" of length {len(value)}" if isinstance(value, tuple | list) else ""
    return f"a {type(value).__name__}{shape}{length}"
