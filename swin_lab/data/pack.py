"""Writes images as WebDataset shards: tar files of JPEGs and class indices."""

import sys
import tarfile
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing
from functools import partial
from io import BytesIO
from itertools import chain, islice
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le
from PIL import Image
from rich.progress import track

from swin_lab.data.classes import check_class_names
from swin_lab.data.datamodule import check_processes
from swin_lab.data.decoding import UNREADABLE, decode
from swin_lab.data.images import ImageSet
from swin_lab.errors import UserError
from swin_lab.validation import PositiveInt, check_value

IMAGES_PER_TASK = 16
"""Number of images that a worker encodes at a time."""

Quality = Annotated[int, Ge(1), Le(100)]

_encode: Callable[[int], bytes]


def pack(
    images: ImageSet,
    class_names: Sequence[str],
    out: Path,
    split: str,
    *,
    shorter_side: int | None,
    quality: int = 95,
    per_shard: int = 1000,
    workers: int = 1,
) -> int:
    """Writes `out/<split>-000000.tar` and so on, with `<key>.jpg` and `<key>.cls` for each image, and `out/classes.txt`.

    Images keep the order of the source; readers shuffle. The written bytes depend only on the images and on Pillow, not on the
    time, the user or the number of workers. Nothing is overwritten: a shard gets its name when it is complete.

    Args:
        images: the set to write.
        class_names: names by class index, written to classes.txt with one per line.
        out: folder of the shards, created if missing. It may contain other splits of the same classes.
        split: prefix of the file names, such as train or val.
        shorter_side: images with a longer shorter side are resized to this one (bicubic). If None, no image is resized.
        quality: JPEG quality, 1 to 100.
        per_shard: images per shard; the last shard may have fewer.
        workers: processes that decode and encode; with 1, this process does it.

    Returns:
        The number of shards that were written.

    Raises:
        UserError: an argument is invalid, there are no images, a label is outside the classes, `out` cannot be written or
            already contains shards of this split or of other classes, or an image cannot be decoded.
    """
    check_value("shorter_side", shorter_side, PositiveInt | None)
    check_value("quality", quality, Quality)
    check_value("per_shard", per_shard, PositiveInt)
    check_value("workers", workers, PositiveInt)
    check_processes("workers", workers)
    check_class_names(class_names)
    labels = np.asarray(images.labels)
    if labels.ndim == 2:
        raise UserError("data pack writes one class per image, and these images have several labels; train on them as they are")
    _check_labels(labels, class_names, split)
    check_folder(out, split, class_names)
    _create_folder(out, class_names)
    starts = range(0, len(labels), per_shard)
    encode = partial(_jpeg, images, shorter_side, quality)
    with closing(_in_order(encode, len(labels), workers)) as encoded:
        first = next(encoded)  # Workers are forked before the progress display starts its thread.
        jpegs: Iterator[bytes] = chain([first], encoded)
        if sys.stdout.isatty():
            jpegs = iter(track(jpegs, f"packing {split}", total=len(labels)))
        for number, start in enumerate(starts):
            _write_shard(out / f"{split}-{number:06d}.tar", start, labels[start : start + per_shard], jpegs)
        next(jpegs, None)  # The display is completed.
    return len(starts)


def _check_labels(labels: np.ndarray, class_names: Sequence[str], split: str) -> None:
    if not split.replace("-", "_").isidentifier():
        raise UserError(f"split={split!r} must be a word that can begin a file name, such as train or val")
    if len(labels) == 0:
        raise UserError(f"there are no images to pack as {split}; give a data set that has some")
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise UserError(
            f"there are {len(class_names)} class names for labels {labels.min()} to {labels.max()}; name every class"
        )


def check_folder(out: Path, split: str, class_names: Sequence[str]) -> None:
    """Raises UserError if a folder cannot contain the shards, or contains shards of this split or of other classes."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give a folder for the shards")
    shards = sorted(out.glob(f"{split}-{'[0-9]' * 6}.tar"))
    if shards:
        raise UserError(f"{out} already contains {split} shards, such as {shards[0].name}; remove them or give another folder")
    listed = out / "classes.txt"
    if listed.exists() and not (listed.is_file() and listed.read_bytes() == _class_list(class_names)):
        raise UserError(f"{listed} lists other classes than those of these images; give another folder")


def _create_folder(out: Path, class_names: Sequence[str]) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not (out / "classes.txt").exists():
            (out / "classes.txt").write_bytes(_class_list(class_names))
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}; give another folder") from error


def _class_list(class_names: Sequence[str]) -> bytes:
    return "".join(f"{name}\n" for name in class_names).encode()


def _write_shard(shard: Path, first: int, labels: np.ndarray, jpegs: Iterator[bytes]) -> None:
    unfinished = shard.with_name(f".{shard.name}.partial")
    try:
        with tarfile.open(unfinished, "w", format=tarfile.USTAR_FORMAT) as archive:
            for key, (label, jpeg) in enumerate(zip(labels, islice(jpegs, len(labels)), strict=True), start=first):
                for ending, content in (("jpg", jpeg), ("cls", str(int(label)).encode())):
                    member = tarfile.TarInfo(f"{key:09d}.{ending}")  # Its time, user and group are 0 by default.
                    member.size = len(content)
                    archive.addfile(member, BytesIO(content))
        unfinished.rename(shard)
    except OSError as error:
        raise UserError(f"{shard} cannot be written: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _jpeg(images: ImageSet, shorter_side: int | None, quality: int, index: int) -> bytes:
    """Decodes an image, resizes it if it is too large, and encodes it as JPEG."""
    try:
        image = decode(images.encoded(index))
        shorter = min(image.size)
        if shorter_side is not None and shorter > shorter_side:
            width, height = (round(side * shorter_side / shorter) for side in image.size)
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        buffer = BytesIO()
        image.save(buffer, "JPEG", quality=quality, comment=b"")  # otherwise Pillow copies the comment of the source
    except UNREADABLE as error:
        hint = "Fix or remove it, remove the shards that were written, and pack again."
        raise UserError(f"{images.name(index)} cannot be packed: {error}\n{hint}") from error
    return buffer.getvalue()


def _in_order(encode: Callable[[int], bytes], count: int, workers: int) -> Generator[bytes, None, None]:
    """Encodes all images with several processes and returns them in order."""
    if workers == 1:
        yield from map(encode, range(count))
        return
    with ProcessPoolExecutor(workers, initializer=_set_encoder, initargs=(encode,)) as pool:
        waiting: deque[Future[list[bytes]]] = deque()
        for start in range(0, count, IMAGES_PER_TASK):
            waiting.append(pool.submit(_encode_all, range(start, min(start + IMAGES_PER_TASK, count))))
            if len(waiting) == 2 * workers:  # This limits the encoded images in memory.
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _set_encoder(encode: Callable[[int], bytes]) -> None:
    global _encode  # A worker receives the image set once and not with every task.
    _encode = encode


def _encode_all(indices: range) -> list[bytes]:
    return [_encode(index) for index in indices]
