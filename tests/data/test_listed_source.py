"""Annotation lists as JSON and as text: images, class names, and errors."""

import json

import pytest
import torch
from layouts import CLASSES, decoded, loaded, same, samples, write_folders, write_lists

from swin_lab.data import Listed
from swin_lab.errors import UserError

LISTS = ("train.lst", "val.lst")


@pytest.fixture
def folder(tmp_path):
    return write_folders(tmp_path)


@pytest.fixture
def root(tmp_path, folder):
    write_lists(tmp_path, as_json=False)
    return tmp_path


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "text"])
def test_images_and_labels_are_those_of_the_same_files_in_folders(tmp_path, folder, as_json):
    write_lists(tmp_path, as_json)
    listed = Listed(str(tmp_path), *LISTS)
    assert same(listed.train, folder.train)
    assert same(listed.val, folder.val)


def test_images_that_no_list_names_are_not_read(root):
    (root / "val.lst").write_text("val/bee/val_bee_1.jpg 1\nval/ant/val_ant_0.jpg 0\n")
    val = Listed(str(root), *LISTS).val
    assert [val.name(i) for i in range(2)] == [str(root / "val/bee/val_bee_1.jpg"), str(root / "val/ant/val_ant_0.jpg")]


def test_a_list_may_be_in_another_folder(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("lists") / "mine.txt"
    (root / "val.lst").rename(elsewhere)
    assert len(Listed(str(root), "train.lst", str(elsewhere)).val.labels) == 6


def test_a_path_with_spaces_and_umlauts_is_read_up_to_the_last_space(root):
    (root / "ein Käfer.jpg").write_bytes(samples("val")[0][2])
    (root / "val.lst").write_text("ein Käfer.jpg 1\n", encoding="utf-8")
    val = Listed(str(root), *LISTS).val
    assert decoded(val, 0).size == (6, 4)
    assert val.name(0) == str(root / "ein Käfer.jpg")


def test_empty_lines_are_ignored(root):
    (root / "val.lst").write_text("\n\nval/ant/val_ant_0.jpg 0\n\n")
    assert Listed(str(root), *LISTS).val.labels.tolist() == [0]


def test_classes_are_named_after_the_folders_of_the_training_images(root):
    assert Listed(str(root), *LISTS).class_names == CLASSES


def test_a_class_index_need_not_follow_the_order_of_the_names(root):
    for split in ("train", "val"):
        swapped = "".join(f"{split}/{path} {2 - label}\n" for path, label, _ in samples(split))
        (root / f"{split}.lst").write_text(swapped)
    assert Listed(str(root), *LISTS).class_names == ["cat", "bee", "ant"]


def test_classes_without_images_are_named_by_their_indices(root):
    assert Listed(str(root), *LISTS, num_classes=5).class_names == [*CLASSES, "3", "4"]


def test_an_evaluation_only_reads_no_training_list(root):
    (root / "train.lst").unlink()
    source = Listed(str(root), *LISTS, val_only=True)
    assert (len(source.train.labels), len(source.val.labels), source.class_names) == (0, 6, CLASSES)


def test_two_workers_read_the_images_that_one_process_reads(root):
    train = Listed(str(root), *LISTS).train
    assert torch.equal(loaded(train, workers=2), loaded(train, workers=0))


@pytest.mark.parametrize("name", LISTS)
def test_a_missing_list_is_named(root, name):
    (root / name).unlink()
    with pytest.raises(
        UserError, match=f"{root / name} cannot be read: No such file.*data.root must be the folder that contains it"
    ):
        Listed(str(root), *LISTS)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=f"the folder {tmp_path / 'none'} does not exist"):
        Listed(str(tmp_path / "none"), *LISTS)


@pytest.mark.parametrize(
    "text",
    ["val/ant/val_ant_0.jpg", "a.jpg ant", "a.jpg 1.5", "[[1", "[1, 2]", '[["a.jpg"]]', '[["a.jpg", null]]', '[{"a.jpg": 1}]'],
)
def test_a_malformed_list_is_rejected_with_the_expected_format(root, text):
    (root / "val.lst").write_text(text)
    with pytest.raises(UserError, match=r"val\.lst is not a list of images: each line must be a path and a class index"):
        Listed(str(root), *LISTS)


def test_a_binary_file_is_rejected_as_a_list(root):
    (root / "val.lst").write_bytes(samples("val")[0][2])
    with pytest.raises(UserError, match=r"val\.lst is not a list of images"):
        Listed(str(root), *LISTS)


@pytest.mark.parametrize("text", ["", "\n", "[]"])
def test_a_list_without_images_is_rejected(root, text):
    (root / "val.lst").write_text(text)
    with pytest.raises(UserError, match=r"val\.lst names no images"):
        Listed(str(root), *LISTS)


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("as_json", [True, False], ids=["json", "text"])
def test_a_negative_class_index_is_rejected_by_the_name_of_the_list(root, name, as_json):
    (root / name).write_text(json.dumps([["a.jpg", 0], ["b.jpg", -1]]) if as_json else "a.jpg 0\nb.jpg -1\n")
    with pytest.raises(UserError, match=f"{name} contains a negative class index"):
        Listed(str(root), *LISTS)


@pytest.mark.parametrize("name", LISTS)
def test_a_class_index_beyond_the_number_of_classes_is_rejected(root, name):
    (root / name).write_text("a.jpg 3\n")
    with pytest.raises(UserError, match=r"class index 3, and data\.num_classes=3; increase it"):
        Listed(str(root), *LISTS, num_classes=3)


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "text"])
def test_a_byte_order_mark_is_no_part_of_the_first_path(root, folder, as_json):
    write_lists(root, as_json)
    for name in LISTS:
        (root / name).write_bytes(b"\xef\xbb\xbf" + (root / name).read_bytes().replace(b"\n", b"\r\n"))
    assert same(Listed(str(root), *LISTS).train, folder.train)


def test_a_path_that_is_not_utf_8_is_read(root):
    file = root / "val" / "ant" / "caf\udce9.jpg"
    file.write_bytes(samples("val")[0][2])
    (root / "val.lst").write_bytes(b"val/ant/caf\xe9.jpg 0\n")
    val = Listed(str(root), *LISTS).val
    assert decoded(val, 0).size == (6, 4)
    assert val.name(0).endswith(r"caf\udce9.jpg")


@pytest.mark.parametrize("label", ["1.0", "1.9", "true", '"1_0"', "null", "1e3", "NaN", "[1]"])
def test_a_class_index_in_json_that_is_not_an_integer_is_refused_and_not_rounded(root, label):
    (root / "val.lst").write_text(f'[["val/ant/val_ant_0.jpg", {label}]]')
    with pytest.raises(UserError, match=r"is not a list of images.* is not an integer"):
        Listed(str(root), *LISTS)


@pytest.mark.parametrize("text", ["[" * 10**5, '[["a\\ud800.jpg", 0]]', '[["a\\u0000.jpg", 0]]', "[[1, 0]]", "[null]"])
def test_what_is_no_list_of_paths_is_refused_in_at_most_three_lines(root, text):
    (root / "val.lst").write_text(text)
    with pytest.raises(UserError, match="is not a list of images") as raised:
        Listed(str(root), *LISTS)
    assert len(str(raised.value).splitlines()) <= 3


def test_an_image_with_two_classes_is_refused_and_one_that_is_listed_twice_counts_twice(root):
    (root / "val.lst").write_text("val/ant/val_ant_0.jpg 0\nval/bee/val_bee_0.jpg 1\nval/ant/val_ant_0.jpg 0\n")
    assert Listed(str(root), *LISTS).val.labels.tolist() == [0, 1, 0]
    (root / "val.lst").write_text("val/ant/val_ant_0.jpg 0\nval/bee/val_bee_0.jpg 1\nval/ant/val_ant_0.jpg 2\n")
    with pytest.raises(UserError, match=r"val\.lst gives val/ant/val_ant_0\.jpg the classes 0 and 2"):
        Listed(str(root), *LISTS)


@pytest.mark.parametrize("file", ["/dev/zero", "."])
def test_a_list_that_is_no_file_is_refused_without_reading_it(root, file):
    with pytest.raises(UserError, match="is not a file; give the file of a list"):
        Listed(str(root), "train.lst", file)
