"""Class folders: images, splits, and errors."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from layouts import decoded
from PIL import Image

from swin_lab.data import Folder
from swin_lab.errors import UserError


def write_images(folder, classes, count=4, suffix=".png"):
    """Writes `count` images into a folder of each class."""
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (3, 2), (i, 0, 0)).save(folder / name / f"{name}_{i}{suffix}")
    return folder


def names(images):
    return [Path(images.name(i)).name for i in range(len(images.labels))]


@pytest.fixture
def both(tmp_path):
    write_images(tmp_path / "train", ["cat", "ant", "bee"], count=3)
    write_images(tmp_path / "val", ["ant", "bee", "cat"], count=2)
    return tmp_path


def test_classes_are_the_sorted_names_of_the_training_folders(both):
    assert Folder(str(both)).class_names == ["ant", "bee", "cat"]


def test_every_image_has_the_label_of_its_folder(both):
    source = Folder(str(both))
    for images in (source.train, source.val):
        assert [source.class_names[label] for label in images.labels] == [name.split("_")[0] for name in names(images)]


def test_train_and_val_folders_are_not_split(both):
    source = Folder(str(both))
    assert (len(source.train.labels), len(source.val.labels)) == (9, 6)
    assert all(Path(source.val.name(i)).is_relative_to(both / "val") for i in range(6))


def test_an_image_is_decoded_by_index_and_named_by_its_path(both):
    source = Folder(str(both))
    assert decoded(source.train, 2).getpixel((0, 0)) == (2, 0, 0)
    assert source.train.name(2) == str(both / "train" / "ant" / "ant_2.png")


@pytest.mark.parametrize("name", ["val", "valid", "validation", "test"])
def test_the_validation_folder_may_have_any_usual_name(tmp_path, name):
    write_images(tmp_path / "train", "ab")
    write_images(tmp_path / name, "ab", count=1)
    assert len(Folder(str(tmp_path)).val.labels) == 2


def test_val_wins_over_test(both):
    write_images(both / "test", ["ant", "bee", "cat"], count=1)
    assert len(Folder(str(both)).val.labels) == 6


def test_one_set_is_split_by_the_fraction_class_by_class(tmp_path):
    source = Folder(str(write_images(tmp_path / "set", "abc", count=10)), val_fraction=0.3)
    assert np.bincount(source.train.labels).tolist() == [7, 7, 7]
    assert np.bincount(source.val.labels).tolist() == [3, 3, 3]


def test_a_split_loses_no_image_and_repeats_none(tmp_path):
    source = Folder(str(write_images(tmp_path / "set", "abc", count=10)), val_fraction=0.3)
    assert sorted(names(source.train) + names(source.val)) == sorted(f"{name}_{i}.png" for name in "abc" for i in range(10))


def test_labels_stay_with_their_files_in_a_split(tmp_path):
    source = Folder(str(write_images(tmp_path / "set", "abc", count=10)), val_fraction=0.3)
    for images in (source.train, source.val):
        assert ["abc"[label] for label in images.labels] == [name[0] for name in names(images)]


def test_the_split_seed_alone_decides_the_split(tmp_path):
    folder = str(write_images(tmp_path / "set", "ab", count=10))
    assert names(Folder(folder, 0.5, 0).val) == names(Folder(folder, 0.5, 0).val)
    assert names(Folder(folder, 0.5, 0).val) != names(Folder(folder, 0.5, 1).val)


def test_hidden_folders_and_hidden_files_are_ignored(both):
    write_images(both / "train", [".cache"])
    Image.new("RGB", (2, 2)).save(both / "train" / "ant" / "._ant_0.png")
    source = Folder(str(both))
    assert source.class_names == ["ant", "bee", "cat"]
    assert len(source.train.labels) == 9


def test_hidden_folders_inside_a_class_are_ignored(both):
    copies = both / "train" / "ant" / ".ipynb_checkpoints"  # Jupyter creates them
    copies.mkdir()
    Image.new("RGB", (2, 2)).save(copies / "ant_0-checkpoint.png")
    assert len(Folder(str(both)).train.labels) == 9


def test_images_in_folders_below_a_class_belong_to_it(both):
    write_images(both / "train" / "bee", ["morning"], count=2)
    source = Folder(str(both))
    assert np.bincount(source.train.labels).tolist() == [3, 5, 3]


@pytest.mark.parametrize("suffix", [".JPG", ".jpeg", ".webp", ".bmp", ".tif"])
def test_images_of_many_kinds_and_spellings_are_found(tmp_path, suffix):
    write_images(tmp_path / "train", "ab", suffix=suffix)
    write_images(tmp_path / "val", "ab", suffix=suffix)
    assert len(Folder(str(tmp_path)).train.labels) == 8


def test_files_that_are_not_images_are_ignored(both):
    (both / "train" / "ant" / "notes.txt").write_text("a note")
    (both / "train" / "LICENSE").write_text("free")
    assert len(Folder(str(both)).train.labels) == 9


def test_a_missing_root_is_named_as_given_and_as_an_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"data\.root=images") as raised:
        Folder("images")
    assert str(tmp_path / "images") in str(raised.value)


def test_images_without_class_folders_are_counted_and_explained(tmp_path):
    for i in range(3):
        Image.new("RGB", (2, 2)).save(tmp_path / f"{i}.png")
    with pytest.raises(UserError, match="3 images but no class folders"):
        Folder(str(tmp_path))


def test_a_class_folder_without_images_is_named(both):
    (both / "train" / "dog").mkdir()
    (both / "val" / "dog").mkdir()
    with pytest.raises(UserError, match=f"{both / 'train' / 'dog'} contains no images"):
        Folder(str(both))


def test_validation_classes_that_are_missing_in_train_are_named(both):
    write_images(both / "val", ["elk"])
    with pytest.raises(UserError, match="classes that train/ does not contain: elk"):
        Folder(str(both))


def test_training_classes_that_the_validation_lacks_are_named(both):
    write_images(both / "train", ["elk", "fox"])
    with pytest.raises(UserError, match="lacks classes of train/: elk, fox"):
        Folder(str(both))


def test_many_wrong_classes_are_counted_and_not_all_listed(both):
    write_images(both / "val", [f"x{i}" for i in range(9)], count=1)
    with pytest.raises(UserError, match="x0, x1, x2, x3, x4 and 4 more"):
        Folder(str(both))


def test_train_without_val_says_how_to_split(tmp_path):
    write_images(tmp_path / "train", "ab")
    with pytest.raises(UserError, match=f"data.root={tmp_path / 'train'}"):
        Folder(str(tmp_path))


def test_one_image_per_class_cannot_be_split_and_the_message_says_what_would_help(tmp_path):
    with pytest.raises(UserError, match="more images per class"):
        Folder(str(write_images(tmp_path / "set", "abc", count=1)), val_fraction=0.5)


def test_a_root_that_holds_only_val_is_not_one_class_named_val(tmp_path):
    write_images(tmp_path / "val", "ab", count=10)
    with pytest.raises(UserError, match="train"):
        Folder(str(tmp_path))


@pytest.fixture
def logged(monkeypatch):
    """Collects the warnings."""
    lines = []
    monkeypatch.setattr("swin_lab.data.sources.folder.log.warning", lambda text, *values: lines.append(text % values))
    return lines


def test_files_that_are_not_read_are_counted_by_kind(both, logged):
    for i in range(2):
        Image.new("RGB", (2, 2)).save(both / "train" / "ant" / f"{i}.gif")
    (both / "train" / "bee" / "README").write_text("bees")
    (both / "train" / "cat" / "x.jpg").symlink_to("deleted.jpg")
    assert len(Folder(str(both)).train.labels) == 9
    assert logged == [f"{both / 'train'}: not read are 4 files: 2 *.gif, 1 without a suffix, 1 links to nothing"]


def test_a_complete_folder_gives_no_warning(both, logged):
    Folder(str(both))
    assert logged == []


@pytest.mark.parametrize(("link", "target"), [("ant/loop", ".."), ("ant/loop", "."), ("loop", ".")])
def test_a_link_to_a_folder_that_contains_it_is_refused(both, link, target):
    (both / "train" / link).symlink_to(target)
    with pytest.raises(UserError, match="is a link to a folder that contains it; remove the link"):
        Folder(str(both))


def test_a_link_to_a_folder_elsewhere_is_read(both, tmp_path_factory):
    elsewhere = write_images(tmp_path_factory.mktemp("elsewhere"), ["more"], count=2)
    (both / "train" / "ant" / "more").symlink_to(elsewhere / "more")
    assert len(Folder(str(both)).train.labels) == 11


@pytest.mark.parametrize("target", ["deleted", "dog"], ids=["nothing", "itself"])
def test_a_class_that_is_a_link_to_nothing_is_refused(both, target):
    (both / "train" / "dog").symlink_to(target)
    with pytest.raises(UserError, match=r"train/dog is a link to nothing, so its class would be missing"):
        Folder(str(both))


def test_file_names_that_are_not_utf_8_are_read_and_printed_with_escapes(both):
    file = os.fsencode(both / "train" / "ant") + b"/0\xff\n.png"
    Image.new("RGB", (3, 2), (77, 0, 0)).save(Path(os.fsdecode(file)))
    train = Folder(str(both)).train
    assert decoded(train, 0).getpixel((0, 0)) == (77, 0, 0)
    assert train.name(0) == str(both / "train" / "ant" / r"0\udcff\n.png")


@pytest.mark.parametrize("kind", ["pipe", "huge"])
def test_what_is_no_image_file_is_unreadable_without_waiting_or_filling_the_memory(both, kind):
    train = Folder(str(both)).train
    file = Path(train.name(0))
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    else:
        with file.open("wb") as opened:
            opened.truncate(2**40)
    with pytest.raises(OSError, match=r"it is not a file|it has 1,099,511,627,776 bytes"):
        train.encoded(0)


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("", "data.root='' must be the path of a folder"),
        ("a\nb", "must be the path of a folder, in UTF-8 and without line breaks"),
        ("caf\udce9", "must be the path of a folder, in UTF-8 and without line breaks"),
        ("x" * 300, "is not the path of a folder: File name too long"),
        ("~nobody_has_this_name/x", "is not the path of a folder"),
        ("/dev/null", "/dev/null is a file; give the folder that contains it"),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_a_root_that_is_no_folder_is_refused_with_the_reason(root, message):
    with pytest.raises(UserError, match=re.escape(message)):
        Folder(root)


def test_only_imagenet_s_images_are_recommended_to_be_sorted_by_prepare_val(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "photo.png")
    with pytest.raises(UserError, match="1 images but no class folders") as raised:
        Folder(str(tmp_path), val_only=True)
    assert "prepare-val" not in str(raised.value)
    Image.new("RGB", (2, 2)).save(tmp_path / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(UserError, match=f"swin-lab data prepare-val {tmp_path}"):
        Folder(str(tmp_path), val_only=True)


def test_a_folder_that_may_not_be_read_is_named(both, monkeypatch):
    def refused(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("os.scandir", refused)
    with pytest.raises(UserError, match=f"{both / 'train'} cannot be read: Permission denied"):
        Folder(str(both))
