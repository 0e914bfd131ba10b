"""Signals that stop a run: Ctrl-C, and those of schedulers and operating systems.

This module does not import torch, so that signals are handled while torch is imported.
"""

import logging
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from threading import Thread, current_thread, main_thread
from types import FrameType, TracebackType
from typing import Any

log = logging.getLogger("swin_lab")

OF_SCHEDULERS = tuple(name for name in ("SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name))
"""Signals that stop a run from outside. SIGUSR1 is what SLURM can send some time before the end of a job."""
NAMES = ("SIGINT", *OF_SCHEDULERS)
"""Names of all signals that stop a run; SIGINT is Ctrl-C."""


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


class _CtrlC:
    """Handles SIGINT as Python does, and takes note of it: torch goes on with a numpy whose import was interrupted."""

    def __init__(self) -> None:
        self.pressed = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.pressed = True
        raise KeyboardInterrupt


@contextmanager
def ending_at_ctrl_c() -> Iterator[None]:
    """Raises KeyboardInterrupt instead of any error that follows Ctrl-C, such as one of a library that then tidies up."""
    before, ctrl_c = signal.getsignal(signal.SIGINT), _CtrlC()
    handled = callable(before) and current_thread() is main_thread()  # A shell can have it ignored.
    if handled:
        signal.signal(signal.SIGINT, ctrl_c)
    try:
        yield
    except Exception:
        if ctrl_c.pressed:
            raise KeyboardInterrupt from None
        raise
    finally:
        if handled:
            signal.signal(signal.SIGINT, before)


class Interruption:
    """Takes note of the first signal, so that the run can finish its update; the second Ctrl-C ends the run at once.

    As a context, entered once, it has the signals handled until its end. `install` does so again after another library has
    taken them over. SIGHUP stays ignored if the process was started so: nohup keeps a run alive when its terminal is closed.

    Args:
        names: the signals that are handled.
        earlier: handles signals until this one does, and has noted those that came before. If None, nothing does.

    Raises:
        KeyboardInterrupt: on entering, if an earlier Ctrl-C was lost.
    """

    def __init__(self, names: Sequence[str] = NAMES, earlier: "Interruption | None" = None) -> None:
        self.name: str | None = None
        """Name of the first signal. If None, there was none."""
        self._names = names
        self._earlier = earlier
        self._before: dict[str, Any] = {}
        # A signal can arrive while this process writes its log, and neither files nor logging can be entered twice.
        # The handler therefore leaves the message to a thread; SimpleQueue.put is reentrant by its documentation.
        self._first: SimpleQueue[str | None] = SimpleQueue()
        self._logger = Thread(target=_log_first, args=(self._first,), name="signals", daemon=True)

    def __enter__(self) -> "Interruption":
        if isinstance(ctrl_c := signal.getsignal(signal.SIGINT), _CtrlC) and ctrl_c.pressed:
            raise KeyboardInterrupt
        before = {name: signal.getsignal(getattr(signal, name)) for name in self._names}
        self._before = {name: one for name, one in before.items() if (name, one) != ("SIGHUP", signal.SIG_IGN)}
        self._logger.start()
        self.install()
        if self._earlier is not None:
            self.name = self._earlier.name
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for name, handler in self._before.items():
            signal.signal(getattr(signal, name), handler)
        self._first.put(None)
        self._logger.join()

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
            self._first.put(name)


def _log_first(first: "SimpleQueue[str | None]") -> None:
    """Waits for the first signal, or for None at the end of its handling."""
    name = first.get()
    if name is not None:
        with suppress(OSError):  # Whoever reads the output may have left, which the main thread reports.
            log.warning("%s: stopping before the next update, with a checkpoint; Ctrl-C ends the run at once", name)
