"""Images inside zip, tar and parquet files, with or without labels."""

from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa

from swin_lab.data.images import ImageSet
from swin_lab.data.names import FileNames
from swin_lab.data.sources.folder import has_image_suffix
from swin_lab.data.sources.parquet import unlabelled_images
from swin_lab.data.sources.row_groups import RowGroupImages
from swin_lab.data.sources.shards import ShardImages, class_of, open_shard, read_class_names
from swin_lab.data.sources.zipped import ZipImages, extent_of, read_directory
from swin_lab.errors import UserError
from swin_lab.inference.labels import LabelNames

ARCHIVES = (".zip", ".tar", ".parquet")
"""Endings of files that contain images."""


def read_archive(file: Path, labels: LabelNames, label_of_path: Callable[[str], str | None]) -> ImageSet:
    """Lists the images of a file.

    Args:
        file: a zip file, a tar file that is not compressed, or a parquet file of the form that Hugging Face exports.
        labels: new names of labels are added to it.
        label_of_path: path in a zip or tar file -> name of the class, if the file itself has none.

    Raises:
        UserError: it is damaged or contains no images.
    """
    images: ImageSet
    if file.suffix.lower() == ".parquet":
        images = _parquet(file, labels)
    else:
        images = (_zip if file.suffix.lower() == ".zip" else _tar)(file, labels, label_of_path)
    if not len(images.labels):
        raise UserError(f"{file} contains no images")
    return images


def _zip(file: Path, labels: LabelNames, label_of_path: Callable[[str], str | None]) -> ZipImages:
    infos = [info for info in read_directory(file) if _is_image(PurePosixPath(info.filename))]
    codes = np.array([labels.code(label_of_path(info.filename)) for info in infos], dtype=np.int32)
    extents = np.array([extent_of(info) for info in infos], dtype=np.int64).reshape(-1, 3)
    return ZipImages(file, FileNames(info.filename for info in infos), codes, extents)


def _tar(file: Path, labels: LabelNames, label_of_path: Callable[[str], str | None]) -> ShardImages:
    """Lists the images of a tar file; the class of KEY.jpg is in KEY.cls, or else its folder is one."""
    names: list[str] = []
    extents: list[tuple[int, int, int]] = []
    classes: dict[str, int] = {}
    with open_shard(file) as archive:
        for member in archive:
            path = PurePosixPath(member.name)
            if path.name.endswith(".cls"):
                classes[_key(path)] = class_of(archive, member)
            elif _is_image(path) and not member.isdir():
                whole = member.isreg() and not member.issparse()  # A link contains no bytes, which is reported when it is read.
                names.append(member.name)
                extents.append((0, member.offset_data, member.size if whole else 0))
    listed = file.with_name("classes.txt")
    class_names = read_class_names(listed) if classes and listed.is_file() else []
    codes = []
    for name in names:
        index = classes.get(_key(PurePosixPath(name)))
        known = label_of_path(name) if index is None else class_names[index] if 0 <= index < len(class_names) else str(index)
        codes.append(labels.code(known))
    return ShardImages([file], FileNames(names), np.array(codes, dtype=np.int32), np.array(extents).reshape(-1, 3))


def _parquet(file: Path, labels: LabelNames) -> RowGroupImages:
    rows, known = unlabelled_images(file)
    if known is not None:
        encoded = pa.chunked_array(known).combine_chunks().dictionary_encode()
        codes = np.array([labels.code(name) for name in encoded.dictionary.to_pylist()] + [labels.code(None)], dtype=np.int32)
        rows.labels = codes[encoded.indices.fill_null(len(codes) - 1).to_numpy()]
    return rows


def _is_image(path: PurePosixPath) -> bool:
    """Returns whether a member has the name of an image; those of macOS's archiver (__MACOSX/._NAME) are none."""
    return has_image_suffix(path.name) and not any(part.startswith(".") for part in path.parts)


def _key(path: PurePosixPath) -> str:
    return str(path.with_name(path.name.partition(".")[0]))
