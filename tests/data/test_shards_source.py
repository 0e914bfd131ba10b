"""Tar shards that are read by index: samples in several files, class files, and damaged shards."""

import tarfile

import pytest
import torch
from layouts import CLASSES, decoded, jpeg, loaded, same, samples, write_folders, write_shards, write_tar

from swin_lab.data import Shards
from swin_lab.errors import UserError


def sample_list(split):
    return [(f"{number:06d}", label, content) for number, (_, label, content) in enumerate(samples(split))]


@pytest.fixture
def root(tmp_path):
    top = tmp_path / "shards"
    write_shards(top, "train", sample_list("train"), shards=3)
    write_shards(top, "val", sample_list("val"), shards=2)
    (top / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    return top


@pytest.fixture
def shard(root):
    return root / "val-00001.tar"


def test_images_and_labels_are_those_of_the_same_files_in_folders(tmp_path, root):
    folder, shards = write_folders(tmp_path / "folders"), Shards(str(root))
    assert same(shards.train, folder.train)
    assert same(shards.val, folder.val)


def test_the_first_and_the_last_shard_are_read(root):
    assert {file.name for file in Shards(str(root)).train.files} == {f"train-0000{i}.tar" for i in range(3)}


def test_an_image_is_named_by_its_shard_and_its_key(root):
    assert Shards(str(root)).val.name(4) == f"{root / 'val-00001.tar'}@/000004"


def test_class_names_are_the_lines_of_the_list(root):
    assert Shards(str(root)).class_names == CLASSES


def test_without_a_list_classes_are_named_by_their_indices(root):
    (root / "classes.txt").unlink()
    assert Shards(str(root)).class_names == ["0", "1", "2"]


def test_a_list_may_name_classes_without_images(root):
    (root / "classes.txt").write_text("ant\nbee\ncat\ndog\n")
    assert Shards(str(root)).class_names == [*CLASSES, "dog"]


def test_an_evaluation_only_needs_no_training_shards(root):
    for file in root.glob("train*"):
        file.unlink()
    source = Shards(str(root), val_only=True)
    assert (len(source.train.labels), len(source.val.labels), source.class_names) == (0, 6, CLASSES)


@pytest.mark.parametrize("name", ["imagenet1k-validation-00.tar", "my_val_7.tar", "test-1.tar"])
def test_validation_shards_may_have_any_usual_name(root, name):
    for file in root.glob("val*"):
        file.unlink()
    write_tar(root / name, [("7.jpg", jpeg(7)), ("7.cls", b"2")])
    assert Shards(str(root)).val.labels.tolist() == [2]


def test_val_shards_take_precedence_over_test_shards(root):
    write_tar(root / "test-1.tar", [("7.jpg", jpeg(7)), ("7.cls", b"2")])
    assert len(Shards(str(root)).val.labels) == 6


def test_the_class_may_precede_or_follow_its_image(root, shard):
    write_tar(shard, [("a.jpg", jpeg(1)), ("a.cls", b"1"), ("b.cls", b"2"), ("b.jpg", jpeg(2))])
    assert Shards(str(root)).val.labels.tolist() == [0, 0, 1, 1, 2]


def test_a_class_index_may_end_in_a_new_line(root, shard):
    write_tar(shard, [("a.jpg", jpeg(1)), ("a.cls", b" 2\n")])
    assert Shards(str(root)).val.labels.tolist()[-1] == 2


def test_other_members_are_ignored(root, shard):
    write_tar(shard, [("a.jpg", jpeg(1)), ("a.cls", b"1"), ("a.json", b"{}"), ("a.txt", b"an ant")])
    assert Shards(str(root)).val.labels.tolist()[3:] == [1]


def test_samples_in_different_folders_of_a_shard_are_different(root, shard):
    write_tar(shard, [("x/a.jpg", jpeg(1)), ("x/a.cls", b"1"), ("y/a.jpg", jpeg(2)), ("y/a.cls", b"2")])
    val = Shards(str(root)).val
    assert val.labels.tolist()[3:] == [1, 2]
    assert val.name(4).endswith("@/y/a")


def test_a_shard_that_tar_wrote_of_a_whole_folder_is_read(tmp_path, root, shard):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(jpeg(1))
    (folder / "a.cls").write_text("1")
    with tarfile.open(shard, "w") as archive:
        archive.add(folder, ".")  # as by `tar -C folder -cf shard.tar .`: the first member is the folder
    assert Shards(str(root)).val.labels.tolist()[3:] == [1]


@pytest.mark.parametrize("name", [".DS_Store", "._a.jpg", "x/._a.jpg"])
def test_hidden_files_in_a_shard_are_ignored(root, shard, name):
    write_tar(shard, [(name, b"of another kind"), ("a.jpg", jpeg(1)), ("a.cls", b"1")])
    assert Shards(str(root)).val.labels.tolist()[3:] == [1]


def test_two_workers_read_the_images_that_one_process_reads(root):
    train = Shards(str(root)).train
    assert torch.equal(loaded(train, workers=2), loaded(train, workers=0))


@pytest.mark.parametrize(("split", "patterns"), [("train", r"\*train\*\.tar"), ("val", r"\*val\*\.tar or \*test\*\.tar")])
def test_missing_shards_are_named_with_the_command_that_writes_them(root, split, patterns):
    for file in root.glob(f"{split}*"):
        file.unlink()
    with pytest.raises(UserError, match=rf"has no {patterns}; shards are written by: swin-lab data pack .*--out {root}"):
        Shards(str(root))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=f"the folder {tmp_path / 'none'} does not exist"):
        Shards(str(tmp_path / "none"))


def test_a_shard_that_is_not_a_tar_is_rejected_by_name(root, shard):
    shard.write_bytes(b"no tar at all" * 100)
    with pytest.raises(UserError, match=f"{shard} cannot be read as a shard"):
        Shards(str(root))


def test_an_empty_file_is_rejected_by_name(root, shard):
    shard.write_bytes(b"")
    with pytest.raises(UserError, match=f"{shard} cannot be read as a shard"):
        Shards(str(root))


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("more", [0, 200])
def test_a_truncated_shard_is_rejected_by_name(root, shard, blocks, more):
    write_tar(shard, [("a.jpg", jpeg(1)), ("a.cls", b"1"), ("b.jpg", jpeg(2)), ("b.cls", b"1")])
    content = shard.read_bytes()
    end = content.rindex(b"1", 0, len(content)) // 512 + 1
    place = min(blocks, end) * 512 + (more if blocks < end else 0)
    shard.write_bytes(content[:place])
    with pytest.raises(UserError, match=f"{shard}"):
        Shards(str(root))


def test_a_shard_with_a_damaged_member_does_not_silently_lose_the_rest(root, shard):
    write_tar(shard, [("a.jpg", jpeg(1)), ("a.cls", b"1"), ("b.jpg", jpeg(2)), ("b.cls", b"1")])
    content = bytearray(shard.read_bytes())
    content[content.index(b"b.jpg")] ^= 0xFF
    shard.write_bytes(content)
    with pytest.raises(UserError, match=f"{shard} cannot be read as a shard"):
        Shards(str(root))


def test_an_image_without_a_class_is_named_with_the_file_it_needs(root, shard):
    write_tar(shard, [("a.jpg", jpeg(1)), ("a.cls", b"1"), ("b.jpg", jpeg(2))])
    with pytest.raises(UserError, match=f"{shard}: image b has no class index; add b.cls with a non-negative integer"):
        Shards(str(root))


def test_a_negative_class_index_is_rejected_by_the_name_of_the_image(root, shard):
    write_tar(shard, [("a.jpg", jpeg(1)), ("a.cls", b"-1")])
    with pytest.raises(UserError, match=f"{shard}: image a has no class index"):
        Shards(str(root))


def test_a_class_that_is_not_an_integer_is_rejected_by_the_name_of_the_shard(root, shard):
    write_tar(shard, [("a.jpg", jpeg(1)), ("a.cls", b"ant")])
    with pytest.raises(UserError, match=f"{shard} cannot be read as a shard: .*ant"):
        Shards(str(root))


def test_shards_without_images_are_rejected(root):
    for file in root.glob("val*"):
        write_tar(file, [("a.cls", b"1")])
    with pytest.raises(UserError, match=r"contain no images with a class index \(KEY\.jpg and KEY\.cls\)"):
        Shards(str(root))


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_class_index_beyond_the_list_of_names_is_rejected(root, split):
    write_tar(root / f"{split}-00001.tar", [("a.jpg", jpeg(1)), ("a.cls", b"3")])
    with pytest.raises(UserError, match=r"classes\.txt names 3 classes, and the shards contain class index 3"):
        Shards(str(root))


def test_a_mask_with_the_key_of_an_image_does_not_replace_it(root):
    write_tar(root / "val-00000.tar", [("7.jpg", jpeg(7)), ("7.seg.png", b"mask"), ("7.cls", b"2")])
    assert Shards(str(root)).val.labels[0] == 2
    assert decoded(Shards(str(root)).val, 0).size == (6, 4)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.jpg", jpeg(1)), ("a.cls", b"1"), ("a.jpg", jpeg(2))], "two images with the key a"),
        ([("a.jpg", jpeg(1)), ("a.cls", b"1"), ("a.png", jpeg(2))], "two images with the key a"),
        ([("a.jpg", jpeg(1)), ("a.cls", b"1"), ("a.cls", b"2")], "two classes with the key a"),
        ([("a.jpg", jpeg(1)), ("a.cls", b"1.0")], "'1.0' is not an integer"),
        ([("a.jpg", jpeg(1)), ("a.cls", b"1_0")], "'1_0' is not an integer"),
        ([("a.jpg", jpeg(1)), ("a.cls", b"1" * 10**6)], "a.cls is not a file with one class index"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_samples_that_are_ambiguous_or_have_no_integer_as_class_are_refused(root, shard, members, message):
    write_tar(shard, members)
    with pytest.raises(UserError, match=f"{shard} cannot be read as a shard: .*{message}"):
        Shards(str(root))


def test_a_link_in_a_shard_is_refused_because_its_bytes_are_elsewhere(root, shard):
    with tarfile.open(shard, "w") as archive:
        link = tarfile.TarInfo("a.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(UserError, match=r"a\.jpg is a link"):
        Shards(str(root))


def test_a_list_of_classes_may_have_a_byte_order_mark_and_other_line_ends(root):
    (root / "classes.txt").write_bytes(b"\xef\xbb\xbfant\r\nbee\r\ncat\r\n")
    assert Shards(str(root)).class_names == CLASSES


def test_only_a_line_break_separates_classes(root):
    (root / "classes.txt").write_text("ant\x0bbee\ncat\n")
    with pytest.raises(UserError, match="names 2 classes, and the shards contain class index 2"):
        Shards(str(root))


def test_a_list_of_classes_that_is_not_utf_8_is_refused(root):
    (root / "classes.txt").write_bytes(b"caf\xe9\nbee\ncat\n")
    with pytest.raises(UserError, match=r"classes\.txt cannot be read as a text of class names in UTF-8"):
        Shards(str(root))
