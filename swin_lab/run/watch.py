"""Watching the processes of a run on several devices: one that does not arrive, dies or hangs is named, and the others end.

PyTorch's collectives only wait for a process that has gone, for half an hour, and Lightning kills the first process when
another one that it has started dies. Here every process gives signs of life to PyTorch's TCPStore, at the address of the
process group. The first process watches all others, and the others watch the first one.
"""

import os
import signal
import sys
from collections.abc import Callable
from subprocess import Popen
from threading import Event, Thread
from time import monotonic, sleep
from types import TracebackType
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from torch.distributed.distributed_c10d import Store

from swin_lab.errors import UserError
from swin_lab.run.ending import LOST, WRONG_INPUT, StoppedRunError
from swin_lab.run.heartbeat import BEAT_S, Heartbeat
from swin_lab.run.progress import Comparison, Progress, main_thread_is_at
from swin_lab.run.roll_call import LOOK_S, call_the_roll, environment_of

ALARM_S = 10.0
"""Seconds without a sign of life after which a process is lost, once a collective operation has failed."""
FAREWELL_S = 5.0
"""Seconds that the first process gives the others to learn why the run ends."""
OK, REFUSED, FAILED = "ok", "refused", "failed"
"""How a process has ended: as it should, with a message to its user, or with any other error."""


class Watch:
    """Watches the processes of a run, from `start` or, where something else has started them, from its beginning as a context.

    Args:
        trainer: a Trainer, which knows the processes and what starts them.
        timeout_s: seconds after which a process that does not arrive, or gives no sign of life, is lost.
    """

    def __init__(self, trainer: Trainer, timeout_s: float) -> None:
        self.world_size, self.rank = int(trainer.world_size), int(trainer.global_rank)
        self.timeout_s = timeout_s
        self.advice: Callable[[], str] = str
        """Returns what is printed about the way on, after the name of a lost process."""
        self._trainer = trainer
        self._children: list[Popen[Any]] = []
        self._store: Store | None = None
        self._heart: Heartbeat | None = None
        self._ended = Event()
        self._progress = Progress()
        self._comparison = Comparison(timeout_s)

    def __enter__(self) -> "Watch":
        if self.world_size > 1 and environment_of(self._trainer).creates_processes_externally:
            self._begin(self._trainer)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        refused = isinstance(error, UserError | OSError | SystemExit)
        self._leave(OK if error is None or isinstance(error, StoppedRunError) else REFUSED if refused else FAILED)

    def start(self, trainer: Trainer) -> None:
        """Starts the further processes on this machine, unless something else has, and waits until all have arrived.

        Raises:
            UserError: the port is in use.
            LostRankError: a process does not arrive.
        """
        if self.world_size == 1:
            return
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        callbacks[:] = [self._progress, *callbacks, self._progress]  # before and after what may hang, or wait for the others
        if self._heart is not None:
            return
        launcher = trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher) and not environment_of(trainer).creates_processes_externally:
            launcher._call_children_scripts()  # Lightning would start its observer, which kills this process, as well.
            self._children = launcher.procs
        try:
            self._begin(trainer)
        except BaseException:
            self._kill_children()
            raise

    def shared(self, name: str, make: Callable[[], str]) -> str:
        """Returns the text that the first process makes, under a name of its own; the others wait for it."""
        if self.rank == 0 or self._store is None:
            text = make()
            if self._store is not None:
                self._store.set(name, text)
            return text
        while not self._store.check([name]):  # Waiting in `get` would keep the heartbeat from the store.
            sleep(LOOK_S)
        return self._store.get(name).decode()

    def blame_others(self) -> None:
        """Is called after an operation of all processes has failed; does not return if another process is the cause."""
        if self._heart is not None:
            self._heart.alarm.set()
            sleep(ALARM_S + FAREWELL_S)

    def _begin(self, trainer: Trainer) -> None:
        def ended() -> list[int]:
            return [self.rank + number for number, child in enumerate(self._children, 1) if child.poll() is not None]

        self._store = call_the_roll(trainer, self.timeout_s, ended)
        watched = range(1, self.world_size) if self.rank == 0 else [0]
        self._heart = Heartbeat(self._store, self.rank, watched, lambda: self._progress.place)
        Thread(target=self._judge, args=(self._heart,), name="watch", daemon=True).start()

    def _judge(self, heart: Heartbeat) -> None:
        """Ends this process when another one is lost."""
        before = monotonic()
        while not self._ended.wait(BEAT_S):
            if monotonic() - before > 3 * BEAT_S:
                heart.forgive()
                self._comparison.forget()
            before = monotonic()
            loss = self._loss(heart)
            if loss is not None and not self._ended.is_set():
                self._end(heart, loss)

    def _loss(self, heart: Heartbeat) -> str | None:
        """Returns what has happened to another process; "" if it has printed that itself, and None if nothing has."""
        limit = min(ALARM_S, self.timeout_s) if heart.alarm.is_set() else self.timeout_s
        if heart.verdict:
            return heart.verdict
        if heart.store_is_gone or heart.silence_of_store > limit:
            return f"rank 0 of {self.world_size}, to which all others are connected, was killed, hangs, or cannot be reached"
        for rank, child in enumerate(self._children, self.rank + 1):
            if child.poll() and not heart.status_now(rank):
                return f"{self._name(heart, rank)} {_how(child.returncode)}"
        for rank in heart.watched:
            silence = heart.silence_of(rank)
            if heart.status[rank] == REFUSED:
                return ""
            if heart.status[rank] == FAILED:
                return f"{self._name(heart, rank)} has failed with an error that it has printed"
            if not heart.status[rank] and silence > limit:
                return f"{self._name(heart, rank)} has given no sign of life for {silence:.0f} s: it was killed, or it hangs"
        return self._standstill(heart) if self.rank == 0 else None

    def _standstill(self, heart: Heartbeat) -> str | None:
        """Returns which process lives but does not go on, so that all others wait for it; None if all go on."""
        places = {rank: place for rank, place in heart.places.items() if not heart.status[rank]}
        rank = self._comparison.stuck(places | {self.rank: self._progress.place})
        if rank is None:
            return None
        return f"{self._name(heart, rank)} hangs: others have waited for it for {self.timeout_s:g} s (rank_timeout)"

    def _name(self, heart: Heartbeat, rank: int) -> str:
        return f"rank {rank} of {self.world_size} on {heart.machine_of(rank)}"

    def _end(self, heart: Heartbeat, loss: str) -> None:
        if loss:
            own = loss.startswith(f"rank {self.rank} of {self.world_size} on ")  # The store may be gone, which knows machines.
            place = f"; its main thread is at {main_thread_is_at()}" if own else ""
            print(f"error: {loss}{place}\n{self.advice()}", file=sys.stderr, flush=True)
            if self.rank == 0:
                heart.tell_verdict(loss)
        self._leave(FAILED if loss else REFUSED)
        sys.stdout.flush()
        os._exit(LOST if loss else WRONG_INPUT)  # The main thread may wait for the lost process.

    def _leave(self, status: str) -> None:
        """Says how this process ends; the first one, to which the others are connected, leaves as the last one."""
        self._ended.set()
        if self._heart is None:
            return
        self._heart.end()
        until = monotonic() + (self.timeout_s if status == OK else FAREWELL_S)
        if not self._heart.store_is_gone and self._heart.silence_of_store < self.timeout_s:
            try:
                self._heart.tell_status(status)
                while self.rank == 0 and not self._heart.all_have_ended() and monotonic() < until:
                    sleep(LOOK_S)
            except RuntimeError:  # The first process has gone.
                pass
        if status != OK:
            self._kill_children()

    def _kill_children(self) -> None:
        for child in self._children:
            if child.poll() is None:
                child.kill()  # It may be stopped, and would not see another signal.


def _how(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"has ended with exit code {code}"
