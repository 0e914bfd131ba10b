"""From paths to a list of images: order, names and labels for every kind of path, and errors."""

import os
import tarfile
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from PIL import Image

from swin_lab.data.names import FileNames
from swin_lab.data.pack import pack
from swin_lab.data.sources import Folder
from swin_lab.data.sources.folder import FileImages
from swin_lab.errors import UserError
from swin_lab.inference.inputs import Inputs, open_inputs


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def png(value: int) -> bytes:
    """Returns an image file."""
    buffer = BytesIO()
    Image.new("RGB", (4, 3), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write(*names: str) -> None:
    """Writes image files whose bytes differ."""
    for i, name in enumerate(names):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(png(i))


def listed(*paths: str) -> list[tuple[str, str | None]]:
    """Returns name and label of every image."""
    inputs = open_inputs(paths)
    return [(inputs.name(i), inputs.label(i)) for i in range(len(inputs))]


def names(*paths: str) -> list[str]:
    return [name for name, _ in listed(*paths)]


def test_files_keep_the_order_in_which_they_are_given():
    write("b.png", "a.png", "c.jpg")
    assert names("c.jpg", "a.png", "./b.png", "a.png") == ["c.jpg", "a.png", "b.png", "a.png"]


def test_a_folder_is_searched_at_any_depth_in_the_order_of_the_names():
    write("photos/b/2.png", "photos/b/10.png", "photos/a.png", "photos/c.JPG", "photos/b/deep/1.webp")
    assert names("photos") == ["photos/a.png", "photos/b/10.png", "photos/b/2.png", "photos/b/deep/1.webp", "photos/c.JPG"]


def test_hidden_files_and_other_kinds_of_files_are_left_out():
    write("photos/a.png", "photos/.b.png", "photos/.hidden/c.png", "photos/notes.txt")
    assert names("photos/") == ["photos/a.png"]


def test_a_folder_whose_name_ends_like_an_image_is_searched():
    write("photos/dir.jpg/a.png")
    assert names("photos") == ["photos/dir.jpg/a.png"]


def test_the_label_is_the_folder_of_the_class_as_for_training():
    write("data/val/cat/1.png", "data/val/ant/session/2.png", "data/loose.png")
    assert listed("data") == [
        ("data/loose.png", None),
        ("data/val/ant/session/2.png", "ant"),
        ("data/val/cat/1.png", "cat"),
    ]


def test_labels_equal_those_of_the_source_that_training_uses():
    write(*(f"data/{name}/{i}.png" for name in ("cat", "ant") for i in range(3)))
    source = Folder("data", val_only=True)
    assert [label for _, label in listed("data")] == [source.class_names[label] for label in source.val.labels]


def test_a_glob_matches_files_folders_and_archives_in_the_order_of_their_names():
    write("x/b/1.png", "x/a.png", "x/c.txt", "y/2.png")
    assert names("x/*") == ["x/a.png", "x/b/1.png"]
    assert names("x/**", "y/?.png") == ["x/a.png", "x/b/1.png", "y/2.png"]


def test_a_file_whose_name_looks_like_a_glob_is_itself():
    write("a[1].png", "a1.png")
    assert names("a[1].png") == ["a[1].png"]


def test_images_of_a_zip_file_are_read_with_the_labels_of_their_folders():
    with ZipFile("z.zip", "w") as archive:
        for i, name in enumerate(("b/2.png", "b/1.png", "__MACOSX/._1.png", "notes.txt", "top.png")):
            archive.writestr(name, png(i))
    assert listed("z.zip") == [("z.zip@/b/2.png", "b"), ("z.zip@/b/1.png", "b"), ("z.zip@/top.png", None)]
    assert [open_inputs(["z.zip"]).encoded(i) for i in range(3)] == [png(0), png(1), png(4)]


def test_packed_shards_have_the_names_of_their_classes():
    write(*(f"data/{name}/{i}.png" for name in ("cat", "ant") for i in range(2)))
    source = Folder("data", val_only=True)
    pack(source.val, source.class_names, Path("shards"), "val", shorter_side=None)
    expected = [("ant", 0), ("ant", 1), ("cat", 2), ("cat", 3)]
    assert listed("shards") == [(f"shards/val-000000.tar@/{i:09}.jpg", label) for label, i in expected]


def test_a_tar_file_needs_no_classes_and_may_contain_links():
    with tarfile.open("t.tar", "w") as archive:
        for name in ("b/1.png", "b/1.jpg", "readme"):
            info = tarfile.TarInfo(name)
            info.size = len(png(7))
            archive.addfile(info, BytesIO(png(7)))
        link = tarfile.TarInfo("b/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "1.png"
        archive.addfile(link)
    assert listed("t.tar") == [("t.tar@/b/1.png", "b"), ("t.tar@/b/1.jpg", "b"), ("t.tar@/b/link.png", "b")]
    assert [open_inputs(["t.tar"]).encoded(i) for i in range(3)] == [png(7), png(7), b""]


@pytest.mark.parametrize("described", [True, False])
def test_rows_of_a_parquet_file_have_the_names_of_their_classes(described: bool):
    images = pa.array([{"bytes": png(i), "path": None} for i in range(4)])
    labels = pa.array([1, 0, -1, None])
    features = (
        b'{"info": {"features": {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["ant", "bee"]}}}}'
    )
    table = pa.table({"image": images, "label": labels})
    pq.write_table(table.replace_schema_metadata({"huggingface": features} if described else {}), "p.parquet")
    expected = ["bee", "ant", None, None] if described else ["1", "0", "-1", None]
    assert listed("p.parquet") == [(f"p.parquet row {i}", label) for i, label in enumerate(expected)]
    assert open_inputs(["p.parquet"]).encoded(2) == png(2)


def test_a_parquet_file_of_images_alone_has_no_labels():
    pq.write_table(pa.table({"id": [1, 2], "jpeg": [png(0), png(1)]}), "p.parquet")
    assert listed("p.parquet") == [("p.parquet row 0", None), ("p.parquet row 1", None)]


def test_paths_of_several_kinds_follow_one_another():
    write("one.png", "photos/cat/1.png", "two.png")
    with ZipFile("z.zip", "w") as archive:
        archive.writestr("dog/1.png", png(9))
    found = listed("one.png", "photos", "z.zip", "two.png")
    assert found == [("one.png", None), ("photos/cat/1.png", "cat"), ("z.zip@/dog/1.png", "dog"), ("two.png", None)]


def test_a_name_that_is_not_unicode_is_escaped():
    write("photos/a.png")
    os.rename("photos/a.png", b"photos/\xff.png")
    assert names("photos") == [r"photos/\udcff.png"]
    assert open_inputs(["photos"]).encoded(0) == png(0)


def test_a_data_set_of_the_hub_is_read_from_its_files(monkeypatch: pytest.MonkeyPatch):
    pq.write_table(pa.table({"image": [png(0)]}), "test-0.parquet")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *given, **options: str(Path.cwd()))
    assert len(open_inputs(["hf://datasets/OWNER/NAME"])) == 1


def test_the_fingerprint_depends_on_names_order_and_labels():
    write("x/a/1.png", "x/a/2.png", "y/a/1.png", "x/b/1.png")
    prints = [open_inputs(paths).fingerprint() for paths in (["x"], ["x/a"], ["x/a/1.png"], ["y", "x"], ["x", "y"])]
    assert len(set(prints)) == len(prints)
    assert open_inputs(["x/a/*.png"]).fingerprint() == prints[1]


def damaged_tar() -> str:
    Path("bad.tar").write_bytes(b"not a tar file" * 100)
    return "bad.tar"


def damaged_zip() -> str:
    Path("bad.zip").write_bytes(b"PK\x03\x04")
    return "bad.zip"


def parquet_without_images() -> str:
    pq.write_table(pa.table({"path": ["a"], "size": [3]}), "none.parquet")
    return "none.parquet"


def folder_of_folders() -> str:
    Path("outer/inner/innermost").mkdir(parents=True)
    return "outer"


def link_to_itself() -> str:
    write("loop/a.png")
    os.symlink("../loop", "loop/again")
    return "loop"


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: "nowhere.png", "does not exist"),
        (lambda: "n" * 5000, "does not exist"),
        (lambda: "*.png", "no image, folder or archive matches"),
        (lambda: "a\0b", "is not a path"),
        (damaged_tar, "cannot be read as a shard"),
        (damaged_zip, "cannot be read as a zip file"),
        (parquet_without_images, "has no column of images"),
        (folder_of_folders, "contains no image files"),
        (link_to_itself, "link to a folder that contains it"),
    ],
)
def test_a_path_without_images_is_refused(make, part: str):
    with pytest.raises(UserError, match=part):
        open_inputs([make()])


def test_an_image_takes_30_bytes_of_memory():
    """Names have 13 bytes here; as strings of Python they would take 60."""
    count = 100_000
    files = FileImages(Path("x"), FileNames(f"{i:09}.jpg" for i in range(count)), np.full(count, -1, dtype=np.int32))
    inputs = Inputs([files], [])
    assert (files.files.array.nbytes + inputs.labels.nbytes) / count < 30
    assert inputs.name(99_999) == "x/000099999.jpg"


@pytest.mark.skipif(not (ROOT.parent / "shared/data/cifar10").is_dir(), reason="../shared/data has no CIFAR-10 here")
def test_cifar10_as_exported_by_hugging_face_has_its_labels():
    inputs = open_inputs([str(ROOT.parent / "shared/data/cifar10/test-00000-of-00001.parquet")])
    assert len(inputs) == 10_000
    assert {inputs.label(i) for i in range(200)} >= {"cat", "ship", "airplane", "frog"}
