"""A machine that fails during a run: full disks, lost workers, no memory, too many open files, little shared memory."""

import errno
import re
import resource
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pytest
import torch
from conftest import TINY, Command, Outcome, only_run
from torch.utils.data import DataLoader

from swin_lab.data.images import ImageSet
from swin_lab.data.loading import TimedLoader, TransformedImages
from swin_lab.data.sampling import SampleIndex
from swin_lab.run import preflight
from swin_lab.run.failures import explain_failure
from swin_lab.run.preflight import loader_needs
from swin_lab.training.checkpoint_io import LAST
from swin_lab.weights.archive import check_archive

RUN = [*TINY, "data.num_workers=0", "trainer.log_every_n_steps=1"]
CALLBACKS = """
import os
import signal
from multiprocessing import active_children

import torch
from lightning import Callback


class AtUpdate(Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 6 and not os.path.exists("acted"):
            open("acted", "w").close()
            self.act(trainer)


class LoseWorker(AtUpdate):
    def act(self, trainer):
        os.kill(active_children()[0].pid, signal.SIGKILL)


class Allocate(AtUpdate):
    def act(self, trainer):
        torch.empty(2**50)


class FillDisk(AtUpdate):
    def act(self, trainer):
        with open(os.path.join(trainer.log_dir, "filling"), "wb", buffering=0) as file:
            try:
                while file.write(bytes(512)):
                    pass
            except OSError:
                pass
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB, on which two checkpoints of the tiny run and their copies do not fit."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("a file system cannot be mounted without the rights of the administrator")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def limited(kind: int, limit: int) -> Iterator[None]:
    """Sets a limit of this process for a while."""
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


def with_callback(name: str) -> str:
    Path("machine.py").write_text(CALLBACKS)
    return f"+callbacks.machine._target_=machine.{name}"


def assert_clear(outcome: Outcome) -> None:
    assert outcome.code == 2, outcome.printed
    assert outcome.err.startswith("error: ")
    assert len(outcome.err.splitlines()) <= 3
    assert "Traceback" not in outcome.printed


def test_a_full_disk_names_folder_and_whole_files_and_the_run_goes_on_when_there_is_space(
    command: Command, small_disk: Path
) -> None:
    outcome = command("train", *RUN, f"out={small_disk}")
    assert_clear(outcome)
    first, second, third = outcome.err.splitlines()
    assert f"cannot write to {small_disk}" in first
    assert "No space left on device" in first
    assert ".unfinished" not in outcome.err
    run = next((small_disk / "tiny").iterdir())
    assert f"checkpoints/{LAST}" in second
    for file in run.glob("checkpoints/*.ckpt"):
        check_archive(file)
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    again = command("train", *shlex.split(third.partition("continue with: ")[2])[2:])
    assert again.code == 0, again.err
    assert torch.load(run / "checkpoints" / LAST, weights_only=True)["global_step"] == 8


def test_a_disk_that_is_full_for_the_metrics_gives_one_message(command: Command, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    outcome = command("train", *RUN, f"out={small_disk}", "checkpoint.every_minutes=null", with_callback("FillDisk"))
    assert_clear(outcome)
    assert f"cannot write to {small_disk}" in outcome.err
    check_archive(next((small_disk / "tiny").iterdir()) / "checkpoints" / LAST)


def test_a_checkpoint_that_cannot_be_written_stops_the_run_before_its_first_update(command: Command) -> None:
    with limited(resource.RLIMIT_FSIZE, 20_000):
        outcome = command("train", *RUN)
    assert_clear(outcome)
    assert f"checkpoints/{LAST}: File too large" in outcome.err
    assert "checkpoints so far: none" in outcome.err
    run = next(Path("runs/tiny").iterdir())
    assert not list((run / "checkpoints").iterdir())
    assert not (run / "metrics.csv").exists()


def test_a_full_disk_for_temporary_files_does_not_matter(
    command: Command, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(small_disk))
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "full").write_bytes(bytes(10**6))
    outcome = command("train", *RUN, "out=runs")
    assert outcome.code == 0, outcome.err


def test_a_lost_worker_is_reported_with_the_command_that_continues(command: Command, tmp_path: Path) -> None:
    outcome = command("train", *RUN, "data.num_workers=2", "data.cache_mib=0", with_callback("LoseWorker"))
    assert_clear(outcome)
    assert re.search(r"a loader worker( \(process \d+\))? (has|was) ended", outcome.err)
    assert "no memory left" in outcome.err
    again = command("train", *shlex.split(outcome.err.rpartition("continue with: ")[2])[2:], "data.num_workers=1")
    assert again.code == 0, again.err
    assert torch.load(only_run(tmp_path) / "checkpoints" / LAST, weights_only=True)["global_step"] == 8


def test_a_worker_that_is_lost_while_it_passes_a_batch_is_reported(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the connection to it is reset before torch looks whether the process is alive."""

    def batches(loader: TimedLoader) -> Iterator[object]:
        yield from islice(DataLoader.__iter__(loader), 1)
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    monkeypatch.setattr(TimedLoader, "batches", batches)
    outcome = command("train", *RUN)
    assert_clear(outcome)
    assert "a loader worker has ended; most likely the system had no memory left" in outcome.err


def test_no_memory_is_reported_with_the_command_that_continues(command: Command) -> None:
    outcome = command("train", *RUN, with_callback("Allocate"))
    assert_clear(outcome)
    assert "no memory is left" in outcome.err
    assert "continue with: " in outcome.err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError("Caught MemoryError in DataLoader worker process 3.\nOriginal"), "no memory is left in loader worker 3"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "no memory is left"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (RuntimeError("received 0 items of ancdata"), "too many open files"),
        (OSError("Caught OSError in DataLoader worker process 1.\n[Errno 24] Too many open files"), "files in loader worker 1"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible"), "--shm-size"),
        (RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2_3>: No space"), "--shm-size"),
        (RuntimeError("unable to write to file </torch_1_2_3>: No space left on device (28)"), "--shm-size"),
        (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), "(process 7, 8) has ended"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Segmentation fault. "), "signal Segmentation fault"),
    ],
)
def test_errors_of_the_machine_are_explained(error: Exception, message: str) -> None:
    explained = explain_failure(error)
    assert explained is not None
    assert message in explained


def test_other_errors_are_not_explained() -> None:
    assert explain_failure(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    assert explain_failure(ValueError("not enough memory")) is None


def test_too_many_open_files_are_no_fault_of_an_image() -> None:
    class Images(ImageSet):
        labels = (0,)

        def encoded(self, index: int) -> bytes:
            raise OSError(errno.EMFILE, "Too many open files")

        def name(self, index: int) -> str:
            return "image.png"

    with pytest.raises(OSError, match="Too many open files"):
        TransformedImages(Images(), lambda image: image, seed=0)[SampleIndex(0, 0)]


def test_little_shared_memory_is_refused_before_anything_is_written(
    command: Command, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "SHARED_MEMORY", small_disk)
    outcome = command("train", *RUN, "data.num_workers=4")
    assert_clear(outcome)
    assert "the 4 loader workers need about 1 MB of shared memory" in outcome.err
    assert "--shm-size=1g" in outcome.err
    assert not Path("runs").exists()
    assert command("train", *RUN).code == 0  # no workers


def test_a_low_limit_of_open_files_is_refused_before_anything_is_written(command: Command) -> None:
    with limited(resource.RLIMIT_NOFILE, 150):
        outcome = command("train", *RUN, "data.num_workers=4")
    assert_clear(outcome)
    assert "the limit of this shell is 150\nRaise it with ulimit -n 4096" in outcome.err
    assert not Path("runs").exists()


def test_loaders_that_hold_batches_at_once_need_the_sum() -> None:
    sizes = [1_000_000, 500_000]
    apart, at_once = (loader_needs([2, 2], sizes, 1, at_once=value).shared_bytes for value in (False, True))
    assert apart == 8 * (1_000_000 + 3 * 4096)
    assert at_once == apart + 8 * (500_000 + 3 * 4096)
    assert loader_needs([2, 2], sizes, 4, at_once=False).shared_bytes == 4 * apart
    assert loader_needs([0, 0], sizes, 1, at_once=True).shared_bytes == 0
