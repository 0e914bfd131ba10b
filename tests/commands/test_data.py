"""`swin-lab data check`, `pack` and `prepare-val`: output and refused input."""

from pathlib import Path

import pytest
from PIL import Image

from swin_lab.commands.app import main


def write_images(root: Path, damaged: bool = False) -> Path:
    """Writes two classes of small images; one of them is unreadable if `damaged`."""
    for split, count in (("train", 3), ("val", 1)):
        for name in ("ant", "bee"):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (20, 30), (i * 50, 0, 0)).save(root / split / name / f"{i}.png")
    if damaged:
        (root / "train" / "ant" / "1.png").write_bytes(b"no image")
    return root


def test_data_is_checked_as_training_would_read_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "data=folder", f"data.root={write_images(tmp_path, damaged=True)}"]) == 0
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines()]
    assert ["training", "6", "2", "3", "3", "1", "of", "6", "checked"] in lines
    assert f"unreadable image {tmp_path / 'train' / 'ant' / '1.png'}" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/nowhere"], "the folder /nowhere does not exist"),
        (["data.root=/x"], "name the data"),
        (["data=folder"], "data.root must be given"),
        (["data=dataset"], "data.train must be given"),
        (["data=synthetic", "~data"], "data is missing"),
        (["data=synthetic", "--sample", "0"], "--sample=0 must be an integer of at least 1"),
        (["data=foldr"], "data=foldr is unknown; did you mean folder"),
    ],
)
def test_data_that_cannot_be_read_is_refused(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main(["data", "check", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_pack_prints_how_its_shards_are_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = write_images(tmp_path / "images"), tmp_path / "packed"
    arguments = [
        "data",
        "pack",
        "data=folder",
        f"data.root={root}",
        "--out",
        str(out),
        "--shorter-side",
        "10",
        "--workers",
        "1",
    ]
    assert main(arguments) == 0
    assert f"use        data=shards data.root={out}" in capsys.readouterr().out
    assert main(["data", "check", "data=shards", f"data.root={out}"]) == 0
    assert main(arguments) == 2  # nothing is overwritten


def test_flat_validation_images_are_sorted_into_class_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in (1, 2):
        Image.new("RGB", (4, 4)).save(tmp_path / f"ILSVRC2012_val_{i:08d}.JPEG")
    labels = tmp_path / "LOC_val_solution.csv"
    rows = "ILSVRC2012_val_00000001,n01440764 1 2 3 4\nILSVRC2012_val_00000002,n15075141 1 2 3 4\n"
    labels.write_text(f"ImageId,PredictionString\n{rows}")
    assert main(["data", "prepare-val", str(tmp_path), "--labels", str(labels)]) == 0
    assert "moved      2 images" in capsys.readouterr().out
    assert (tmp_path / "n15075141" / "ILSVRC2012_val_00000002.JPEG").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "--sample", "-4"], "--sample="),
        (["check", "--sample", "1e9"], "--sample="),
        (["check", "--sample", str(10**30)], "--sample="),
        (["pack", "--quality", "0"], "--quality="),
        (["pack", "--quality", "101"], "--quality="),
        (["pack", "--per-shard", "0"], "--per-shard="),
        (["pack", "--per-shard", str(10**9)], "--per-shard="),
        (["pack", "--shorter-side", "-1"], "--shorter-side="),
        (["pack", "--shorter-side", "65501"], "--shorter-side="),
        (["pack", "--workers", "0"], "--workers="),
        (["pack", "--workers", "1000000"], "workers=1000000 is too many for"),
        (["pack", "--workers", "nan"], "--workers="),
        (["pack", "--out", "~nobody_has_this_name/x"], "--out=~nobody_has_this_name/x is not the path of a folder"),
        (["pack", "--out", "/dev/null/x"], "/dev/null/x cannot be written: Not a directory"),
        (["pack", "--out", "/dev/null"], "/dev/null is a file; give a folder for the shards"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_meaningless_option_is_refused_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    root, out = write_images(tmp_path / "images"), tmp_path / "packed"
    command, *options = arguments
    target = [] if command == "check" or "--out" in options else ["--out", str(out)]
    assert main(["data", command, "data=folder", f"data.root={root}", *target, *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) <= 3
    assert not out.exists()


def test_pack_looks_at_both_splits_before_it_writes_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = write_images(tmp_path / "images"), tmp_path / "packed"
    out.mkdir()
    (out / "val-000000.tar").write_bytes(b"")
    assert main(["data", "pack", "data=folder", f"data.root={root}", "--out", str(out), "--workers", "1"]) == 2
    assert "already contains val shards" in capsys.readouterr().err
    assert [file.name for file in out.iterdir()] == ["val-000000.tar"]


def test_a_class_name_with_a_line_break_does_not_shift_the_list_of_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_images(tmp_path / "images")
    for split in ("train", "val"):
        (root / split / "ant").rename(root / split / "ant\nwasp")
    assert main(["data", "pack", "data=folder", f"data.root={root}", "--out", str(tmp_path / "packed")]) == 2
    assert "the name of class 0 is 'ant\\nwasp'; rename it" in capsys.readouterr().err
    assert not (tmp_path / "packed").exists()
