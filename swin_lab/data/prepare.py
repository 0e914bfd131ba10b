"""Sorts the validation images of ImageNet-1k into class folders, by any of the label files they are published with."""

import csv
import filecmp
import os
import shutil
import tarfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np

from swin_lab.data.sources.folder import IMAGENET_VALIDATION
from swin_lab.errors import UserError

KAGGLE_HEADER = "ImageId,PredictionString"
META, GROUND_TRUTH = "data/meta.mat", "data/ILSVRC2012_validation_ground_truth.txt"
MAX_LABEL_BYTES = 2**28
"""Size of a file of labels at most; those that are published have a few MB."""
LABELS_HINT = "give LOC_val_solution.csv, val_map.txt or ILSVRC2012_devkit_t12.tar.gz"


def prepare_val(folder: Path, labels: Path, class_names: Sequence[str], copy: bool = False) -> int:
    """Moves `folder/ILSVRC2012_val_00000001.JPEG` and the others into `folder/<wnid>/`.

    Everything is checked before the first image is moved, and nothing is overwritten. After an interruption it can be run
    again: images that are in class folders already are not touched.

    Args:
        folder: folder of the images, in which the class folders are created.
        labels: Kaggle's LOC_val_solution.csv; or lines of `image index` (val_map.txt) or `image wnid`; or the devkit of
            ILSVRC2012, as a folder or as tar.gz. The kind is detected by the content.
        class_names: WordNet ids by class index.
        copy: whether the images are copied instead of moved.

    Returns:
        The number of images that were moved or copied.

    Raises:
        UserError: there are no images, an image has no label or an unknown class, its target exists, the labels cannot be read,
            or a file cannot be moved.
    """
    if not folder.is_dir():
        raise UserError(f"the folder {folder} does not exist; give the folder of the validation images")
    images = sorted(file for file in folder.iterdir() if IMAGENET_VALIDATION.fullmatch(file.name) and file.is_file())
    if not images:
        if any(IMAGENET_VALIDATION.fullmatch(file.name) for file in folder.glob("*/*")):
            return 0
        raise UserError(f"{folder} contains no images such as ILSVRC2012_val_00000001.JPEG; unpack ILSVRC2012_img_val.tar")
    plan = _plan(images, _read_labels(labels, class_names), labels, class_names, copy)
    for done, (image, target) in enumerate(plan):
        try:
            target.parent.mkdir(exist_ok=True)
            if copy:
                partial = target.with_name(f".{target.name}.partial")  # After an interruption there is no incomplete image.
                shutil.copy2(image, partial)
                os.rename(partial, target)
            else:
                os.rename(image, target)
        except OSError as error:
            raise UserError(
                f"{image} could not be {'copied' if copy else 'moved'} into {target.parent}: {error}\n"
                f"{done} of {len(plan)} images are done; fix this and run it again to continue."
            ) from error
    return len(plan)


def _plan(
    images: list[Path], wnid_of: dict[str, str], labels: Path, class_names: Sequence[str], copy: bool
) -> list[tuple[Path, Path]]:
    """Returns the image and the target of everything that remains to be moved or copied."""
    unlabelled = [image for image in images if image.stem not in wnid_of]
    if unlabelled:
        raise UserError(f"{labels} has no label for {len(unlabelled)} images, the first is {unlabelled[0]}; {LABELS_HINT}")
    foreign = sorted({wnid_of[image.stem] for image in images} - set(class_names))
    if foreign:
        raise UserError(
            f"{labels} has {len(foreign)} classes that are not among the {len(class_names)} known ones, the first is "
            f"{foreign[0]!r}; {LABELS_HINT}"
        )
    plan = []
    for image in images:
        target = image.parent / wnid_of[image.stem] / image.name
        if target.parent.exists() and not target.parent.is_dir():
            raise UserError(f"{target.parent} is a file, but a class folder is needed there; move it away")
        if not os.path.lexists(target):
            plan.append((image, target))
        elif not (copy and target.is_file() and filecmp.cmp(image, target, shallow=False)):
            raise UserError(f"both {target} and {image} exist; remove one of them")
    return plan


def _read_labels(labels: Path, class_names: Sequence[str]) -> dict[str, str]:
    """Returns the WordNet id of each image, by its file name without suffix."""
    if not labels.exists():
        raise UserError(f"the file {labels} does not exist; {LABELS_HINT}")
    if labels.is_dir():
        found = [name for name in (META, GROUND_TRUTH) if (labels / name).is_file()]
        return _read_devkit({name: (labels / name).read_bytes() for name in found}, labels)
    if not labels.is_file() or labels.stat().st_size > MAX_LABEL_BYTES:
        raise UserError(f"{labels} is not a file of labels; {LABELS_HINT}")
    if tarfile.is_tarfile(labels):
        return _read_devkit(_unpack(labels), labels)
    try:
        lines = labels.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{labels} is neither a text file nor a tar file; {LABELS_HINT}") from error
    kaggle = lines[:1] == [KAGGLE_HEADER]
    rows = csv.reader(lines[1:]) if kaggle else (line.split() for line in lines)
    wnid_of: dict[str, str] = {}
    for number, row in enumerate(rows, start=2 if kaggle else 1):
        if not row:
            continue
        if len(row) != 2 or not row[1].strip():
            expected = KAGGLE_HEADER if kaggle else "the name of an image and its class"
            raise UserError(f"{labels} line {number} is {' '.join(row)!r}, expected {expected}; {LABELS_HINT}")
        wnid = row[1].split()[0]
        if not kaggle and wnid.isdecimal():
            if int(wnid) >= len(class_names):
                raise UserError(f"{labels} line {number} has class {wnid} of {len(class_names)} classes; {LABELS_HINT}")
            wnid = class_names[int(wnid)]
        if wnid_of.setdefault(PurePosixPath(row[0]).stem, wnid) != wnid:
            raise UserError(f"{labels} line {number} gives {row[0]} a second class, {wnid}; remove one of the two lines")
    return wnid_of


def _unpack(devkit: Path) -> dict[str, bytes]:
    """Reads the two files of the devkit from a tar file."""
    found = {}
    try:
        with tarfile.open(devkit) as archive:
            for member in archive:
                name = "/".join(PurePosixPath(member.name).parts[-2:])
                if name in (META, GROUND_TRUTH) and member.size <= MAX_LABEL_BYTES and (content := archive.extractfile(member)):
                    found[name] = content.read()
    except Exception as error:  # tarfile, gzip and zlib raise different errors.
        raise UserError(f"{devkit} is damaged: {error}; download it again") from error
    return found


def _read_devkit(files: dict[str, bytes], devkit: Path) -> dict[str, str]:
    """Returns the WordNet id of each image, from the contents of the devkit's files."""
    from scipy.io import loadmat

    absent = [name for name in (META, GROUND_TRUTH) if name not in files]
    if absent:
        raise UserError(f"{devkit} does not contain {absent[0]}, so it is not the devkit of ILSVRC2012; {LABELS_HINT}")
    try:
        synsets = np.atleast_1d(loadmat(BytesIO(files[META]), squeeze_me=True)["synsets"])
        leaves = {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets if synset["num_children"] == 0}
        ids = [int(line) for line in files[GROUND_TRUTH].split()]
        return {f"ILSVRC2012_val_{number:08d}": leaves[id_] for number, id_ in enumerate(ids, start=1)}
    except Exception as error:  # scipy raises many types of errors for a damaged file
        raise UserError(f"{devkit} is damaged ({type(error).__name__}: {error}); download it again") from error
