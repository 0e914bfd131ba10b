"""How a training ends before its last update: after a signal, or at numbers that are NaN or infinite."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from swin_lab.errors import UserError
from swin_lab.interruption import InterruptedRunError, Interruption
from swin_lab.report import shorter
from swin_lab.run.arguments import Invocation
from swin_lab.run.ending import OK, StoppedRunError
from swin_lab.run.guard import resume_command
from swin_lab.run.session import Session
from swin_lab.training import NonFiniteDumps, NonFiniteError
from swin_lab.training.checkpoint_io import LAST


@contextmanager
def explained(session: Session, invocation: Invocation) -> Iterator[None]:
    """Turns what ends a training early into errors that say how it goes on."""
    try:
        yield
    except InterruptedRunError as stop:
        raise stopped(stop, session.run_dir, invocation) from stop
    except NonFiniteError as error:
        raise diverged(error, session.nonfinite, session.run_dir) from error


def stop_early(interruption: Interruption, world_size: int) -> None:
    """Stops a run that has received a signal before its directory exists; several processes stop together later.

    Raises:
        StoppedRunError: there was a signal.
    """
    if interruption.name is not None and world_size == 1:
        raise StoppedRunError(interruption.name, None)


def stopped(stop: InterruptedRunError, run_dir: Path, invocation: Invocation) -> Exception:
    """Waits until every process has finished, so that none is killed while the first one writes the checkpoint.

    Returns:
        The error that ends this process, with the command that continues the run.
    """
    leave_together()
    return StoppedRunError(stop.name, resume_command(invocation.train_command, run_dir) if stop.saved else None)


def continuation(run_dir: Path, invocation: Invocation) -> str:
    """Returns which checkpoint a run that cannot go on has left, and the command that continues it."""
    last = run_dir / "checkpoints" / LAST
    if not last.is_file():
        return "there is no checkpoint yet; start the run again"
    return f"the last checkpoint is {shorter(last)}\ncontinue with: {resume_command(invocation.train_command, run_dir)}"


def diverged(error: NonFiniteError, dumps: NonFiniteDumps, run_dir: Path) -> BaseException:
    """Waits until every process has finished, so that none is killed while the first one writes the dump.

    Returns:
        The error of the first process, with the images, the last good checkpoint and the command to replay the update; the
        further processes end without a message.
    """
    leave_together()
    if dumps.report is None:
        return SystemExit(OK)
    last, dump = run_dir / "checkpoints" / LAST, dumps.report.dump
    before = f" after {error.skipped} skipped updates" if error.skipped else ""
    images = f"; images: {dumps.report.images}" if dumps.report.images else ""
    replay = f"swin-lab replay {shorter(dump)} shows where; " if dump is not None else ""
    good = f"the last good checkpoint is {shorter(last)}" if last.is_file() else "there is no checkpoint before it"
    advice = error.ADVICE if error.skipped else f"{error.ADVICE}, or resume with on_nonfinite=skip"
    return UserError(f"{error.found}{before}{images}\n{replay}{good}\nTo avoid it, {advice}")


def leave_together() -> None:
    """Waits until every process of the run is here, and ends their group."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
