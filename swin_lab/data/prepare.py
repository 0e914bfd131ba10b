"""Puts the flat validation images of ImageNet-1k into class folders, from any of the label files they are published with."""

import csv
import filecmp
import os
import re
import shutil
import tarfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np

from swin_lab.errors import UserError

IMAGE = re.compile(r"ILSVRC2012_val_\d{8}\.(?i:jpe?g)")
KAGGLE_HEADER = "ImageId,PredictionString"
META, GROUND_TRUTH = "data/meta.mat", "data/ILSVRC2012_validation_ground_truth.txt"
LABELS_WANTED = "give LOC_val_solution.csv, val_map.txt or ILSVRC2012_devkit_t12.tar.gz"


def prepare_val(folder: Path, labels: Path, class_names: Sequence[str], copy: bool = False) -> int:
    """Moves `folder/ILSVRC2012_val_00000001.JPEG` and the others into `folder/<wnid>/`.

    Everything is checked before the first image is moved, and nothing is overwritten. After an interruption it can be
    run again: images that are in class folders already are left alone.

    Args:
        folder: of the flat images; the class folders are made in it.
        labels: Kaggle's LOC_val_solution.csv; or lines `image index` (val_map.txt) or `image wnid`; or the devkit of
            ILSVRC2012, as a folder or as its tar.gz. It is recognised by its content.
        class_names: the WordNet ids of the classes, in the order that indices count in.
        copy: leave the flat images where they are.

    Returns:
        How many images were moved or copied.

    Raises:
        UserError: there are no images, one has no label or a class that is not in class_names, its place is taken, the
            labels cannot be read, or a file cannot be moved.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; give the folder of the validation images")
    images = sorted(file for file in folder.iterdir() if IMAGE.fullmatch(file.name) and file.is_file())
    if not images:
        if any(IMAGE.fullmatch(file.name) for file in folder.glob("*/*")):
            return 0
        raise UserError(f"{folder} holds no images like ILSVRC2012_val_00000001.JPEG; unpack ILSVRC2012_img_val.tar there")
    plan = _plan(images, _read_labels(labels, class_names), labels, class_names, copy)
    for done, (image, target) in enumerate(plan):
        try:
            target.parent.mkdir(exist_ok=True)
            if copy:
                partial = target.with_name(f".{target.name}.partial")  # an interruption leaves no half image behind
                shutil.copy2(image, partial)
                os.rename(partial, target)
            else:
                os.rename(image, target)
        except OSError as error:
            raise UserError(
                f"{image} could not be put into {target.parent}: {error}\n"
                f"{done} of {len(plan)} images are in place; mend this and run it again, it goes on from there."
            ) from error
    return len(plan)


def _plan(
    images: list[Path], wnid_of: dict[str, str], labels: Path, class_names: Sequence[str], copy: bool
) -> list[tuple[Path, Path]]:
    """(image, where it goes) of all that have to go."""
    unlabelled = [image for image in images if image.stem not in wnid_of]
    if unlabelled:
        raise UserError(f"{labels} has no label for {len(unlabelled)} images, the first is {unlabelled[0]}; {LABELS_WANTED}")
    foreign = sorted({wnid_of[image.stem] for image in images} - set(class_names))
    if foreign:
        raise UserError(
            f"{labels} has {len(foreign)} classes that are none of the {len(class_names)} known ones, the first is "
            f"{foreign[0]!r}; {LABELS_WANTED}"
        )
    plan = []
    for image in images:
        target = image.parent / wnid_of[image.stem] / image.name
        if target.parent.exists() and not target.parent.is_dir():
            raise UserError(f"{target.parent} is a file where a class folder has to be; move it away")
        if not os.path.lexists(target):
            plan.append((image, target))
        elif not (copy and target.is_file() and filecmp.cmp(image, target, shallow=False)):
            raise UserError(f"{target} exists already, and so does {image}; remove one of them")
    return plan


def _read_labels(labels: Path, class_names: Sequence[str]) -> dict[str, str]:
    """WordNet id by the image's name without its ending."""
    if not labels.exists():
        raise UserError(f"there is no file {labels}; {LABELS_WANTED}")
    if labels.is_dir():
        found = [name for name in (META, GROUND_TRUTH) if (labels / name).is_file()]
        return _read_devkit({name: (labels / name).read_bytes() for name in found}, labels)
    if tarfile.is_tarfile(labels):
        return _read_devkit(_unpack(labels), labels)
    try:
        lines = labels.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{labels} is neither text nor a tar; {LABELS_WANTED}") from error
    kaggle = lines[:1] == [KAGGLE_HEADER]
    rows = csv.reader(lines[1:]) if kaggle else (line.split() for line in lines)
    wnid_of: dict[str, str] = {}
    for number, row in enumerate(rows, start=2 if kaggle else 1):
        if not row:
            continue
        if len(row) != 2 or not row[1].strip():
            wanted = KAGGLE_HEADER if kaggle else "an image's name and its class"
            raise UserError(f"{labels} line {number} is {' '.join(row)!r}, not {wanted}; {LABELS_WANTED}")
        wnid = row[1].split()[0]
        if not kaggle and wnid.isdecimal():
            if int(wnid) >= len(class_names):
                raise UserError(f"{labels} line {number} has class {wnid}; there are {len(class_names)}; {LABELS_WANTED}")
            wnid = class_names[int(wnid)]
        if wnid_of.setdefault(PurePosixPath(row[0]).stem, wnid) != wnid:
            raise UserError(f"{labels} line {number} gives {row[0]} a second class, {wnid}; remove one of the two lines")
    return wnid_of


def _unpack(devkit: Path) -> dict[str, bytes]:
    found = {}
    try:
        with tarfile.open(devkit) as archive:
            for member in archive:
                name = "/".join(PurePosixPath(member.name).parts[-2:])
                if name in (META, GROUND_TRUTH) and (content := archive.extractfile(member)):
                    found[name] = content.read()
    except Exception as error:  # tarfile, gzip and zlib have each their own kinds
        raise UserError(f"{devkit} is damaged: {error}; fetch it again") from error
    return found


def _read_devkit(files: dict[str, bytes], devkit: Path) -> dict[str, str]:
    from scipy.io import loadmat

    absent = [name for name in (META, GROUND_TRUTH) if name not in files]
    if absent:
        raise UserError(f"{devkit} has no {absent[0]}, so it is not the devkit of ILSVRC2012; {LABELS_WANTED}")
    try:
        synsets = np.atleast_1d(loadmat(BytesIO(files[META]), squeeze_me=True)["synsets"])
        leaves = {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets if synset["num_children"] == 0}
        ids = [int(line) for line in files[GROUND_TRUTH].split()]
        return {f"ILSVRC2012_val_{number:08d}": leaves[id_] for number, id_ in enumerate(ids, start=1)}
    except Exception as error:  # scipy raises many kinds for a damaged file
        raise UserError(f"{devkit} is damaged ({type(error).__name__}: {error}); fetch it again") from error
