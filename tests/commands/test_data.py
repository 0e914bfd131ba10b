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
