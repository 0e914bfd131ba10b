"""Finding the run that `resume` names, its newest whole checkpoint, and what has changed in the configuration."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from swin_lab.errors import UserError
from swin_lab.record import flat, is_finished
from swin_lab.report import print_table, shorter
from swin_lab.run.differences import IGNORED_KEYS, differing, has_prefix
from swin_lab.training import Position
from swin_lab.training.checkpoint_io import LAST, PREVIOUS
from swin_lab.training.engine import RUN_STATE_KEY
from swin_lab.weights.archive import check_archive

log = logging.getLogger("swin_lab")

AUTO = "auto"
OF_RESUMING = ("resume", "resume_with")
FREE_KEYS = (
    *(key for key in IGNORED_KEYS if key not in ("weights", "data.root", "data.layout")),
    "checkpoint",
    "data.cache",
    "on_nonfinite",
    "nonfinite_limit",
    "rank_timeout",
    "callbacks.pruning",
)
"""Keys, and prefixes of keys, that may change when a run is resumed."""


@dataclass(frozen=True)
class Resumption:
    """Describes a run that is resumed."""

    run_dir: Path
    file: Path
    """The checkpoint."""
    position: Position
    was_finished: bool
    """Whether the run had reached its end; it goes on with a larger trainer.max_epochs."""


def find_resumption(resume: str | None, folder: Path) -> Resumption | None:
    """Finds the run that is resumed.

    Args:
        resume: a run directory; `auto` for the newest unfinished run in the folder that has a checkpoint; None for a new run.
        folder: the folder of all runs of the configured name.

    Returns:
        The run; None if a new one is to be started.

    Raises:
        UserError: the directory is none of a run, or none of its checkpoints is whole.
    """
    if resume is None:
        return None
    run_dir = newest_unfinished(folder) if resume == AUTO else directory_of(resume)
    if run_dir is None:
        log.info("%-10s no unfinished run in %s: starting a new one", "resume", shorter(folder))
        return None
    reasons = []
    for name in (LAST, PREVIOUS):
        file = run_dir / "checkpoints" / name
        if not file.is_file():
            continue
        try:
            position = read_position(file)
        except UserError as error:
            log.warning("%s", error)
            reasons.append(str(error))
            continue
        return Resumption(run_dir, file, position, is_finished(run_dir))
    why = reasons[0] if reasons else f"{shorter(run_dir)} contains no checkpoints/{LAST}: the run ended before its first one"
    raise UserError(f"{why}\nStart a new run without resume={resume}")


def newest_unfinished(folder: Path) -> Path | None:
    """Returns the run directory in a folder with the newest checkpoint among those that have not finished."""
    files = [file for name in (LAST, PREVIOUS) for file in folder.glob(f"*/checkpoints/{name}")]
    unfinished = [file for file in files if not is_finished(file.parent.parent)]
    newest = max(unfinished, key=lambda file: file.stat().st_mtime, default=None)
    return None if newest is None else newest.parent.parent


def directory_of(resume: str) -> Path:
    """Returns the run directory that `resume` names, or that contains the checkpoint which it names.

    Raises:
        UserError: it is none.
    """
    path = Path(resume).expanduser().absolute()
    if path.is_file() and path.parent.name == "checkpoints":
        path = path.parent.parent
    if not (path / "config.yaml").is_file():
        found = "does not exist" if not path.exists() else "contains no config.yaml, so it is no run directory"
        raise UserError(
            f"resume={resume}: {shorter(path)} {found}; give a run directory, or {AUTO} for the newest unfinished run"
        )
    return path


def read_position(file: Path) -> Position:
    """Reads the place of a checkpoint within its run, after a check of the whole file.

    Raises:
        UserError: the file is damaged, or was not written by a run of this version.
    """
    check_archive(file)
    return position_in(file)


def position_in(file: Path) -> Position:
    """Reads the place of a checkpoint, which was checked before; raises UserError if it has none."""
    try:
        content = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
        state = content[RUN_STATE_KEY]
        if "optimizer_settings" not in state:
            raise KeyError("optimizer_settings")
        return Position(**state["position"])
    except (KeyError, TypeError, UserError) as error:
        raise UserError(f"{file} cannot be resumed: it has no state of a run that this version of swin_lab reads") from error
    except Exception as error:  # torch raises anything for a damaged file.
        raise UserError(f"{file} is damaged: {error}") from error


def check_changes(resumption: Resumption, values: Mapping[str, Any], permitted: Sequence[str]) -> None:
    """Compares the configuration with that of the resumed run, prints what has changed, and refuses what must not change.

    Args:
        resumption: the resumed run.
        values: the configuration of this run, plain Python.
        permitted: `resume_with`: keys that may change although the results depend on them.

    Raises:
        UserError: a key has changed that affects the maths or the order of the data.
    """
    stored = yaml.safe_load((resumption.run_dir / "config.yaml").read_text())
    old, new = ({k: v for k, v in flat(dict(config)).items() if k not in OF_RESUMING} for config in (stored, values))
    changed = differing(old, new)
    for key in permitted:
        if not has_prefix(key, [*old, *new]) and not any(has_prefix(name, [key]) for name in [*old, *new]):
            raise UserError(f"resume_with=[{key}]: the configuration has no key {key}")
    refused = [(key, before, now) for key, before, now in changed if not _may_change(key, before, now, permitted)]
    if refused:
        rows = "\n".join(f"  {key}: {before} -> {now}" for key, before, now in refused)
        keys = ",".join(key for key, _, _ in refused)
        raise UserError(
            f"these changes would make another run than {shorter(resumption.run_dir)}, which is resumed:\n{rows}\n"
            f"Remove them, permit them with 'resume_with=[{keys}]', or start a new run without resume"
        )
    if changed:
        print_table(["changed", "before", "now"], [[key, str(before), str(now)] for key, before, now in changed])
    if resumption.was_finished and resumption.position.epoch >= values["trainer"].get("max_epochs", -1) > 0:
        raise UserError(
            f"{shorter(resumption.run_dir)} is finished after {resumption.position.epoch} epochs; "
            "give a larger trainer.max_epochs to continue it"
        )


def _may_change(key: str, before: object, now: object, permitted: Sequence[str]) -> bool:
    if has_prefix(key, (*FREE_KEYS, *permitted)):
        return True
    return key == "trainer.max_epochs" and isinstance(before, int) and isinstance(now, int) and now > before
