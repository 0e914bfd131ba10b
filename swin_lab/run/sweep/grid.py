"""The jobs of a grid: all combinations of values."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from filelock import FileLock

from swin_lab.record import FINISHED, LOCK
from swin_lab.report import SweepJob
from swin_lab.run.sweep.folder import Job, Locks, add_job, jobs_in

FAILED, ELSEWHERE, MISSING = "failed", "running elsewhere", "missing"
"""States of jobs, besides FINISHED."""


class Source(Protocol):
    """Gives the jobs of a sweep one after the other."""

    def missing(self) -> int:
        """Returns how many jobs have not finished."""

    def next(self) -> Job | None:
        """Returns the next job to run, and locks it; None if none is left."""

    def end(self, job: Job, code: int, *, stopped: bool) -> None:
        """Records the end of a job, and unlocks it.

        Args:
            job: the job.
            code: its exit code.
            stopped: whether a signal has stopped it, so that it will be resumed.
        """

    def table(self) -> list[SweepJob]:
        """Returns the state of every job."""


class Grid:
    """All combinations of values.

    Args:
        path: directory of the sweep, which need not exist.
        combinations: the overrides of the jobs.
    """

    def __init__(self, path: Path, combinations: Sequence[tuple[str, ...]]) -> None:
        self.path = path
        self.combinations = combinations
        self._locks = Locks()
        self._begun: set[tuple[str, ...]] = set()

    def missing(self) -> int:
        found = jobs_in(self.path)
        return sum(overrides not in found or found[overrides].result() is None for overrides in self.combinations)

    def create(self) -> None:
        """Creates the folders of jobs that have none."""
        with FileLock(self.path / LOCK):
            found = jobs_in(self.path)
            number = max((job.number for job in found.values()), default=-1)
            for overrides in self.combinations:
                if overrides not in found:
                    number += 1
                    add_job(self.path, number, overrides)

    def next(self) -> Job | None:
        if not self._begun:
            self.create()
        found = jobs_in(self.path)
        for overrides in self.combinations:
            job = found[overrides]
            if overrides in self._begun or job.result() is not None or not self._locks.take(job):
                continue
            self._begun.add(overrides)
            if job.result() is None:
                return job
            self._locks.release(job)  # Another machine has finished it meanwhile.
        return None

    def end(self, job: Job, code: int, *, stopped: bool) -> None:
        self._locks.release(job)

    def table(self) -> list[SweepJob]:
        found = jobs_in(self.path)
        return [self._row(found[overrides]) for overrides in self.combinations if overrides in found]

    def _row(self, job: Job) -> SweepJob:
        result, error = job.result(), job.error()
        state = FINISHED
        if result is None:
            state = ELSEWHERE if self._locks.is_elsewhere(job) else MISSING if error is None else f"{FAILED}: {error}"
        return SweepJob(job.number, job.overrides, state, result)
