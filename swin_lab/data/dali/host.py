"""The host's part of loading by DALI: reading files and their headers, and drawing the augmentation, in worker processes."""

from dataclasses import dataclass
from io import BytesIO
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from swin_lab.data.dali.parameters import IDENTITY, Kind, Parameters, augmentation_of, channels_of
from swin_lab.data.decoding import UNREADABLE, Decoder, first_line, has_end, is_upright
from swin_lab.data.device import Rectangle, StagedTransform
from swin_lab.data.images import ImageSet
from swin_lab.data.loading import Wrong, batch_labels, sample_seed, table_of
from swin_lab.data.sampling import SampleIndex
from swin_lab.data.transforms import random_state
from swin_lab.errors import UserError

FILTERS = ("nearest", "bilinear", "bicubic", "lanczos")
"""Resampling filters, which a batch contains as numbers."""


@dataclass(frozen=True)
class Prepared:
    """Contains an image that DALI is to decode."""

    encoded: np.ndarray
    """Bytes of a JPEG file, or of a PPM file with the crop that Pillow decoded."""
    parameters: Parameters
    erased: list[Rectangle]
    """Rectangles that the device erases."""
    sample: SampleIndex
    label: int | np.ndarray


class PreparedBatch(NamedTuple):
    """Contains the inputs of the graph for the B images that could be read; O is the number of operations at most."""

    encoded: Tensor
    """All files one after the other, uint8."""
    lengths: Tensor
    """(B,) bytes of the files."""
    boxes: Tensor
    """(B, 4) top, left, height and width of the crops, int32."""
    filters: Tensor
    """(B,) indices in FILTERS, int32."""
    flips: Tensor
    """(B, 2) 1 or 0, int32."""
    kinds: Tensor
    """(B, O) values of Kind, int32."""
    amounts: Tensor
    """(B, O) of float32."""
    matrices: Tensor
    """(B, O, 2, 3) of float32."""
    labels: Tensor
    """(B,) class indices."""
    samples: Tensor
    """(B, 3) epoch, index of the image in its set, copy."""
    unreadable: list[str]
    """One line for each image that could not be read."""
    erased: list[tuple[int, Rectangle]]
    """Position of an image in the batch, and a rectangle that the device erases."""
    wrong: str | None = None
    """Message of an error that is not that of one image."""


class PreparedImages(Dataset["Prepared | str | Wrong"]):
    """Provides files with their drawn augmentation as a map-style dataset.

    The random numbers are those of `TransformedImages` for the same sample.

    Args:
        images: encoded images.
        transform: that of training.
        seed: seed of the augmentation.
        decode: decoder of the images that DALI does not decode: those that are no upright JPEG of one or three channels.

    Raises:
        UserError: DALI has no version of a transform.
    """

    def __init__(self, images: ImageSet, transform: StagedTransform, seed: int, decode: Decoder) -> None:
        self.images = images
        self.transform = transform
        self.augmentation = augmentation_of(transform)
        self.channels = channels_of(transform)
        self.seed = seed
        self.decode = decode

    def __len__(self) -> int:
        return len(self.images.labels)

    def __getitem__(self, sample: SampleIndex) -> Prepared | str | Wrong:
        """Returns a file with its parameters, or one line that names an unreadable image, or the message of an error."""
        return self.prepared(sample, by_pillow=False)

    def prepared(self, sample: SampleIndex, by_pillow: bool) -> Prepared | str | Wrong:
        """Does the same as indexing; with `by_pillow`, Pillow decodes the image in any case."""
        index = SampleIndex(*sample).image_index
        with random_state(sample_seed(self.seed, sample)):
            try:
                encoded = self.images.encoded(index)
                if not isinstance(encoded, bytes):
                    return Wrong(str(not_encoded(self.images.name(index))))
                size = None if by_pillow else size_for_dali(encoded)
                image = self.decode(encoded) if size is None else None
            except UserError as error:
                return Wrong(str(error))
            except UNREADABLE as error:
                return f"{self.images.name(index)}: {first_line(error)}"
            height, width = size or (image.height, image.width)  # type: ignore[union-attr]  # one of both is given
            parameters = self.augmentation.draw(height, width)
            erased = self.transform.rectangles(torch.empty((self.channels, *self.augmentation.size), device="meta"))
        if image is not None:
            encoded, parameters = cropped_ppm(image, parameters)
        return Prepared(np.frombuffer(encoded, dtype=np.uint8), parameters, erased, sample, self.images.labels[index])

    def collate(self, prepared: list[Prepared | str | Wrong]) -> PreparedBatch:
        """Joins the files of a batch and their parameters."""
        read = [sample for sample in prepared if isinstance(sample, Prepared)]
        wrong = next((sample.message for sample in prepared if isinstance(sample, Wrong)), None)
        count, operations = len(read), self.augmentation.max_operations
        kinds = np.full((count, operations), Kind.NONE, dtype=np.int32)
        amounts = np.zeros((count, operations), dtype=np.float32)
        matrices = np.broadcast_to(np.array(IDENTITY, dtype=np.float32), (count, operations, 2, 3)).copy()
        for row, image in enumerate(read):
            for column, operation in enumerate(image.parameters.operations):
                kinds[row, column], amounts[row, column], matrices[row, column] = operation
        return PreparedBatch(
            torch.from_numpy(np.concatenate([image.encoded for image in read])) if read else torch.empty(0, dtype=torch.uint8),
            torch.tensor([len(image.encoded) for image in read], dtype=torch.long),
            torch.tensor([image.parameters.box for image in read], dtype=torch.int32).reshape(-1, 4),
            torch.tensor([FILTERS.index(image.parameters.interpolation) for image in read], dtype=torch.int32),
            torch.tensor([image.parameters.flips for image in read], dtype=torch.int32).reshape(-1, 2),
            torch.from_numpy(kinds),
            torch.from_numpy(amounts),
            torch.from_numpy(matrices),
            batch_labels([image.label for image in read]),
            table_of([image.sample for image in read]),
            [sample for sample in prepared if isinstance(sample, str)],
            [(position, rectangle) for position, image in enumerate(read) for rectangle in image.erased],
            wrong,
        )


def not_encoded(name: str) -> UserError:
    """Returns the error for an image that has no bytes of an image file; `name` is that of the image."""
    return UserError(f"data.loader=dali decodes image files, and {name} is an array of pixels\nChoose data.loader=torch")


def size_for_dali(encoded: bytes) -> tuple[int, int] | None:
    """Reads the header of an image file.

    Args:
        encoded: the bytes of the file.

    Returns:
        Height and width in pixels if DALI decodes the file to the same pixels as Pillow: a complete, upright JPEG of one
        or three channels that are not stored as RGB. None for all others, which Pillow decodes.

    Raises:
        one of UNREADABLE: it is no image.
    """
    try:
        opened = Image.open(BytesIO(encoded))
    except UnidentifiedImageError as error:
        raise UnidentifiedImageError("the bytes are not an image of a known format") from error
    with opened:
        if opened.format != "JPEG" or opened.mode not in ("RGB", "L") or not has_end(encoded):
            return None
        stored_as_rgb = opened.mode == "RGB" and opened.info.get("adobe_transform", 1) == 0
        return None if stored_as_rgb or not is_upright(opened) else (opened.height, opened.width)


def cropped_ppm(image: Image.Image, parameters: Parameters) -> tuple[bytes, Parameters]:
    """Returns the crop of a decoded image as a PPM file, which holds plain pixels, with the parameters for it."""
    top, left, height, width = parameters.box
    pixels = image.crop((left, top, left + width, top + height)).tobytes()
    return b"P6\n%d %d\n255\n" % (width, height) + pixels, parameters._replace(box=(0, 0, height, width))
