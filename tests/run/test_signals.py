"""Signals at any moment: before the first import, while the configuration is composed, in a training, and at the end."""

import io
import logging
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, TINY, Command
from omegaconf import ListConfig

from swin_lab.interruption import Interruption, ending_at_ctrl_c

MESSAGE = "SIGTERM: stopping before the next update, with a checkpoint; Ctrl-C ends the run at once"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the moment of the signal is found in /proc, which is Linux's")
def test_a_signal_while_packages_are_imported_stops_the_run(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "train.py"), *TINY]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        while "libtorch_cpu" not in Path(f"/proc/{process.pid}/maps").read_text():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate()
    assert process.returncode == 75
    assert err.splitlines()[-1].startswith("start it again with: python ")
    assert not (tmp_path / "runs").exists()


def test_ctrl_c_ends_the_composition_without_a_traceback_at_any_moment(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of an assignment it leaves OmegaConf with a node that is None, on which OmegaConf and then Hydra fail."""
    append, moment, appended = ListConfig.append, 0, 0

    def interrupted(node: ListConfig, item: object) -> None:
        nonlocal appended
        appended += 1
        if appended == moment:
            node.__dict__["_content"].append(None)
            os.kill(os.getpid(), signal.SIGINT)
        append(node, item)

    monkeypatch.setattr(ListConfig, "append", interrupted)
    for _ in range(2):  # The first composition of a process assigns more.
        appended = 0
        assert command("train", "--cfg", "job").code == 0
    for moment in (1, 2, appended // 2, appended - 1, appended):
        appended = 0
        outcome = command("train", "--cfg", "job")
        assert (outcome.code, outcome.err) == (130, "\ninterrupted\n"), moment


def lose_ctrl_c() -> None:
    with suppress(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_that_a_library_has_lost_ends_the_run_where_it_begins() -> None:
    with ending_at_ctrl_c():
        lose_ctrl_c()
        with pytest.raises(KeyboardInterrupt), Interruption():
            pytest.fail("the run has begun")


def fail(*, interrupted: bool) -> None:
    if interrupted:
        lose_ctrl_c()
    raise RecursionError("numpy is half-imported")


@pytest.mark.parametrize(("interrupted", "error"), [(True, KeyboardInterrupt), (False, RecursionError)])
def test_an_error_is_ctrl_c_if_it_follows_one_and_else_itself(interrupted: bool, error: type[BaseException]) -> None:
    with pytest.raises(error), ending_at_ctrl_c():
        fail(interrupted=interrupted)


@pytest.mark.slow
def test_ctrl_c_keeps_the_last_checkpoint_and_exits_with_130(tmp_path: Path) -> None:
    arguments = [*TINY, "trainer.max_epochs=100000"]
    running = subprocess.Popen(
        [sys.executable, "-u", str(ROOT / "train.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"COLUMNS": "200"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # Background jobs of a shell ignore SIGINT.
    )
    killer = threading.Timer(200, running.kill)
    killer.start()
    assert running.stdout is not None
    for line in running.stdout:
        if line.startswith("epoch   3/"):
            running.send_signal(signal.SIGINT)
            break
    out, err = running.communicate()
    killer.cancel()
    assert running.returncode == 130, out + err
    (last,) = tmp_path.rglob("last.ckpt")
    assert torch.load(last, weights_only=True)["epoch"] >= 1
    assert err.endswith(f"train.py resume={last.parents[1].relative_to(tmp_path)}\n")
    assert "Traceback" not in err


def test_a_signal_that_is_repeated_while_python_ends_leaves_the_exit_code() -> None:
    program = """
import atexit, os, signal, sys
from swin_lab.run.ending import StoppedRunError, report_stop

atexit.register(os.kill, os.getpid(), signal.SIGTERM)  # Functions that were registered later are called earlier.
sys.exit(report_stop(StoppedRunError("SIGTERM", None), "train.py"))
"""
    assert subprocess.run([sys.executable, "-c", program], stderr=subprocess.DEVNULL).returncode == 75


def test_sighup_stays_ignored_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGHUP)
            assert interruption.name is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_second_ctrl_c_ends_the_run_at_once() -> None:
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.name == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


class Interrupting(io.RawIOBase):
    """A file in which the first record arrives together with SIGTERM."""

    def __init__(self) -> None:
        self.text = ""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        first = not self.text
        self.text += bytes(data).decode()
        if first:
            os.kill(os.getpid(), signal.SIGTERM)
        return len(data)


def test_a_signal_while_the_log_is_written_leaves_the_log_as_it_is_and_is_logged_after_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, log = Interrupting(), logging.getLogger("swin_lab")
    handler = logging.StreamHandler(io.TextIOWrapper(io.BufferedWriter(file)))
    log.addHandler(handler)
    try:
        with Interruption() as interruption:
            log.warning("epoch 1")
            assert interruption.name == "SIGTERM"
    finally:
        log.removeHandler(handler)
    assert file.text.splitlines() == ["epoch 1", MESSAGE]
    assert "Traceback" not in capsys.readouterr().err
