"""Settings of the run that has written a checkpoint, for an evaluation whose user gives none."""

from collections.abc import Mapping
from typing import Any

from swin_lab.errors import UserError
from swin_lab.preprocessing import Preprocessing
from swin_lab.run.settings import Node
from swin_lab.run.targets import TARGET
from swin_lab.run.trust import allowed_part
from swin_lab.weights import Contents

DEVICE_BATCH = 64
"""Images per device at once for weights that were not written by a run."""

MAX_PIXELS = 2**25
"""Pixels of a batch that a file may ask for: 400 MB of RGB values, 668 images of 224x224."""

MAX_IMAGE, MAX_RESIZED = 2048**2, 4096**2
"""Pixels of one image that a file may ask for, as the network sees it, and after resizing, before its centre is cropped."""


def restored_node(
    contents: Contents, where: str, given: Mapping[str, Any] | None, default: Node, *, trust: bool = False
) -> Node:
    """Returns the data or task of an evaluation: the given one, or that of the checkpoint's run with the given keys.

    Args:
        contents: what `swin_lab.weights.read_source` has read.
        where: data or task.
        given: keys that the user has given; null keeps the checkpoint's value. If they name a class, nothing of the
            checkpoint's node is used.
        default: the node for weights that were not written by a run.
        trust: whether the checkpoint may ask for more than `swin_lab.run.allowed` lists.

    Raises:
        UserError: the checkpoint asks for more, or its node is damaged.
    """
    if given and TARGET in given:
        return dict(given)
    changes = {key: value for key, value in (given or {}).items() if value is not None}
    run = contents.metadata.run if contents.metadata is not None else None
    stored = default if run is None else run.config.get(where, default)
    if not isinstance(stored, dict) or not all(isinstance(key, str) for key in stored):
        raise UserError(f"{contents.file} is damaged: metadata.run.config.{where} is not a mapping of names to values")
    kept = {key: value for key, value in stored.items() if key not in changes}
    return (kept if trust else allowed_part(contents.file, where, kept)) | changes


def images_at_once(given: int | None, contents: Contents, preprocessing: Preprocessing, *, trust: bool = False) -> int:
    """Returns the images per device of an evaluation: the given number, else that of the run, else 64.

    Without a given number and without trust, it is lowered until the batch has at most `MAX_PIXELS`; no metric depends on it.

    Raises:
        UserError: a single image is larger than a file may ask for.
    """
    if given is not None:
        return given
    run = contents.metadata.run if contents.metadata is not None else None
    images = run.device_batch if run is not None else DEVICE_BATCH
    if trust:
        return images
    height, width = preprocessing.img_size
    pixels = height * width
    if pixels > MAX_IMAGE or pixels / preprocessing.crop_pct**2 > MAX_RESIZED:
        raise UserError(
            f"{contents.file}: images of {height}x{width} pixels (crop_pct={preprocessing.crop_pct}) need much memory.\n"
            "If you expect this size, add batch=1, or transfer.img_size=... for another size"
        )
    return min(images, MAX_PIXELS // pixels)
