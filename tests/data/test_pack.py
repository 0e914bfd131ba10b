"""Writing WebDataset shards: their contents depend on the images only, and nothing is overwritten."""

import os
import tarfile
from io import BytesIO

import numpy as np
import pytest
from layouts import decoded
from PIL import Image

from swin_lab.data.images import ArrayImages
from swin_lab.data.pack import pack
from swin_lab.errors import UserError

NAMES = ["ant", "bee", "cät"]


class SizedImages:
    """Images of given (width, height); a size of None is an image that cannot be read."""

    def __init__(self, sizes):
        self.sizes = sizes
        self.labels = [0] * len(sizes)

    def encoded(self, index):
        if self.sizes[index] is None:
            raise OSError("image file is truncated")
        return np.asarray(Image.new("RGB", self.sizes[index], "red"))

    def name(self, index):
        return f"tree/{index}.jpg"


class CommentedImages(SizedImages):
    """GIF images with a comment that is too long for a JPEG."""

    def encoded(self, index):
        buffer = BytesIO()
        Image.new("RGB", self.sizes[index], "red").save(buffer, "GIF", comment=b"x" * 70_000)
        return buffer.getvalue()


def noise(count):
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return ArrayImages(images, np.arange(count) % 3, "noise")


def shades(count):
    """Returns images whose grey value is 10 * i, which JPEG preserves, with class i % 3."""
    images = np.repeat(np.arange(count, dtype=np.uint8) * 10, 8 * 8 * 3).reshape(count, 8, 8, 3)
    return ArrayImages(images, np.arange(count) % 3, "shades")


def members(shard):
    """Returns the contents by member name, in the order of the file."""
    with tarfile.open(shard) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def jpegs(shard):
    return [Image.open(BytesIO(content)) for name, content in members(shard).items() if name.endswith(".jpg")]


def files(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_shard_contains_each_image_and_its_class_under_one_key(tmp_path):
    pack(shades(2), NAMES, tmp_path, "val", shorter_side=None)
    expected = ["000000000.jpg", "000000000.cls", "000000001.jpg", "000000001.cls"]
    assert list(members(tmp_path / "val-000000.tar")) == expected


def test_classes_are_written_as_their_index(tmp_path):
    pack(shades(5), NAMES, tmp_path, "val", shorter_side=None)
    contents = members(tmp_path / "val-000000.tar")
    assert [contents[f"{key:09d}.cls"] for key in range(5)] == [b"0", b"1", b"2", b"0", b"1"]


def test_images_keep_the_order_of_the_source(tmp_path):
    pack(shades(6), NAMES, tmp_path, "val", shorter_side=None)
    assert [image.getpixel((4, 4))[0] for image in jpegs(tmp_path / "val-000000.tar")] == [0, 10, 20, 30, 40, 50]


def test_the_last_shard_has_the_rest(tmp_path):
    assert pack(shades(5), NAMES, tmp_path, "train", shorter_side=None, per_shard=2) == 3
    counts = {shard.name: len(jpegs(shard)) for shard in sorted(tmp_path.glob("*.tar"))}
    assert counts == {"train-000000.tar": 2, "train-000001.tar": 2, "train-000002.tar": 1}


def test_images_that_fill_the_shards_leave_no_empty_one(tmp_path):
    assert pack(shades(4), NAMES, tmp_path, "train", shorter_side=None, per_shard=2) == 2
    assert len(list(tmp_path.glob("*.tar"))) == 2


def test_keys_continue_from_shard_to_shard(tmp_path):
    pack(shades(3), NAMES, tmp_path, "val", shorter_side=None, per_shard=2)
    assert list(members(tmp_path / "val-000001.tar")) == ["000000002.jpg", "000000002.cls"]


def test_larger_images_are_scaled_to_the_shorter_side_in_proportion(tmp_path):
    pack(SizedImages([(16, 32), (24, 16), (8, 8), (4, 40)]), NAMES, tmp_path, "val", shorter_side=8)
    assert [image.size for image in jpegs(tmp_path / "val-000000.tar")] == [(8, 16), (12, 8), (8, 8), (4, 40)]


def test_without_a_shorter_side_images_keep_their_size(tmp_path):
    pack(SizedImages([(16, 32), (8, 8)]), NAMES, tmp_path, "val", shorter_side=None)
    assert [image.size for image in jpegs(tmp_path / "val-000000.tar")] == [(16, 32), (8, 8)]


def test_scaling_is_bicubic(tmp_path):
    images = ArrayImages(noise(1).images.repeat(2, axis=1).repeat(2, axis=2), np.zeros(1, dtype=int), "noise")
    pack(images, NAMES, tmp_path, "val", shorter_side=8, quality=100)
    buffer = BytesIO()
    decoded(images, 0).resize((8, 8), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=100)
    assert members(tmp_path / "val-000000.tar")["000000000.jpg"] == buffer.getvalue()


def test_the_quality_is_that_of_the_jpegs(tmp_path):
    pack(noise(1), NAMES, tmp_path, "val", shorter_side=None, quality=30)
    buffer = BytesIO()
    decoded(noise(1), 0).save(buffer, "JPEG", quality=30)
    assert members(tmp_path / "val-000000.tar")["000000000.jpg"] == buffer.getvalue()


def test_comments_of_the_source_are_left_out(tmp_path):
    pack(CommentedImages([(8, 8)]), NAMES, tmp_path, "val", shorter_side=None)
    assert "comment" not in jpegs(tmp_path / "val-000000.tar")[0].info


def test_classes_are_listed_by_name(tmp_path):
    pack(shades(3), NAMES, tmp_path / "new" / "folder", "val", shorter_side=None)
    assert (tmp_path / "new" / "folder" / "classes.txt").read_bytes() == "ant\nbee\ncät\n".encode()


def test_two_workers_write_the_bytes_of_one(tmp_path):
    images = noise(100)  # more than both workers process at a time
    pack(images, NAMES, tmp_path / "one", "val", shorter_side=4, per_shard=30)
    pack(images, NAMES, tmp_path / "two", "val", shorter_side=4, per_shard=30, workers=2)
    assert len(files(tmp_path / "one")) == 5
    assert files(tmp_path / "two") == files(tmp_path / "one")


def test_members_name_no_time_and_no_user(tmp_path):
    pack(shades(1), NAMES, tmp_path, "val", shorter_side=None)
    with tarfile.open(tmp_path / "val-000000.tar") as archive:
        metadata = {(member.mtime, member.uid, member.gid, member.uname, member.gname) for member in archive}
    assert metadata == {(0, 0, 0, "", "")}


def test_a_shard_gets_its_name_when_it_is_complete(tmp_path):
    seen = []

    class Watched(SizedImages):
        def encoded(self, index):
            seen.append({file.name for file in tmp_path.iterdir()} - {"classes.txt"})
            return super().encoded(index)

    pack(Watched([(8, 8)] * 4), NAMES, tmp_path, "val", shorter_side=None, per_shard=2)
    assert seen[1] == {".val-000000.tar.partial"}
    assert seen[3] == {"val-000000.tar", ".val-000001.tar.partial"}


def test_shards_of_the_same_split_are_not_overwritten(tmp_path):
    pack(shades(2), NAMES, tmp_path, "val", shorter_side=None)
    before = files(tmp_path)
    with pytest.raises(UserError, match=r"already contains val shards, such as val-000000\.tar"):
        pack(noise(6), NAMES, tmp_path, "val", shorter_side=None, per_shard=2)
    assert files(tmp_path) == before


def test_a_later_shard_of_the_same_split_stops_before_anything_is_written(tmp_path):
    (tmp_path / "val-000002.tar").write_bytes(b"old")
    with pytest.raises(UserError, match=r"such as val-000002\.tar"):
        pack(shades(4), NAMES, tmp_path, "val", shorter_side=None, per_shard=1)
    assert files(tmp_path) == {"val-000002.tar": b"old"}


@pytest.mark.parametrize("first", ["train", "val-small"])
def test_another_split_of_the_same_classes_can_be_added_to_the_same_folder(tmp_path, first):
    pack(shades(3), NAMES, tmp_path, first, shorter_side=None)
    pack(shades(3), NAMES, tmp_path, "val", shorter_side=None)
    assert set(files(tmp_path)) == {"classes.txt", f"{first}-000000.tar", "val-000000.tar"}


def test_a_folder_of_other_classes_is_not_changed(tmp_path):
    (tmp_path / "classes.txt").write_text("dog\nelk\n")
    with pytest.raises(UserError, match=r"classes\.txt lists other classes"):
        pack(shades(3), NAMES, tmp_path, "val", shorter_side=None)
    assert files(tmp_path) == {"classes.txt": b"dog\nelk\n"}


@pytest.mark.parametrize("workers", [1, 2])
def test_an_unreadable_image_is_named(tmp_path, workers):
    images = SizedImages([(8, 8), (8, 8), None])
    with pytest.raises(UserError, match=r"tree/2\.jpg cannot be packed: image file is truncated\nFix or remove it"):
        pack(images, NAMES, tmp_path, "val", shorter_side=None, workers=workers)


def test_an_unreadable_image_leaves_only_complete_shards(tmp_path):
    with pytest.raises(UserError):
        pack(SizedImages([(8, 8), (8, 8), None]), NAMES, tmp_path, "val", shorter_side=None, per_shard=2)
    assert set(files(tmp_path)) == {"classes.txt", "val-000000.tar"}
    assert len(jpegs(tmp_path / "val-000000.tar")) == 2


def test_a_terminal_shows_the_progress(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    pack(shades(3), NAMES, tmp_path, "val", shorter_side=None)
    output = capsys.readouterr().out
    assert "packing val" in output
    assert "100%" in output


def test_a_log_file_shows_no_progress(tmp_path, capsys):
    pack(shades(3), NAMES, tmp_path, "val", shorter_side=None)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"shorter_side": 0}, "shorter_side=0"),
        ({"per_shard": 0}, "per_shard=0"),
        ({"workers": 0}, "workers=0"),
        ({"quality": 101}, "quality=101"),
        ({"quality": 0}, "quality=0"),
        ({"split": "a/b"}, "split='a/b'"),
        ({"split": ""}, "split=''"),
        ({"class_names": ["ant", "bee"]}, "2 class names for labels 0 to 2"),
        ({"images": SizedImages([])}, "no images to pack as val"),
    ],
)
def test_an_invalid_argument_is_named_and_nothing_is_written(tmp_path, changed, message):
    arguments = {"images": shades(3), "class_names": NAMES, "out": tmp_path / "out", "split": "val", "shorter_side": None}
    with pytest.raises(UserError, match=message):
        pack(**arguments | changed)
    assert not os.path.lexists(tmp_path / "out")


def test_a_file_in_place_of_the_folder_is_rejected(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match=f"{tmp_path / 'out'} is a file"):
        pack(shades(3), NAMES, tmp_path / "out", "val", shorter_side=None)
