"""Signs of life that the processes of a run give each other over the store that they share after the roll call."""

from collections.abc import Callable, Sequence
from threading import Event, Thread
from time import monotonic

from torch.distributed.distributed_c10d import Store

from swin_lab.run.progress import Place

BEAT_S = 1.0
"""Seconds between two signs of life."""


class Heartbeat:
    """Gives signs of life in a thread, and takes note of those of other processes.

    Args:
        store: with the keys of `call_the_roll`.
        rank: of this process.
        watched: ranks of the others that are noted.
        place: returns how far the main thread of this process has come.
    """

    def __init__(self, store: Store, rank: int, watched: Sequence[int], place: Callable[[], Place]) -> None:
        self.rank = rank
        self.watched = watched
        self.status = dict.fromkeys(watched, "")
        """Rank -> how the process has ended; "" while it runs."""
        self.places = dict.fromkeys(watched, Place())
        """Rank -> how far the main thread of the process has come."""
        self.verdict = ""
        """Why the run ends, as the first process has decided; "" while it goes on."""
        self.alarm = Event()
        """Whether an operation of all processes has failed in one of them."""
        self.store_is_gone = False
        self._store = store
        self._place = place
        self._ended = Event()
        self._beats = dict.fromkeys(watched, (b"", monotonic()))
        self._answered_at = monotonic()
        Thread(target=self._run, name="heartbeat", daemon=True).start()

    def end(self) -> None:
        """Ends the thread."""
        self._ended.set()

    def forgive(self) -> None:
        """Counts silence from now on: this process itself was stopped, for example by Ctrl-Z."""
        self._answered_at = monotonic()
        self._beats = {rank: (beat, self._answered_at) for rank, (beat, _) in self._beats.items()}

    def silence_of(self, rank: int) -> float:
        """Returns the seconds since the last sign of life of a process."""
        return monotonic() - self._beats[rank][1]

    @property
    def silence_of_store(self) -> float:
        """Returns the seconds since the store has last answered."""
        return monotonic() - self._answered_at

    def all_have_ended(self) -> bool:
        """Returns whether every watched process has said how it ends."""
        return all(self._store.multi_get([f"status/{rank}" for rank in self.watched]))

    def status_now(self, rank: int) -> str:
        """Returns how a process has ended, as the store knows it at this moment."""
        return self._store.get(f"status/{rank}").decode()

    def machine_of(self, rank: int) -> str:
        """Returns the name of the machine of a process."""
        return self._store.get(f"name/{rank}").decode()

    def tell_status(self, status: str) -> None:
        """Tells the others how this process ends."""
        self._store.set(f"status/{self.rank}", status)

    def tell_verdict(self, verdict: str) -> None:
        """Tells the others why the run ends."""
        self._store.set("verdict", verdict)

    def _run(self) -> None:
        """Only this thread waits for the store, which may hang."""
        keys = [f"{key}/{rank}" for rank in self.watched for key in ("beat", "status", "place")]
        while not self._ended.wait(BEAT_S):
            try:
                self._store.add(f"beat/{self.rank}", 1)
                self._store.set(f"place/{self.rank}", str(self._place()))
                if self.alarm.is_set():
                    self._store.set("alarm", "1")
                verdict, alarm, *values = self._store.multi_get(["verdict", "alarm", *keys])
            except RuntimeError:
                self.store_is_gone = True
                return
            now = self._answered_at = monotonic()
            for rank, beat, status, place in zip(self.watched, values[::3], values[1::3], values[2::3], strict=True):
                if self._beats[rank][0] != beat:
                    self._beats[rank] = beat, now
                self.status[rank] = status.decode()
                self.places[rank] = Place.of(place.decode())
            if alarm:
                self.alarm.set()
            self.verdict = verdict.decode()
