"""Checkpoints are whole at every moment: full disks, other folders for temporary files, removed directories."""

import errno
import resource
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch

from swin_lab.training.checkpoint_io import LAST, PREVIOUS, BackgroundIO, WholeFileIO, keep


def content(value: float, size: int = 10) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((size,), value)}


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_the_last_checkpoint_is_kept_as_the_previous_one(tmp_path: Path) -> None:
    for value in (1.0, 2.0, 3.0):
        WholeFileIO().save_checkpoint(content(value), tmp_path / LAST)
    assert names(tmp_path) == [LAST, PREVIOUS]
    assert torch.load(tmp_path / LAST)["weight"][0] == 3
    assert torch.load(tmp_path / PREVIOUS)["weight"][0] == 2


def test_a_full_disk_leaves_the_old_file_and_names_the_new_one(tmp_path: Path) -> None:
    """A limit of the size of files stands for a full disk; both raise OSError in the same place."""
    WholeFileIO().save_checkpoint(content(1.0), tmp_path / LAST)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(OSError, match=LAST) as failure:
            WholeFileIO().save_checkpoint(content(2.0, 100_000), tmp_path / LAST)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert failure.value.errno == errno.EFBIG
    assert names(tmp_path) == [LAST]
    assert torch.load(tmp_path / LAST)["weight"][0] == 1


def test_a_save_in_the_background_takes_a_copy_and_does_not_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk here writes only after the training has gone on: a save that waited for it would never return."""
    goes_on, write = Event(), WholeFileIO.save_checkpoint

    def slow_disk(*arguments: Any) -> None:
        assert goes_on.wait(60)
        write(*arguments)

    monkeypatch.setattr(WholeFileIO, "save_checkpoint", slow_disk)
    io, saved = BackgroundIO(), content(1.0)
    io.save_checkpoint(saved, tmp_path / LAST)
    assert names(tmp_path) == []
    saved["weight"].add_(1)  # the next update
    goes_on.set()
    io.wait()
    assert torch.load(tmp_path / LAST)["weight"][0] == 1


def test_no_file_is_written_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    WholeFileIO().save_checkpoint(content(1.0), tmp_path / "checkpoints" / "best.ckpt")
    assert names(tmp_path) == ["checkpoints"]
    assert names(tmp_path / "checkpoints") == ["best.ckpt"]


def test_without_hard_links_the_file_takes_its_second_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("swin_lab.training.checkpoint_io.os.link", refuse)
    (tmp_path / LAST).write_text("1")
    keep(tmp_path / LAST, tmp_path / PREVIOUS)
    assert names(tmp_path) == [PREVIOUS]
