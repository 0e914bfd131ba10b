"""`swin-lab search` and `map` on what `swin-lab embed` has written."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Command, Outcome
from PIL import Image
from small_classifier import classifier, write_photos
from vector_files import clusters, write_images, write_vectors

import swin_lab


@pytest.fixture
def embedded(cli: Command, tmp_path: Path) -> Path:
    """The vectors of 29 photographs, and tiny.safetensors, which has computed them."""
    swin_lab.save_weights(classifier(), tmp_path / "tiny.safetensors")
    write_photos(tmp_path / "photos")
    outcome = cli("embed", "tiny.safetensors", "photos", "-o", "vectors.parquet", "--device", "cpu", "--workers", "0")
    assert outcome.code == 1, outcome.err  # One image cannot be read.
    return tmp_path / "vectors.parquet"


def found(outcome: Outcome) -> list[tuple[str, float]]:
    """Returns the images and similarities of a printed table."""
    rows = [line.split() for line in outcome.out.splitlines()[1:] if ".png" in line and "written" not in line]
    return [(next(word for word in row[-3::-1] if ".png" in word), float(row[-1])) for row in rows]


def test_an_image_of_the_set_finds_itself_first_and_the_rest_in_order(cli: Command, embedded: Path) -> None:
    outcome = cli("search", embedded, "photos/cat/05.png", "--checkpoint", "tiny.safetensors", "--top", "4", "--device", "cpu")
    assert outcome.code == 0, outcome.err
    images = found(outcome)
    assert (len(images), images[0]) == (4, ("photos/cat/05.png", 1.0))
    assert [similarity for _, similarity in images] == sorted((s for _, s in images), reverse=True)


def test_a_row_finds_the_same_without_itself_and_without_a_checkpoint(cli: Command, embedded: Path) -> None:
    by_image = found(cli("search", embedded, "photos/ant/00.png", "--checkpoint", "tiny.safetensors", "--top", "4"))
    outcome = cli("search", embedded, "--row", "0", "--top", "3", "-o", "sheet.png")
    assert outcome.code == 0, outcome.err
    assert found(outcome) == by_image[1:]
    with Image.open("sheet.png") as sheet:
        assert sheet.format == "PNG"
        assert sheet.width > 4 * 128


def test_weights_that_have_not_computed_the_file_are_refused(cli: Command, embedded: Path, tmp_path: Path) -> None:
    network = classifier()
    network.head.bias.data += 1
    swin_lab.save_weights(network, tmp_path / "other.safetensors")
    outcome = cli("search", embedded, "photos/cat/05.png", "--checkpoint", "other.safetensors", "-o", "sheet.png")
    assert (outcome.code, outcome.out) == (2, "")
    assert "--checkpoint: its weights" in outcome.err
    assert not Path("sheet.png").exists()


def test_a_query_that_cannot_be_read_is_named_and_the_others_are_searched(cli: Command, embedded: Path) -> None:
    damaged = "photos/bee/13.png"
    options = ["--checkpoint", "tiny.safetensors", "--top", "1"]
    outcome = cli("search", embedded, damaged, "photos/cat/05.png", *options)
    assert outcome.code == 1
    assert f"unreadable image {damaged}" in outcome.err
    assert found(outcome) == [("photos/cat/05.png", 1.0)]
    assert cli("search", embedded, damaged, *options).err.endswith("error: none of the images can be read\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either images or --row N"),
        (["photos", "--row", "0"], "give either images or --row N"),
        (["photos"], "--checkpoint is missing"),
        (["--row", "29"], "--row 29: "),
        (["--row", "0", "-o", "sheet.jpg"], "choose the ending .png"),
        (["--row", "0", "-o", "nowhere/sheet.png"], "nowhere is not a folder"),
        ([*["--row", "0"] * 101, "-o", "sheet.png"], "a sheet has 100 rows at most, not 101"),
    ],
)
def test_searches_without_sense_are_refused(cli: Command, embedded: Path, arguments: list[str], message: str) -> None:
    outcome = cli("search", embedded, *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err


def test_images_that_have_gone_are_named_and_their_tiles_are_empty(cli: Command, embedded: Path) -> None:
    for file in Path("photos/ant").glob("*.png"):
        file.unlink()
    outcome = cli("search", embedded, "--row", "0", "--top", "28", "-o", "sheet.png")
    assert outcome.code == 0
    assert "missing image photos/ant/00.png: No such file or directory" in outcome.err
    assert "and 5 more" in outcome.err
    assert "Relative paths start in the folder where swin-lab embed was called" in outcome.err


def test_images_inside_archives_are_read_again(cli: Command, embedded: Path) -> None:
    shutil.make_archive("photos", "zip", "photos")
    shutil.make_archive("photos", "tar", "photos")
    encoded = [file.read_bytes() for file in sorted(Path("photos").rglob("*.png"))]
    pq.write_table(pa.table({"image": [{"bytes": image, "path": None} for image in encoded]}), "photos.parquet")
    shutil.rmtree("photos")
    for archive in ("photos.zip", "photos.tar", "photos.parquet"):
        cli("embed", "tiny.safetensors", archive, "-o", "out.parquet", "--device", "cpu", "--workers", "0", "--overwrite")
        outcome = cli("map", "out.parquet", "-o", "map.html", "--overwrite")
        assert outcome.code == 0, outcome.err
        assert "29 images, 29 of them as thumbnails" in outcome.out


def page_data(file: str) -> dict:
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', Path(file).read_text(), re.S)
    assert text is not None
    return json.loads(text[1])


@pytest.fixture
def set_of_40(tmp_path: Path) -> Path:
    """Vectors of 40 images in three classes, of which the first 20 exist."""
    vectors, labels = clusters(40)
    paths = write_images(tmp_path / "images", 20) + [f"gone/{i}.png" for i in range(20)]
    return write_vectors(tmp_path / "vectors.parquet", vectors, labels, paths)


def test_a_map_has_every_image_near_those_of_its_class_and_repeats_itself(cli: Command, set_of_40: Path) -> None:
    outcome = cli("map", set_of_40, "-o", "map.html")
    assert outcome.code == 0, outcome.err
    assert "40 images, 20 of them as thumbnails" in outcome.out
    assert "missing image and 15 more" in outcome.err
    data = page_data("map.html")
    points, labels = np.array([data["x"], data["y"]]).T, np.array(data["label"])
    centres = np.array([points[labels == label].mean(axis=0) for label in range(3)])
    assert (np.linalg.norm(points[:, None] - centres, axis=2).argmin(axis=1) == labels).all()
    assert [image is not None for image in data["image"]] == [True] * 20 + [False] * 20
    before = Path("map.html").read_bytes()
    assert cli("map", set_of_40, "-o", "map.html").code == 2
    assert cli("map", set_of_40, "-o", "map.html", "--overwrite").code == 0
    assert Path("map.html").read_bytes() == before


@pytest.mark.slow  # UMAP is compiled when it is imported.
def test_a_map_by_umap_repeats_itself(cli: Command, set_of_40: Path) -> None:
    pytest.importorskip("umap")
    pages = []
    for name in ("a.html", "b.html"):
        outcome = cli("map", set_of_40, "-o", name, "--method", "umap", "--thumbnails", "0")
        assert outcome.code == 0, outcome.err
        pages.append(Path(name).read_bytes())
    assert pages[0] == pages[1]
    assert "placed by UMAP" in page_data("a.html")["note"]


def test_a_map_of_a_large_set_has_a_part_of_it(cli: Command, set_of_40: Path) -> None:
    outcome = cli("map", set_of_40, "-o", "map.html", "--points", "10", "--thumbnails", "3", "--seed", "5")
    assert "10 of 40 images" in outcome.out
    data = page_data("map.html")
    assert len(data["path"]) == len(set(data["path"])) == 10
    assert sum(image is not None for image in data["image"]) <= 3


def test_maps_without_sense_or_without_a_package_are_refused(
    cli: Command, set_of_40: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swin_lab.inference.projection.find_spec", lambda name: None)
    small = write_vectors(tmp_path / "small.parquet", *clusters(4))
    for arguments, message in (
        ([set_of_40, "-o", "map.png"], "choose the ending .html"),
        ([set_of_40, "-o", "map.html", "--method", "umap"], "pip install 'swin-lab[map]'"),
        ([small, "-o", "map.html"], "a map needs 5 images at least, not 4"),
    ):
        outcome = cli("map", *arguments)
        assert (outcome.code, message in outcome.err) == (2, True), outcome.err
    assert not Path("map.html").exists()
