"""Sorting flat validation images into class folders: every kind of label file, unchanged files, and errors."""

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from swin_lab.data.prepare import prepare_val
from swin_lab.errors import UserError

WNIDS = ["n01440764", "n01443537", "n01484850"]
CLASSES = [2, 0, 2, 1]
"""Class index of image 1, 2, 3 and 4."""
KINDS = ["kaggle", "map", "wnids", "devkit", "tar"]


def stem(number):
    return f"ILSVRC2012_val_{number:08d}"


def sorted_images(folder):
    """Returns the class folder and the name of every sorted image."""
    return sorted(str(file.relative_to(folder)) for file in folder.glob("*/*"))


EXPECTED = sorted(f"{WNIDS[label]}/{stem(number)}.JPEG" for number, label in enumerate(CLASSES, start=1))


@pytest.fixture
def flat(tmp_path):
    folder = tmp_path / "val"
    folder.mkdir()
    for number in range(1, len(CLASSES) + 1):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{stem(number)}.JPEG", "JPEG")
    return folder


def write_devkit(folder):
    """Writes a devkit whose leaves have the ids 1 to 3 in reverse order of their WordNet ids; id 4 is their parent."""
    fields = [(name, object) for name in ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children")]
    synsets = np.empty(4, dtype=fields)
    for row, wnid in enumerate([*reversed(WNIDS), "n00001740"]):
        inner = row == 3
        synsets[row] = (row + 1, wnid, "word", "gloss", 3 if inner else 0, [1, 2, 3] if inner else [])
    (folder / "data").mkdir(parents=True)
    savemat(folder / "data" / "meta.mat", {"synsets": synsets.reshape(-1, 1)})
    ids = "".join(f"{3 - label}\n" for label in CLASSES)
    (folder / "data" / "ILSVRC2012_validation_ground_truth.txt").write_text(ids)
    return folder


def write_labels(kind, folder):
    """Writes a label file of each kind with the same classes, and always with the same name."""
    file = folder / "labels"
    numbered = list(enumerate(CLASSES, start=1))
    if kind == "kaggle":
        boxes = "85 1 499 272"
        rows = [f"{stem(number)},{WNIDS[label]} {boxes} {WNIDS[label]} {boxes}" for number, label in reversed(numbered)]
        file.write_text("\n".join(["ImageId,PredictionString", *rows]) + "\n")
    elif kind == "map":
        file.write_text("".join(f"{stem(number)}.JPEG\t{label}\n" for number, label in numbered))
    elif kind == "wnids":
        file.write_text("".join(f"{stem(number)}.JPEG {WNIDS[label]}\n" for number, label in numbered))
    elif kind == "devkit":
        write_devkit(file)
    else:
        with tarfile.open(file, "w:gz") as archive:
            archive.add(write_devkit(folder / "unpacked"), "ILSVRC2012_devkit_t12")
    return file


@pytest.fixture
def map_file(tmp_path):
    return write_labels("map", tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_every_kind_put_each_image_into_its_class(flat, tmp_path, kind):
    assert prepare_val(flat, write_labels(kind, tmp_path), WNIDS) == 4
    assert sorted_images(flat) == EXPECTED


def test_moving_leaves_no_flat_image(flat, map_file):
    prepare_val(flat, map_file, WNIDS)
    assert sorted(file.name for file in flat.iterdir()) == WNIDS


def test_images_keep_their_bytes(flat, map_file):
    before = {file.name: file.read_bytes() for file in flat.iterdir()}
    prepare_val(flat, map_file, WNIDS)
    assert {file.name: file.read_bytes() for file in flat.glob("*/*")} == before


def test_copying_leaves_the_flat_images(flat, map_file):
    assert prepare_val(flat, map_file, WNIDS, copy=True) == 4
    assert len(list(flat.glob("*.JPEG"))) == 4
    assert sorted_images(flat) == EXPECTED


@pytest.mark.parametrize("copy", [False, True])
def test_an_interrupted_run_can_be_continued(flat, map_file, monkeypatch, copy):
    rename, calls = os.rename, []

    def fails_at_the_third(source, target):
        calls.append(source)
        if len(calls) == 3:
            raise OSError("the disk is full")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fails_at_the_third)
    with pytest.raises(UserError, match=r"the disk is full\n2 of 4 images are done"):
        prepare_val(flat, map_file, WNIDS, copy=copy)
    assert prepare_val(flat, map_file, WNIDS, copy=copy) == 2
    assert sorted_images(flat) == EXPECTED


@pytest.mark.parametrize("copy", [False, True])
def test_a_second_run_finds_nothing_to_do(flat, map_file, copy):
    prepare_val(flat, map_file, WNIDS, copy=copy)
    assert prepare_val(flat, map_file, WNIDS, copy=copy) == 0
    assert sorted_images(flat) == EXPECTED


def test_other_files_stay_where_they_are(flat, map_file):
    (flat / "notes.txt").write_text("a note")
    prepare_val(flat, map_file, WNIDS)
    assert (flat / "notes.txt").read_text() == "a note"


def test_labels_of_images_that_are_not_there_are_ignored(flat, map_file):
    (flat / f"{stem(2)}.JPEG").unlink()
    assert prepare_val(flat, map_file, WNIDS) == 3


def test_the_tar_is_not_unpacked_on_disk(flat, tmp_path):
    labels = write_labels("tar", tmp_path)
    before = sorted(tmp_path.iterdir())
    prepare_val(flat, labels, WNIDS)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("copy", [False, True])
def test_an_existing_image_is_not_overwritten_and_nothing_is_moved(flat, map_file, copy):
    taken = flat / WNIDS[1] / f"{stem(4)}.JPEG"
    taken.parent.mkdir()
    taken.write_bytes(b"other")
    with pytest.raises(UserError, match=f"both {taken} and {flat / taken.name} exist"):
        prepare_val(flat, map_file, WNIDS, copy=copy)
    assert taken.read_bytes() == b"other"
    assert len(list(flat.glob("*.JPEG"))) == 4
    assert len(sorted_images(flat)) == 1


def test_a_file_in_the_place_of_a_class_folder_is_named(flat, map_file):
    (flat / WNIDS[0]).write_text("a file")
    with pytest.raises(UserError, match=f"{flat / WNIDS[0]} is a file"):
        prepare_val(flat, map_file, WNIDS)


def test_an_image_without_label_stops_before_anything_is_moved(flat, map_file):
    Image.new("RGB", (8, 8)).save(flat / f"{stem(5)}.JPEG")
    with pytest.raises(UserError, match=f"no label for 1 images, the first is {flat / stem(5)}"):
        prepare_val(flat, map_file, WNIDS)
    assert sorted_images(flat) == []


def test_a_class_that_is_not_known_stops_before_anything_is_moved(flat, tmp_path):
    with pytest.raises(UserError, match="1 classes that are not among the 2 known ones, the first is 'n01484850'"):
        prepare_val(flat, write_labels("kaggle", tmp_path), WNIDS[:2])
    assert sorted_images(flat) == []


def test_an_index_above_the_classes_is_named_with_its_line(flat, map_file):
    with pytest.raises(UserError, match="line 1 has class 2 of 2 classes"):
        prepare_val(flat, map_file, WNIDS[:2])


def test_an_image_with_two_classes_is_named_with_its_line(flat, map_file):
    with map_file.open("a") as file:
        file.write(f"{stem(1)}.JPEG\t1\n")
    with pytest.raises(UserError, match=f"line 5 gives {stem(1)}.JPEG a second class"):
        prepare_val(flat, map_file, WNIDS)


@pytest.mark.parametrize("line", ["a line of words", "ILSVRC2012_val_00000001.JPEG"])
def test_a_malformed_line_is_shown(flat, map_file, line):
    map_file.write_text(f"{line}\n")
    with pytest.raises(UserError, match=f"line 1 is {line!r}, expected the name of an image and its class"):
        prepare_val(flat, map_file, WNIDS)


def test_a_kaggle_row_without_boxes_is_shown(flat, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text(f"ImageId,PredictionString\n{stem(1)},\n")
    with pytest.raises(UserError, match=f"line 2 is '{stem(1)} ', expected ImageId,PredictionString"):
        prepare_val(flat, labels, WNIDS)


def test_a_binary_file_is_named(flat, tmp_path):
    labels = tmp_path / "labels"
    labels.write_bytes(b"\xff\xfe\x00\x81" * 9)
    with pytest.raises(UserError, match=f"{labels} is neither a text file nor a tar file"):
        prepare_val(flat, labels, WNIDS)


@pytest.mark.parametrize("absent", ["data/meta.mat", "data/ILSVRC2012_validation_ground_truth.txt"])
def test_a_folder_that_lacks_a_file_of_the_devkit_is_rejected_with_its_name(flat, tmp_path, absent):
    devkit = write_devkit(tmp_path / "devkit")
    (devkit / absent).unlink()
    with pytest.raises(UserError, match=f"{devkit} does not contain {absent}"):
        prepare_val(flat, devkit, WNIDS)


def test_a_damaged_meta_file_is_rejected(flat, tmp_path):
    devkit = write_devkit(tmp_path / "devkit")
    (devkit / "data" / "meta.mat").write_bytes(b"no matrix")
    with pytest.raises(UserError, match=f"{devkit} is damaged"):
        prepare_val(flat, devkit, WNIDS)


def test_an_id_of_a_class_above_the_leaves_is_no_label(flat, tmp_path):
    devkit = write_devkit(tmp_path / "devkit")
    (devkit / "data" / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n2\n3\n4\n")
    with pytest.raises(UserError, match=r"is damaged \(KeyError: 4\)"):
        prepare_val(flat, devkit, WNIDS)


def test_a_truncated_tar_is_rejected(flat, tmp_path):
    labels = tmp_path / "devkit.tar.gz"
    with tarfile.open(labels, "w:gz") as archive:
        noise = tmp_path / "noise"
        noise.write_bytes(np.random.default_rng(0).bytes(50_000))
        archive.add(noise, "ILSVRC2012_devkit_t12/data/meta.mat")
    labels.write_bytes(labels.read_bytes()[:30_000])
    with pytest.raises(UserError, match=f"{labels} is damaged"):
        prepare_val(flat, labels, WNIDS)


def test_missing_labels_are_named(flat, tmp_path):
    with pytest.raises(UserError, match=f"the file {tmp_path / 'nothing.csv'} does not exist"):
        prepare_val(flat, tmp_path / "nothing.csv", WNIDS)


def test_a_missing_folder_is_named(tmp_path, map_file):
    with pytest.raises(UserError, match=f"the folder {tmp_path / 'nowhere'} does not exist"):
        prepare_val(tmp_path / "nowhere", map_file, WNIDS)


def test_a_folder_without_images_is_named(tmp_path, map_file):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"{tmp_path / 'empty'} contains no images"):
        prepare_val(tmp_path / "empty", map_file, WNIDS)


def test_a_folder_with_other_images_only_is_named(tmp_path, map_file):
    Image.new("RGB", (8, 8)).save(tmp_path / "holiday.JPEG")
    with pytest.raises(UserError, match="contains no images such as ILSVRC2012_val_00000001"):
        prepare_val(tmp_path, map_file, WNIDS)


@pytest.mark.parametrize("file", ["/dev/zero", "/dev/null"])
def test_labels_that_are_no_file_are_refused_without_reading_them(flat, file):
    with pytest.raises(UserError, match=f"{file} is not a file of labels; give LOC_val_solution.csv"):
        prepare_val(flat, Path(file), WNIDS)
