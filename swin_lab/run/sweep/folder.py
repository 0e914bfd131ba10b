"""The directory of a sweep: one folder per job, in which its output, its result or its error are found again.

A job is known by its overrides. While it runs, its folder is locked, so that several machines can work on one sweep.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from swin_lab.errors import UserError
from swin_lab.record import FINISHED, LOCK, RESULTS, read_record
from swin_lab.run.directory import timestamped, write_whole

COMMAND, OVERRIDES, ERROR = "sweep.json", "overrides.txt", "error.txt"
OUT, ERR = "output.txt", "stderr.txt"
"""What a job prints."""


@dataclass(frozen=True)
class Job:
    """Describes a job of a sweep."""

    number: int
    overrides: tuple[str, ...]
    folder: Path

    def result(self) -> dict[str, Any] | None:
        """Returns the contents of its results.json; None if it has not finished."""
        files = sorted(self.folder.glob(f"*/{RESULTS}"), key=lambda file: file.stat().st_mtime)
        finished = [record for record in map(read_record, files) if record["run.state"] == FINISHED]
        return finished[-1] | {"overrides": list(self.overrides)} if finished else None

    def error(self) -> str | None:
        """Returns the first line of its error; None if it has not failed."""
        file = self.folder / ERROR
        return file.read_text().partition("\n")[0] if file.is_file() else None

    def record_error(self, code: int) -> str:
        """Writes the error of a failed job into its folder, and returns it: one to three lines."""
        file = self.folder / ERR
        text = file.read_text(errors="replace") if file.is_file() else ""
        lines = [line for line in text.splitlines() if line.strip()]
        start = max((i for i, line in enumerate(lines) if line.startswith("error: ")), default=len(lines) - 1)
        message = "\n".join(lines[start:][:3]).removeprefix("error: ") if lines else f"it ended with exit code {code}"
        write_whole(self.folder / ERROR, f"{message}\n\nexit code {code}\n\n{text}")
        return message

    def begin(self) -> None:
        """Removes the error of an earlier attempt."""
        (self.folder / ERROR).unlink(missing_ok=True)


class Locks:
    """Holds the locks of the jobs that run here."""

    def __init__(self) -> None:
        self._held: dict[int, FileLock] = {}

    def take(self, job: Job) -> bool:
        """Locks the folder of a job; returns False if the job runs elsewhere."""
        lock = FileLock(job.folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        self._held[job.number] = lock
        return True

    def holds(self, number: int) -> bool:
        """Returns whether a job runs here."""
        return number in self._held

    def release(self, job: Job) -> None:
        """Unlocks the folder of a job."""
        self._held.pop(job.number).release()

    def is_elsewhere(self, job: Job) -> bool:
        """Returns whether another process runs a job."""
        if self.holds(job.number) or not job.folder.is_dir():
            return False
        if not self.take(job):
            return True
        self.release(job)
        return False


def command_of_sweep(job: str, overrides: Sequence[str], config_dirs: Sequence[Path]) -> dict[str, Any]:
    """Returns what makes a command the same: the job and its overrides, without those that may change when it is continued."""
    kept = [text for text in overrides if not re.match(r"\+*(sweep\.|search\.trials=)", text)]
    return {"job": job, "overrides": sorted(kept), "config_dirs": [str(folder) for folder in config_dirs]}


def sweeps_of(parent: Path, command: Mapping[str, Any]) -> list[Path]:
    """Returns the directories of the sweeps of a command, the newest first."""
    files = sorted(parent.glob(f"*/{COMMAND}"), key=lambda file: file.parent.name, reverse=True)
    return [file.parent for file in files if json.loads(file.read_text()) == command]


def named_sweep(path: Path, command: Mapping[str, Any]) -> Path:
    """Returns the directory that sweep.dir names, which may be new.

    Raises:
        UserError: it is another directory than that of a sweep, or of another search.
    """
    file = path / COMMAND
    if path.exists() and not file.is_file() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"sweep.dir={path} exists and is no sweep, because it has no {COMMAND}; choose a new directory")
    if file.is_file():
        stored = json.loads(file.read_text())
        searches = [any(text.startswith("search=optuna") for text in each["overrides"]) for each in (stored, command)]
        if stored["job"] != command["job"] or searches[0] != searches[1] or (searches[0] and stored != command):
            raise UserError(
                f"sweep.dir={path} is another sweep: {stored['job']} {' '.join(stored['overrides'])}\nChoose a new directory"
            )
    return path


def new_sweep(parent: Path) -> Path:
    """Returns the path of a new sweep in a folder."""
    path = timestamped(parent)
    number = 2
    while path.exists():
        path, number = path.with_name(f"{path.name.partition('_n')[0]}_n{number}"), number + 1
    return path


def create(path: Path, command: Mapping[str, Any]) -> None:
    """Creates the directory of a sweep, if it does not exist."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not (path / COMMAND).is_file():
            write_whole(path / COMMAND, json.dumps(command, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"cannot write the sweep {path}: {error.strerror}; choose another with sweep.dir=FOLDER") from error


def jobs_in(path: Path) -> dict[tuple[str, ...], Job]:
    """Returns the jobs of a sweep by their overrides."""
    found = {}
    for file in sorted(path.glob(f"*/{OVERRIDES}")):
        if file.parent.name.isdigit():
            overrides = tuple(file.read_text().splitlines())
            found[overrides] = Job(int(file.parent.name), overrides, file.parent)
    return found


def add_job(path: Path, number: int, overrides: Sequence[str]) -> Job:
    """Creates the folder of a job."""
    folder = path / str(number)
    folder.mkdir(exist_ok=True)
    write_whole(folder / OVERRIDES, "".join(f"{override}\n" for override in overrides))
    return Job(number, tuple(overrides), folder)


@dataclass(frozen=True)
class Membership:
    """Describes which job of which sweep a run is."""

    folder: Path
    """Directory of the sweep."""
    job: int
    differs: tuple[str, ...]
    """The overrides of the job that are not those of the whole sweep."""


def membership(run_dir: Path) -> Membership | None:
    """Returns the sweep that the run in a directory belongs to; None if it belongs to none."""
    job, folder = run_dir.parent, run_dir.parent.parent
    if not (folder / COMMAND).is_file() or not (job / OVERRIDES).is_file():
        return None
    common = json.loads((folder / COMMAND).read_text())["overrides"]
    differs = tuple(override for override in (job / OVERRIDES).read_text().splitlines() if override not in common)
    return Membership(folder, int(job.name), differs)
