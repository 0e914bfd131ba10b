"""Images in zip files with map files, and errors of damaged and incomplete files."""

from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np
import pytest
import torch
from layouts import CLASSES, decoded, loaded, same, samples, write_folders, write_zips

from swin_lab.data import Zipped
from swin_lab.data.decoding import UNREADABLE
from swin_lab.errors import UserError


@pytest.fixture
def root(tmp_path):
    write_zips(tmp_path / "zips")
    return tmp_path / "zips"


@pytest.mark.parametrize("method", [ZIP_STORED, ZIP_DEFLATED], ids=["stored", "deflated"])
def test_images_and_labels_are_those_of_the_same_files_in_folders(tmp_path, method):
    write_zips(tmp_path / "zips", method)
    folder, zipped = write_folders(tmp_path / "folders"), Zipped(str(tmp_path / "zips"))
    assert same(zipped.train, folder.train)
    assert same(zipped.val, folder.val)


def test_stored_and_deflated_members_may_be_in_one_zip(tmp_path, root):
    with ZipFile(root / "val.zip", "w") as archive:
        for number, (path, _, content) in enumerate(samples("val")):
            archive.writestr(path, content, [ZIP_STORED, ZIP_DEFLATED][number % 2])
    assert same(Zipped(str(root)).val, write_folders(tmp_path / "folders").val)


def test_a_zip_that_was_streamed_with_sizes_after_its_members_is_read(tmp_path, root):
    class Pipe:
        """A file that cannot seek."""

        def __init__(self, file):
            self.file = file

        def write(self, content):
            return self.file.write(content)

        def flush(self):
            self.file.flush()

    with (root / "val.zip").open("wb") as file, ZipFile(Pipe(file), "w") as archive:
        for path, _, content in samples("val"):
            archive.writestr(path, content)
    assert same(Zipped(str(root)).val, write_folders(tmp_path / "folders").val)


def test_members_with_extra_fields_are_read(tmp_path, root):
    with ZipFile(root / "val.zip", "w") as archive:
        for path, _, content in samples("val"):
            info = ZipInfo(path)
            info.extra = b"UT\x05\x00\x03\x00\x00\x00\x00"  # a timestamp, as `zip` writes it
            archive.writestr(info, content)
    assert same(Zipped(str(root)).val, write_folders(tmp_path / "folders").val)


def test_a_zip_after_other_bytes_is_read(tmp_path, root):
    file = root / "val.zip"
    file.write_bytes(b"#!/bin/sh\n" * 50 + file.read_bytes())
    assert same(Zipped(str(root)).val, write_folders(tmp_path / "folders").val)


def test_the_map_decides_order_and_labels_and_not_the_zip(root):
    first, *_, last = samples("val")
    (root / "val_map.txt").write_text(f"{last[0]}\t2\n{first[0]}\t0\n")
    val = Zipped(str(root)).val
    assert val.labels.tolist() == [2, 0]
    assert val.name(0).endswith(last[0])


def test_a_path_with_spaces_is_read_up_to_the_tab(root):
    with ZipFile(root / "val.zip", "a") as archive:
        archive.writestr("ant/an ant.jpg", samples("val")[0][2])
    (root / "val_map.txt").write_text("ant/an ant.jpg\t0\n")
    assert decoded(Zipped(str(root)).val, 0).size == (6, 4)


def test_classes_are_named_after_the_folders_of_their_images(root):
    assert Zipped(str(root)).class_names == CLASSES


def test_classes_whose_images_share_a_folder_are_named_by_their_indices(root):
    with ZipFile(root / "train.zip", "w") as archive:
        for i in range(3):
            archive.writestr(f"all/{i}.jpg", samples("train")[i][2])
    (root / "train_map.txt").write_text("".join(f"all/{i}.jpg\t{i}\n" for i in range(3)))
    assert Zipped(str(root)).class_names == ["0", "1", "2"]


def test_an_image_is_named_by_the_zip_and_its_path_in_it(root):
    assert Zipped(str(root)).val.name(2) == f"{root / 'val.zip'}@/bee/val_bee_0.jpg"


def test_an_evaluation_only_needs_no_training_files(root):
    (root / "train.zip").unlink()
    (root / "train_map.txt").unlink()
    source = Zipped(str(root), val_only=True)
    assert (len(source.train.labels), len(source.val.labels), source.class_names) == (0, 6, CLASSES)


def test_two_workers_read_the_images_that_one_process_reads(root):
    train = Zipped(str(root)).train
    assert torch.equal(loaded(train, workers=2), loaded(train, workers=0))


@pytest.mark.parametrize("name", ["train.zip", "val.zip"])
def test_a_missing_zip_is_named_with_the_files_that_are_needed(root, name):
    (root / name).unlink()
    with pytest.raises(UserError, match=f"has no {name}; it needs train.zip, train_map.txt, val.zip and val_map.txt"):
        Zipped(str(root))


@pytest.mark.parametrize("name", ["train_map.txt", "val_map.txt"])
def test_a_missing_map_is_named(root, name):
    (root / name).unlink()
    with pytest.raises(
        UserError, match=f"{root / name} cannot be read: No such file.*data.root must be the folder that contains it"
    ):
        Zipped(str(root))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=f"the folder {tmp_path / 'none'} does not exist"):
        Zipped(str(tmp_path / "none"))


@pytest.mark.parametrize("kept", [0, 0.5, 0.95])
def test_a_truncated_zip_is_rejected_by_name(root, kept):
    file = root / "train.zip"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * kept)])
    with pytest.raises(UserError, match=f"{file} cannot be read as a zip file"):
        Zipped(str(root))


def test_no_wrong_byte_in_the_directory_of_a_zip_ends_in_a_traceback(root):
    file = root / "val.zip"
    complete = file.read_bytes()
    places = range(complete.index(b"PK\x01\x02"), len(complete))
    endings = []
    for place in places:
        file.write_bytes(complete[:place] + bytes([complete[place] ^ 0xFF]) + complete[place + 1 :])
        try:
            val = Zipped(str(root), val_only=True).val
            for i in range(len(val.labels)):
                decoded(val, i)
            endings.append("read")
        except UserError:
            endings.append("refused")
        except UNREADABLE:
            endings.append("unreadable")
    assert len(endings) == len(places)
    assert {"refused", "unreadable"} <= set(endings)


def test_a_damaged_member_is_an_unreadable_image_and_the_others_are_read(tmp_path):
    write_zips(tmp_path, ZIP_DEFLATED)
    val = Zipped(str(tmp_path)).val
    file = tmp_path / "val.zip"
    content = bytearray(file.read_bytes())
    start = int(val.extents[1, 0])
    place = content.index(b".jpg", start) + len(".jpg")  # The compressed data follows the name.
    content[place : place + 100] = b"\xff" * 100
    file.write_bytes(content)
    with pytest.raises(UNREADABLE):
        decoded(val, 1)
    assert decoded(val, 0).size == (6, 4)


def test_a_zip_that_was_replaced_while_it_is_in_use_gives_unreadable_images(root):
    val = Zipped(str(root)).val
    (root / "val.zip").write_bytes(b"short")
    with pytest.raises(UNREADABLE):
        decoded(val, 1)


def test_an_image_that_the_zip_lacks_is_named_with_the_line_of_the_map(root):
    with (root / "val_map.txt").open("a") as file:
        file.write("dog/none.jpg\t0\n")
    with pytest.raises(UserError, match=f"dog/none.jpg, line 7 of val_map.txt, is not in {root / 'val.zip'}"):
        Zipped(str(root))


def test_a_compression_that_is_not_read_is_named_with_the_image(root):
    write_zips(root, ZIP_BZIP2)
    with pytest.raises(UserError, match=r"ant/val_ant_0\.jpg, line 1 of val_map\.txt, is encrypted or has an uns"):
        Zipped(str(root))


def test_a_negative_class_index_is_rejected_by_the_name_of_the_map(root):
    (root / "val_map.txt").write_text(f"{samples('val')[0][0]}\t-1\n")
    with pytest.raises(UserError, match=r"val_map\.txt contains a negative class index"):
        Zipped(str(root))


@pytest.mark.parametrize("line", ["ant/val_ant_0.jpg", "ant/val_ant_0.jpg\tant", "ant/val_ant_0.jpg\t0.5"])
def test_a_line_without_a_class_index_is_rejected_with_the_expected_format(root, line):
    (root / "val_map.txt").write_text(line)
    with pytest.raises(UserError, match=r"val_map\.txt is not a list of images: each line must be a path and a class index"):
        Zipped(str(root))


def test_an_empty_map_is_rejected(root):
    (root / "val_map.txt").write_text("\n\n")
    with pytest.raises(UserError, match=r"val_map\.txt names no images"):
        Zipped(str(root))


def test_a_class_that_only_the_evaluation_has_counts_as_a_class(root):
    with ZipFile(root / "val.zip", "a") as archive:
        archive.writestr("dog/dog.jpg", samples("val")[0][2])
    (root / "val_map.txt").write_text("dog/dog.jpg\t3\n")
    assert Zipped(str(root)).class_names == [*CLASSES, "3"]


def test_all_labels_are_int64(root):
    assert Zipped(str(root)).train.labels.dtype == np.int64


def test_a_validation_map_with_other_indices_than_the_training_map_is_rejected(tmp_path):
    write_zips(tmp_path)
    lines = (tmp_path / "val_map.txt").read_text().replace("\t0", "\t9").replace("\t1", "\t0").replace("\t9", "\t1")
    (tmp_path / "val_map.txt").write_text(lines)
    with pytest.raises(UserError, match=r"gives the images in bee class 0, and the training list class 1"):
        Zipped(str(tmp_path))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_a_zip_contains_twice_is_refused(root):
    name, _, content = samples("val")[0]
    with ZipFile(root / "val.zip", "a") as archive:
        archive.writestr(name, content)
    with pytest.raises(UserError, match=rf"val\.zip contains {name} twice"):
        Zipped(str(root))


def test_a_member_that_becomes_too_large_when_it_is_decompressed_is_unreadable(tmp_path, monkeypatch):
    write_zips(tmp_path, ZIP_DEFLATED)
    val = Zipped(str(tmp_path)).val
    monkeypatch.setattr("swin_lab.data.sources.zipped.MAX_IMAGE_BYTES", 100)
    with pytest.raises(OSError, match="too large for an image"):
        val.encoded(0)
