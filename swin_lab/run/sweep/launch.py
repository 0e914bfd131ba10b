"""Processes of a sweep's jobs on this machine."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from swin_lab.run.arguments import RUN_DIR
from swin_lab.run.sweep.folder import ERR, OUT, Job

POLL_S = 0.2


class Runner(Protocol):
    """Runs jobs."""

    def has_room(self) -> bool:
        """Returns whether another job can start."""

    def start(self, job: Job, command: Sequence[str]) -> None:
        """Starts a job.

        Args:
            job: the job; its folder gets what it prints.
            command: the words of its command.
        """

    def ended(self) -> list[tuple[Job, int]]:
        """Returns the jobs that have ended since the last call, with their exit codes."""

    def running(self) -> int:
        """Returns how many jobs run."""

    def stop(self, number: int) -> None:
        """Sends a signal to all jobs."""


def execute(command: Sequence[str], folder: Path, devices: str | None) -> "subprocess.Popen[bytes]":
    """Starts a job in a session of its own, so that a Ctrl-C on the terminal reaches the sweep only, which passes it on.

    Args:
        command: the words of its command.
        folder: gets two files with what the job prints.
        devices: its GPUs, as in CUDA_VISIBLE_DEVICES. If None, all.
    """
    # Inside a job of SLURM, Lightning would otherwise wait for SLURM to start one process per device.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_") and key != RUN_DIR}
    if devices is not None:
        environment["CUDA_VISIBLE_DEVICES"] = devices
    with (folder / OUT).open("wb") as out, (folder / ERR).open("wb") as err:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, start_new_session=True
        )


class Processes:
    """Runs jobs on this machine.

    Args:
        at_once: number of jobs at the same time.
        gpus: the GPUs that jobs share. If empty, jobs see all devices.
        each: number of GPUs of a job.
    """

    def __init__(self, at_once: int, gpus: Sequence[str] = (), each: int = 0) -> None:
        self.at_once = at_once
        self._free = list(gpus)
        self._each = each
        self._running: list[tuple[Job, subprocess.Popen[bytes], list[str]]] = []

    def has_room(self) -> bool:
        return len(self._running) < self.at_once

    def start(self, job: Job, command: Sequence[str]) -> None:
        own, self._free = self._free[: self._each], self._free[self._each :]
        self._running.append((job, execute(command, job.folder, ",".join(own) if own else None), own))

    def ended(self) -> list[tuple[Job, int]]:
        done = [entry for entry in self._running if entry[1].poll() is not None]
        for entry in done:
            self._running.remove(entry)
            self._free += entry[2]
        return [(job, process.returncode) for job, process, _ in done]

    def running(self) -> int:
        return len(self._running)

    def stop(self, number: int) -> None:
        for _, process, _ in self._running:
            process.send_signal(number)
