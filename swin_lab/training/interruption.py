"""Signals that stop a run: Ctrl-C, and those of schedulers and operating systems."""

import logging
import signal
from types import FrameType, TracebackType
from typing import Any

log = logging.getLogger("swin_lab.training")

NAMES = tuple(name for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name))
"""Names of the signals. SIGUSR1 is what SLURM can send some time before the end of a job."""


class InterruptedRunError(Exception):
    """Ends a run at a signal, after its checkpoint was saved.

    Args:
        name: the signal.
        saved: whether there is a checkpoint from which the run can continue.
    """

    def __init__(self, name: str, *, saved: bool) -> None:
        super().__init__(name)
        self.name = name
        self.saved = saved


class Interruption:
    """Takes note of the first signal, so that the run can finish its update; the second Ctrl-C ends the run at once.

    As a context, it has the signals handled until its end. `install` does so again after another library has taken them over.
    SIGHUP stays ignored if the process was started so: nohup keeps a run alive when its terminal is closed.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        """Name of the first signal. If None, there was none."""
        self._before: dict[str, Any] = {}

    def __enter__(self) -> "Interruption":
        before = {name: signal.getsignal(getattr(signal, name)) for name in NAMES}
        self._before = {name: one for name, one in before.items() if (name, one) != ("SIGHUP", signal.SIG_IGN)}
        self.install()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for name, handler in self._before.items():
            signal.signal(getattr(signal, name), handler)

    def install(self) -> None:
        """Has the signals handled."""
        for name in self._before:
            signal.signal(getattr(signal, name), self._take_note)

    def _take_note(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.name is not None and name == "SIGINT":
            raise KeyboardInterrupt
        if self.name is None:
            self.name = name
            log.warning("%s: stopping after this update, with a checkpoint; Ctrl-C ends the run at once", name)
