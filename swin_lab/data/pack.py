"""Writes images as WebDataset shards: tar files of JPEGs and class indices, read from start to end."""

import sys
import tarfile
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing
from functools import partial
from io import BytesIO
from itertools import chain, islice
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track

from swin_lab.data.images import UNREADABLE, ImageSet
from swin_lab.errors import UserError

IMAGES_PER_TASK = 16
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
    """Writes `out/<split>-000000.tar` and so on, of `<key>.jpg` and `<key>.cls`, and `out/classes.txt`.

    Images keep the order of the source; readers shuffle. The bytes depend on the images and on Pillow alone, not on
    the time, the user or the number of workers. Nothing is overwritten: a shard gets its name when it is whole.

    Args:
        images: what to write.
        class_names: by class index; classes.txt has one a line.
        out: folder of the shards; made if absent. It may hold other splits of the same classes.
        split: start of the file names, as train or val.
        shorter_side: larger images are scaled down to this shorter side, bicubic; None keeps every size.
        quality: of the JPEGs, 1 to 100.
        per_shard: images in a shard; the last may have fewer.
        workers: processes that decode and encode; 1 works in this process.

    Returns:
        How many shards were written.

    Raises:
        UserError: an argument makes no sense, there are no images, a label is outside the classes, `out` has shards of
            this split or other classes already, or an image cannot be read.
    """
    labels = np.asarray(images.labels)
    _check(labels, class_names, split, quality, {"shorter_side": shorter_side, "per_shard": per_shard, "workers": workers})
    class_list = "".join(f"{name}\n" for name in class_names).encode()
    _check_room(out, split, class_list)
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "classes.txt").exists():
        (out / "classes.txt").write_bytes(class_list)
    starts = range(0, len(labels), per_shard)
    encode = partial(_jpeg, images, shorter_side, quality)
    with closing(_in_order(encode, len(labels), workers)) as encoded:
        first = next(encoded)  # starts the workers, before the progress display starts a thread that a fork would cut off
        silent = not sys.stdout.isatty()
        jpegs = iter(track(chain([first], encoded), f"packing {split}", total=len(labels), disable=silent))
        for number, start in enumerate(starts):
            _write_shard(out / f"{split}-{number:06d}.tar", start, labels[start : start + per_shard], jpegs)
        next(jpegs, None)  # lets the display draw its end
    return len(starts)


def _check(labels: np.ndarray, class_names: Sequence[str], split: str, quality: int, counts: Mapping[str, int | None]) -> None:
    if not split.replace("-", "_").isidentifier():
        raise UserError(f"split={split!r} cannot start a file name; give a word, as train or val")
    for name, value in counts.items():
        if value is not None and value < 1:
            raise UserError(f"{name}={value} is too small; give 1 or more")
    if not 1 <= quality <= 100:
        raise UserError(f"quality={quality} is no JPEG quality; give 1 to 100, as 95")
    if len(labels) == 0:
        raise UserError(f"there are no images to pack as {split}; give a data set that has some")
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise UserError(f"labels are {labels.min()} to {labels.max()}, of {len(class_names)} class names; name every class")


def _check_room(out: Path, split: str, class_list: bytes) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give a folder for the shards")
    shards = sorted(out.glob(f"{split}-{'[0-9]' * 6}.tar"))
    if shards:
        raise UserError(f"{out} has shards of {split} already, as {shards[0].name}; remove them or give another folder")
    if (out / "classes.txt").exists() and (out / "classes.txt").read_bytes() != class_list:
        raise UserError(f"{out / 'classes.txt'} names other classes than these images have; give another folder")


def _write_shard(shard: Path, first: int, labels: np.ndarray, jpegs: Iterator[bytes]) -> None:
    unfinished = shard.with_name(f".{shard.name}.partial")
    try:
        with tarfile.open(unfinished, "w", format=tarfile.USTAR_FORMAT) as archive:
            for key, (label, jpeg) in enumerate(zip(labels, islice(jpegs, len(labels)), strict=True), start=first):
                for ending, content in (("jpg", jpeg), ("cls", str(int(label)).encode())):
                    member = tarfile.TarInfo(f"{key:09d}.{ending}")  # its time, user and group are 0
                    member.size = len(content)
                    archive.addfile(member, BytesIO(content))
        unfinished.rename(shard)
    finally:
        unfinished.unlink(missing_ok=True)


def _jpeg(images: ImageSet, shorter_side: int | None, quality: int, index: int) -> bytes:
    try:
        image = images.image(index)
        shorter = min(image.size)
        if shorter_side is not None and shorter > shorter_side:
            width, height = (round(side * shorter_side / shorter) for side in image.size)
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        held = BytesIO()
        image.save(held, "JPEG", quality=quality, comment=b"")  # else it would take over the source's comment
    except UNREADABLE as error:
        hint = "Mend or remove it, remove the shards that this run wrote, and pack again."
        raise UserError(f"{images.name(index)} cannot be packed: {error}\n{hint}") from error
    return held.getvalue()


def _in_order(encode: Callable[[int], bytes], count: int, workers: int) -> Generator[bytes, None, None]:
    if workers == 1:
        yield from map(encode, range(count))
        return
    with ProcessPoolExecutor(workers, initializer=_hold, initargs=(encode,)) as pool:
        waiting: deque[Future[list[bytes]]] = deque()
        for start in range(0, count, IMAGES_PER_TASK):
            waiting.append(pool.submit(_encode_all, range(start, min(start + IMAGES_PER_TASK, count))))
            if len(waiting) == 2 * workers:  # no more than that is held in memory
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _hold(encode: Callable[[int], bytes]) -> None:
    global _encode  # a worker gets the images once, not with every task
    _encode = encode


def _encode_all(indices: range) -> list[bytes]:
    return [_encode(index) for index in indices]
