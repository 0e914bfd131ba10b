"""Class names and labels of any source: what is refused, whatever the source."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from layouts import CLASSES, write_folders, write_lists, write_shards, write_tar, write_zips

from swin_lab.data import Folder, Listed, Shards, Zipped, check_source
from swin_lab.data.classes import class_index, is_one_line, printable
from swin_lab.data.images import ArrayImages
from swin_lab.errors import UserError


def source(names, labels=(0, 1)):
    labels = np.asarray(labels)
    images = ArrayImages(np.zeros((len(labels), 2, 2, 3), dtype=np.uint8), labels, "some")
    return SimpleNamespace(class_names=names, train=images, val=images)


@pytest.mark.parametrize(
    "names",
    [["a", "b"], ["über", "犬　一"], ["n02123045", "tabby, tabby cat"], ["می\u200cخواهم", "a b"], [" a", "a"]],
    ids=repr,
)
def test_names_in_any_language_are_accepted(names):
    assert check_source(source(names)).class_names == names


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "the data has no class names"),
        (["a", ""], "the name of class 1 is ''; a class name must be a string that is not empty"),
        (["a", "  "], "the name of class 1 is '  '"),
        (["a", 3], "the name of class 1 is 3"),
        (["a", None], "the name of class 1 is None"),
        (["a", "b\nc"], "the name of class 1 is 'b\\nc'; rename it"),
        (["a\r", "b"], "the name of class 0 is 'a\\r'; rename it"),
        (["a", "b\u2028c"], "the name of class 1 is 'b\\u2028c'; rename it"),
        (["a", "\x1b[31mb"], "the name of class 1 is '\\x1b[31mb'; rename it"),
        (["a", "caf\udce9"], "the name of class 1 is 'caf\\udce9'; rename it"),
        (["a", "b", "a"], "classes 0 and 2 have the same name, 'a'"),
    ],
    ids=repr,
)
def test_names_that_cannot_be_told_apart_or_written_one_per_line_are_refused(names, message):
    with pytest.raises(UserError, match=re.escape(message)):
        check_source(source(names))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 2], "train has labels from 0 to 2 and 2 class names"),
        ([0, -1], "train has labels from -1 to 0 and 2 class names"),
        ([0.0, 1.5], "labels of train are of shape (2,) and type float64"),
        ([[0], [1]], "labels of train are of shape (2, 1)"),
    ],
    ids=str,
)
def test_labels_that_are_no_class_indices_are_refused(labels, message):
    with pytest.raises(UserError, match=re.escape(message)):
        check_source(source(["a", "b"], labels))


def test_an_object_that_is_no_source_is_refused_with_the_choice_for_torch_datasets():
    with pytest.raises(UserError, match=r"a list has no class_names.*data=dataset"):
        check_source([1, 2])


@pytest.mark.parametrize("value", [0, 999_999, "7", "0", "-1"])
def test_a_class_index_is_an_integer_or_written_as_one(value):
    assert class_index(value) == int(value)


@pytest.mark.parametrize("value", [1.0, "1.0", True, None, "1_0", "+1", " 1", "٣", "", 10**6, 10**9, "1000000000", "1" * 5000])
def test_other_class_indices_are_refused(value):
    with pytest.raises(ValueError, match=r"integer|maximum"):
        class_index(value)


def test_names_of_files_are_printed_with_escapes():
    assert printable("ein Käfer.jpg") == "ein Käfer.jpg"
    assert printable("a\nb\udcff.jpg") == r"a\nb\udcff.jpg"
    assert is_one_line(printable("\x00\x1b\u2029\udc80"))


BILLION = b"1000000000"


def with_huge_index(root, kind):
    """Writes a data set of three classes in which one image has class 10^9, and returns the source."""
    if kind == "list":
        write_folders(root)
        write_lists(root, as_json=False)
        (root / "train.lst").write_text(f"train/ant/train_ant_0.jpg {BILLION.decode()}\n")
        return lambda: Listed(str(root), "train.lst", "val.lst")
    if kind == "zip":
        write_zips(root)
        (root / "train_map.txt").write_text(f"ant/train_ant_0.jpg\t{BILLION.decode()}\n")
        return lambda: Zipped(str(root))
    write_shards(root, "val", [("a", 0, b"")])
    write_tar(root / "train-0.tar", [("a.jpg", b""), ("a.cls", BILLION)])
    return lambda: Shards(str(root))


@pytest.mark.parametrize("kind", ["list", "zip", "shards"])
def test_a_class_index_of_a_billion_is_refused_at_once(tmp_path, kind):
    with pytest.raises(UserError, match="class index 1000000000 is above the maximum of 999999"):
        with_huge_index(tmp_path, kind)()


@pytest.mark.parametrize("name", ["b\nc", "caf\udce9", " "], ids=ascii)
def test_a_folder_whose_name_cannot_be_a_class_name_is_refused(tmp_path, name):
    write_folders(tmp_path)
    for split in ("train", "val"):
        (tmp_path / split / CLASSES[0]).rename(tmp_path / split / name)
    with pytest.raises(UserError, match="the name of class"):
        check_source(Folder(str(tmp_path)))
