"""Predictions and embeddings from Python."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from swin_lab.data.decoding import UNREADABLE, decode, first_line, oriented_rgb
from swin_lab.data.images import read_image_file
from swin_lab.data.sources.map_dataset import as_encoded
from swin_lab.data.transforms import eval_transform
from swin_lab.errors import UserError
from swin_lab.inference.model import Checkpoint, Pool, PrecisionName, Settings, VectorKind, open_model
from swin_lab.preprocessing import Preprocessing
from swin_lab.validation import PositiveInt, check_value

OneImage = str | PathLike[str] | bytes | Image.Image | np.ndarray | Tensor
"""A path or the bytes of an image file, a PIL image of any mode, an array (H, W, 3) or (H, W), or a tensor (3, H, W) or (H, W).

Arrays and tensors are of uint8, or of floats from 0 to 1, without normalisation. Those of four dimensions are several images.
"""
Images = OneImage | Iterable[OneImage]


@dataclass(frozen=True)
class Prediction:
    """Contains the predicted classes of an image, the likeliest first; of several labels per image, perhaps none."""

    names: tuple[str, ...]
    probabilities: tuple[float, ...]

    @property
    def name(self) -> str:
        """Returns the likeliest class; raises UserError if the image has none."""
        if not self.names:
            raise UserError("the image has no label above its threshold; names and probabilities are empty")
        return self.names[0]

    @property
    def probability(self) -> float:
        """Returns the probability of the likeliest class; raises UserError if the image has none."""
        return self.probabilities[self.names.index(self.name)]


class Predictor:
    """Classifies and embeds images with the preprocessing and the class names of a checkpoint.

    Args:
        checkpoint: a file or run directory, OWNER/NAME on the hub and whatever else `swin_lab.load_model` takes; the checkpoint
            of a run with a network of any class; or a network with the attribute `preprocessing`, which moves to the device and
            to evaluation mode.
        device: auto, cpu, cuda, cuda:N or mps; auto is a GPU if there is one.
        precision: auto, 32-true, bf16-mixed or 16-mixed; auto is bf16-mixed on a GPU that has it, and 32-true elsewhere.
        flip: whether the outputs for an image and for its mirror image are averaged.
        batch: images of a forward pass. If None, as in the run of the checkpoint, or else 64; on a CPU, 2^20 pixels at most.
        ema: whether to load the moving average of the weights, if the file contains both.
        trust: whether the file may name classes from outside swin_lab, which are imported.

    Raises:
        UserError: the checkpoint cannot be read, there is no such device, or a value is invalid.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str = "auto",
        precision: PrecisionName = "auto",
        flip: bool = False,
        batch: int | None = None,
        ema: bool = False,
        trust: bool = False,
    ) -> None:
        settings = Settings(device=device, precision=precision, flip=flip, batch=batch, ema=ema, trust=trust)
        self._model = open_model(checkpoint, settings)
        self._transform = eval_transform(self._model.preprocessing)

    @property
    def preprocessing(self) -> Preprocessing:
        """Returns how images are preprocessed."""
        return self._model.preprocessing

    @property
    def class_names(self) -> list[str]:
        """Returns the names of the classes in the order of the logits, with those of ImageNet in words.

        Raises:
            UserError: the network has no head.
        """
        return list(self._model.readable_names().values())

    def __call__(self, images: Images, top: int | None = None) -> Any:
        """Predicts the classes of images.

        Args:
            images: one image, or an iterable of them, see `OneImage`; of an iterable, one batch at a time is in memory.
            top: number of classes; of fewer, all. If None, 5. Where images have several labels, it is the number of those above
                their thresholds at most; if None, all of them.

        Returns:
            A Prediction for one image, or a list of them.

        Raises:
            UserError: an image cannot be read, or the network does not classify.
        """
        check_value("top", top, PositiveInt | None)
        names = self.class_names
        found = [
            Prediction(tuple(names[i] for i in positions), tuple(float(row[i]) for i in positions))
            for rows in self._computed(images, self._model.probabilities)
            for row in rows
            for positions in [self._model.chosen(row, top)]
        ]
        return found[0] if _is_one(images) else found

    def embed(self, images: Images, *, stage: int | None = None, pool: Pool = "mean") -> np.ndarray:
        """Computes vectors of images.

        Args:
            images: one image, or an iterable of them, see `OneImage`.
            stage: the stage, counted from 0, whose map is taken before the next merging. If None, the last one, after the final
                norm.
            pool: `mean` averages the map over its positions, `map` keeps it.

        Returns:
            (C,) for one image or (N, C) for several, in float32; with `map`, (C, H, W) or (N, C, H, W).

        Raises:
            UserError: an image cannot be read, or the network has no such vectors.
        """
        kind = VectorKind(stage, pool)
        rows = list(self._computed(images, lambda pixels: self._model.vectors(pixels, kind)))
        vectors = np.concatenate(rows) if rows else np.empty((0, *self._model.shape(kind)), dtype=np.float32)
        one: np.ndarray = vectors[0] if _is_one(images) else vectors
        return one

    def _computed(self, images: Images, function: Callable[[Tensor], np.ndarray]) -> Iterator[np.ndarray]:
        """Yields the outputs of one batch after another."""
        given: Any = [images] if _is_one(images) else images
        if not isinstance(given, Iterable):
            raise UserError(f"images are a {type(images).__name__}; give an image or a list of images")
        pixels = (self._pixels(image, f"images[{i}]") for i, image in enumerate(given))
        with self._model.ready():
            while batch := list(islice(pixels, self._model.batch)):
                yield function(torch.stack(batch))

    def _pixels(self, image: OneImage, where: str) -> Tensor:
        """Returns the pixels of an image as the network takes them, (channels, H, W) of uint8."""
        exif_orientation = self.preprocessing.exif_orientation
        if isinstance(image, Image.Image):
            rgb = oriented_rgb(image, exif_orientation)
        else:
            path = Path(image) if isinstance(image, str | PathLike) else None
            try:
                rgb = decode(as_encoded(image, where) if path is None else read_image_file(path), exif_orientation)
            except UserError:
                raise
            except UNREADABLE as error:
                raise UserError(f"{path or where} cannot be read: {first_line(error)}") from error
        pixels: Tensor = self._transform.worker(rgb)
        return pixels


def _is_one(images: Images) -> bool:
    return isinstance(images, str | PathLike | bytes | Image.Image) or (
        isinstance(images, np.ndarray | Tensor) and images.ndim < 4
    )
