"""How a command ends: its exit codes, and what it prints after a signal."""

import atexit
import signal
import sys

from swin_lab.interruption import OF_SCHEDULERS
from swin_lab.run.arguments import local_rank

OK, FAILED, WRONG_INPUT, PRUNED, STOPPED, LOST, INTERRUPTED = 0, 1, 2, 3, 75, 76, 130
"""Exit codes. STOPPED is EX_TEMPFAIL of sysexits.h: a signal has stopped the run. LOST is EX_PROTOCOL: another process
of the run did not arrive, has died or hangs. `resume` continues both. PRUNED: Optuna has stopped it, as a trial that is worse
than others."""
PRUNING = "pruning"
"""Stands for the name of a signal when Optuna has stopped a run."""


class LostRankError(Exception):
    """Ends a process of a run on several devices because another one has not arrived."""


class StoppedRunError(Exception):
    """Ends a run that a signal has stopped.

    Args:
        signal: name of the signal.
        command: the command that continues the run. If None, there is no checkpoint yet.
    """

    def __init__(self, signal: str, command: str | None) -> None:
        super().__init__(signal)
        self.signal = signal
        self.command = command


def report_stop(stop: StoppedRunError, again: str) -> int:
    """Prints how the run continues, and returns the exit code.

    Args:
        stop: what has stopped the run.
        again: the command that has started it, which starts it again if there is no checkpoint yet.
    """
    if stop.signal == PRUNING:
        return PRUNED
    atexit.register(_ignore_schedulers)
    if local_rank() == 0:
        print(f"\nstopped by {stop.signal}{'' if stop.command else ' before the first update'}", file=sys.stderr)
        print(f"continue with: {stop.command}" if stop.command else f"start it again with: {again}", file=sys.stderr)
    return INTERRUPTED if stop.signal == "SIGINT" else STOPPED


def _ignore_schedulers() -> None:
    """Keeps the exit code if a scheduler repeats its signal while Python ends, when nothing handles it any more."""
    for name in OF_SCHEDULERS:
        signal.signal(getattr(signal, name), signal.SIG_IGN)


def report_lost(lost: LostRankError, again: str) -> int:
    """Prints which process did not arrive, and returns the exit code.

    Args:
        lost: the process.
        again: the command that has started this one; nothing was trained, so that it also continues a run that it resumes.
    """
    print(f"error: {lost}; all processes end", file=sys.stderr)
    print(f"Make sure that it is started and reaches this machine, and start it again with: {again}", file=sys.stderr)
    return LOST
