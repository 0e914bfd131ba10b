"""`swin-lab knn`, `probe` and `duplicates` on files of vectors: what they print, and what they refuse."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Command
from PIL import Image
from vector_files import clusters, write_images, write_vectors

from swin_lab.inference import accuracy


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Vectors of 60 training and 12 validation images of three classes; the last validation image looks like another class."""
    train = write_vectors(tmp_path / "train.parquet", *clusters(60))
    vectors, labels = clusters(12, seed=1)
    return train, write_vectors(tmp_path / "val.parquet", vectors, [*labels[:-1], "class 0"])


@pytest.mark.parametrize("index", ["exact", "faiss"])
def test_knn_prints_a_row_for_each_k_in_order(cli: Command, files: tuple[Path, Path], index: str) -> None:
    if index == "faiss":
        pytest.importorskip("faiss")
    outcome = cli("knn", *files, "-k", "3,1,20", "--index", index)
    assert outcome.code == 0, outcome.err
    rows = [line.split() for line in outcome.out.splitlines() if "-NN" in line]
    assert [row[0] for row in rows] == ["1-NN", "3-NN", "20-NN"]
    assert all(row[1:] == ["91.67%", "64.61%", "to", "98.51%", "11", "of", "12"] for row in rows)


def test_knn_of_one_file_leaves_each_image_out(cli: Command, tmp_path: Path) -> None:
    """Of two pairs of classes, each image has the nearest neighbour in the other class, so that none is right."""
    vectors = np.array([[1, 0], [1, 0.01], [0, 1], [0.01, 1]], np.float32)
    file = write_vectors(tmp_path / "a.parquet", vectors, ["a", "b", "a", "b"])
    outcome = cli("knn", file, "-k", "1", "--json")
    found = json.loads(outcome.out)
    assert (found["images"], found["leave_one_out"], found["results"]["1-NN"]["correct"]) == (4, True, 0)


def test_metrics_differ_where_lengths_do(cli: Command, tmp_path: Path) -> None:
    train = write_vectors(tmp_path / "t.parquet", np.array([[10, 0], [1, 1]], np.float32), ["far", "near"])
    val = write_vectors(tmp_path / "v.parquet", np.array([[1, 0.2]], np.float32), ["far"])
    by_metric = [json.loads(cli("knn", train, val, "-k", "1", "--metric", m, "--json").out) for m in ("cosine", "euclidean")]
    assert [found["results"]["1-NN"]["correct"] for found in by_metric] == [1, 0]


def test_a_probe_separates_classes_and_repeats_itself(cli: Command, files: tuple[Path, Path]) -> None:
    first, second = cli("probe", *files), cli("probe", *files)
    assert first.code == 0, first.err
    assert "top-1 91.67% 64.61% to 98.51% 11 of 12" in " ".join(first.out.split())
    assert "top-5" not in first.out  # There are three classes.
    assert (first.out, first.err) == (second.out, second.err)


def test_a_probe_of_many_classes_has_top_5(cli: Command, tmp_path: Path) -> None:
    files = [
        write_vectors(tmp_path / f"{seed}.parquet", *clusters(64, size=8, classes=8, seed=seed, spread=0.02)) for seed in (0, 1)
    ]
    found = json.loads(cli("probe", *files, "--json").out)
    assert found["results"]["top-1"]["correct"] == found["results"]["top-5"]["correct"] == 64
    assert found["C"] in accuracy.STRENGTHS


def test_a_probe_never_sees_labels_of_validation_images_before_they_are_counted(cli: Command, tmp_path: Path) -> None:
    """With shuffled labels of the validation images, the same C is chosen by the same numbers."""
    train = write_vectors(tmp_path / "t.parquet", *clusters(60, spread=1.0))
    vectors, labels = clusters(30, seed=1)
    chosen = []
    for name, given in (("a", labels), ("b", labels[1:] + labels[:1])):
        chosen.append(cli("probe", train, write_vectors(tmp_path / f"{name}.parquet", vectors, given)).err)
    assert chosen[0] == chosen[1]


def test_images_of_a_class_that_training_lacks_count_as_wrong_and_are_mentioned(cli: Command, tmp_path: Path) -> None:
    train = write_vectors(tmp_path / "t.parquet", *clusters(30))
    vectors, labels = clusters(6)
    outcome = cli("knn", train, write_vectors(tmp_path / "v.parquet", vectors, [*labels[:5], "zebra"]), "-k", "1")
    assert "5 of 6" in outcome.out
    assert "lacks count as wrong: 1\n" in outcome.err


def test_half_precision_and_maps_are_vectors_too(cli: Command, tmp_path: Path) -> None:
    plan = {"pool": "map", "shape": [2, 3, 1]}
    files = []
    for seed in (0, 1):
        vectors, labels = clusters(30, seed=seed)
        files.append(write_vectors(tmp_path / f"{seed}.parquet", vectors.astype(np.float16), labels, plan=plan))
    assert "30 of 30" in cli("knn", *files, "-k", "1").out


@pytest.mark.parametrize("command", ["knn", "probe", "duplicates"])
@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"checkpoint": "d" * 64}, "their checkpoint differs (cccccccccccc and dddddddddddd)"),
        ({"stage": 1}, "their stage differs (null and 1)"),
        ({"pool": "map", "shape": [1, 1, 6]}, "their pool differs (mean and map)"),
        ({"flip": True}, "their flip differs (false and true)"),
        ({"preprocessing": {"img_size": [32, 32]}}, "their preprocessing differs"),
    ],
)
def test_files_of_other_networks_are_refused(
    cli: Command, files: tuple[Path, Path], tmp_path: Path, command: str, plan: dict, message: str
) -> None:
    other = write_vectors(tmp_path / "other.parquet", *clusters(12), plan=plan)
    outcome = cli(command, files[0], other)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err


def test_other_dimensions_are_refused(cli: Command, files: tuple[Path, Path], tmp_path: Path) -> None:
    outcome = cli("knn", files[0], write_vectors(tmp_path / "other.parquet", *clusters(12, size=7)))
    assert outcome.code == 2
    assert "their shape differs ([6] and [7])" in outcome.err


def test_what_is_no_file_of_vectors_is_refused_in_one_line(cli: Command, tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["a"]}), tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("text")
    write_vectors(tmp_path / "size.parquet", *clusters(9), plan={"shape": [5]})
    write_vectors(tmp_path / "type.parquet", *clusters(9), plan={"stage": "last"})
    write_vectors(tmp_path / "empty.parquet", np.empty((0, 3), np.float32))
    write_vectors(tmp_path / "nan.parquet", np.full((9, 3), np.nan, np.float32), ["a"] * 9)
    messages = {
        "other": "is not a file of vectors that swin-lab embed has written",
        "text": "is not a file of vectors that swin-lab embed has written",
        "type": "is not a file of vectors that swin-lab embed has written",
        "size": "is damaged: its columns are not path, label and vector of 5 values",
        "empty": "contains no vectors",
        "nan": "is damaged: a vector is missing, or contains NaN or infinity",
        "nowhere": "is not a file; give one that swin-lab embed has written",
    }
    for name, message in messages.items():
        outcome = cli("knn", f"{name}.parquet", "-k", "1")
        assert (outcome.code, outcome.err) == (2, f"error: {name}.parquet {message}\n")


def test_unknown_labels_are_refused(cli: Command, files: tuple[Path, Path], tmp_path: Path) -> None:
    vectors, labels = clusters(12)
    some = write_vectors(tmp_path / "some.parquet", vectors, [*labels[:-2], None, None])
    outcome = cli("probe", files[0], some)
    assert outcome.code == 2
    assert "some.parquet: 2 of 12 images have no label, such as some/010.png" in outcome.err
    other = write_vectors(tmp_path / "other.parquet", vectors, ["dog"] * 12)
    outcome = cli("knn", files[0], other)
    assert (outcome.code, "no class of" in outcome.err) == (2, True)


@pytest.mark.parametrize("k", ["0", "1,,2", "-1", "1.5", "abc", "1001", "60", "٣"])
def test_a_k_without_sense_is_refused(cli: Command, files: tuple[Path, Path], k: str) -> None:
    outcome = cli("knn", files[0], "-k", k)
    assert (outcome.code, outcome.out) == (2, "")
    assert f"-k {k}" in outcome.err


def test_a_probe_needs_two_images_of_a_class(cli: Command, tmp_path: Path) -> None:
    vectors, _ = clusters(3)
    file = write_vectors(tmp_path / "a.parquet", vectors, ["a", "b", "c"])
    outcome = cli("probe", file, file)
    assert (outcome.code, "needs two classes and a class of two training images" in outcome.err) == (2, True)


def test_an_index_without_its_package_is_refused(
    cli: Command, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swin_lab.inference.neighbours.find_spec", lambda name: None)
    outcome = cli("knn", *files, "--index", "faiss")
    assert (outcome.code, "pip install 'swin-lab[faiss]'" in outcome.err) == (2, True)


@pytest.fixture
def with_copies(tmp_path: Path) -> tuple[Path, Path]:
    """Vectors of eight training and four validation images, which exist; validation image i equals training image 2 i."""
    train, _ = clusters(8, size=8, classes=8, spread=0.3)
    paths = write_images(tmp_path / "images", 12)
    first = write_vectors(tmp_path / "train.parquet", train, ["a"] * 8, paths[:8])
    return first, write_vectors(tmp_path / "val.parquet", 2 * train[::2], ["a", "a", "b", "b"], paths[8:])


def test_near_duplicates_are_listed_and_written(cli: Command, with_copies: tuple[Path, Path], tmp_path: Path) -> None:
    outcome = cli("duplicates", *with_copies, "-o", "pairs.csv", "--sheet", "pairs.png")
    assert outcome.code == 0, outcome.err
    with open("pairs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted((Path(row["path"]).stem, Path(row["other_path"]).stem) for row in rows) == [
        ("00", "08"),
        ("02", "09"),
        ("04", "10"),
        ("06", "11"),
    ]
    assert {row["similarity"] for row in rows} <= {"1.000000", "0.999999"}
    assert "4 with a similarity of at least 0.95" in outcome.out
    with Image.open("pairs.png") as sheet:
        assert sheet.width > 4 * 2 * 128
    again = cli("duplicates", *with_copies, "-o", "pairs.csv")
    assert (again.code, "exists already; nothing was written" in again.err) == (2, True)


def test_a_file_without_near_duplicates_says_so(cli: Command, with_copies: tuple[Path, Path]) -> None:
    outcome = cli("duplicates", with_copies[0], "--sheet", "pairs.png")
    assert (outcome.code, outcome.out) == (0, "pairs      none have a similarity of at least 0.95\n")
    assert not Path("pairs.png").exists()


def test_many_pairs_are_not_all_printed_and_the_better_vectors_are_named(cli: Command, tmp_path: Path) -> None:
    outcome = cli("duplicates", write_vectors(tmp_path / "a.parquet", np.ones((10, 2), np.float32)), "-o", "pairs.csv")
    assert "45 with a similarity of at least 0.95, of which the first 30 are shown" in outcome.out
    assert len(Path("pairs.csv").read_text().splitlines()) == 46
    assert "--stage 0 --pool map" in outcome.err
