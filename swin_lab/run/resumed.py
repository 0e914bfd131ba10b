"""What a resumed run does with its checkpoint, once its directory is locked and all processes have arrived."""

from typing import Any

import yaml

from swin_lab.errors import UserError
from swin_lab.report import shorter
from swin_lab.run.batching import AUTO
from swin_lab.run.resume import Resumption, position_in
from swin_lab.training import Position
from swin_lab.training.checkpoint_io import LAST, PREVIOUS


def resumed_position(resumption: Resumption | None, *, first: bool) -> Position | None:
    """Returns where a run goes on, once its directory is locked; the first process sets a damaged checkpoint aside."""
    if resumption is None:
        return None
    position = check_unchanged(resumption)
    if first:
        set_aside_damaged(resumption)
    return position


def check_unchanged(resumption: Resumption) -> Position:
    """Returns the place where a run goes on, once its directory is locked.

    Raises:
        UserError: another process has gone on with the run before that, so that the data would begin at the wrong place.
    """
    if position_in(resumption.file) != resumption.position:
        raise UserError(
            f"another process has gone on with {shorter(resumption.run_dir)} meanwhile\nStart the same command again"
        )
    return resumption.position


def set_aside_damaged(resumption: Resumption) -> None:
    """Renames a damaged last checkpoint, which the next save would otherwise keep under the name of the one before it."""
    last = resumption.file.with_name(LAST)
    if resumption.file.name == PREVIOUS and last.is_file():
        last.replace(last.with_name(f"damaged_{LAST}"))


def beginning(position: Position | None) -> str:
    """Returns in words where a run goes on, or that it is a new one."""
    if position is None:
        return "a new run"
    return f"update {position.updates} (epoch {position.epoch + 1}, batch {position.batches}, evaluation {position.evaluation})"


def check_agreed(own: Position | None, of_the_first: str) -> None:
    """Checks that this process begins where the first one does.

    Args:
        own: where this process goes on. If None, it starts a new run.
        of_the_first: the `beginning` of the first process.

    Raises:
        UserError: they differ.
    """
    if beginning(own) != of_the_first:
        raise UserError(
            f"resume: this process would begin with {beginning(own)}, the first one with {of_the_first}\n"
            "The folder `out` must be one that all machines of the run share"
        )


def with_found_batch(resumption: Resumption, values: dict[str, Any]) -> dict[str, Any]:
    """Returns a configuration in which max_device_batch=auto is the number that was found in the resumed run."""
    found = yaml.safe_load((resumption.run_dir / "config.yaml").read_text()).get("max_device_batch")
    return values | {"max_device_batch": found} if values["max_device_batch"] == AUTO and isinstance(found, int) else values
