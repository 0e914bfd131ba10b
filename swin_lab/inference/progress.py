"""Shows on stderr how far a command has come: a bar on a terminal, else a line every 30 s; and what could not be read."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from swin_lab.errors import printable_line
from swin_lab.training.callbacks import SECONDS_BETWEEN_LINES, clock

Advance = Callable[[int], None]
"""Takes the number of images that were done since the last call."""


@dataclass(frozen=True)
class Summary:
    """Says what a command has done."""

    images: int
    """Images in the result."""
    unreadable: int
    """Images that could not be read."""
    seconds: float
    computed: int
    """Images that this process has computed or found unreadable; others were done by an earlier one."""

    def __str__(self) -> str:
        skipped = f", {self.unreadable:,} could not be read" if self.unreadable else ""
        speed = f", {self.computed / self.seconds:,.1f} images/s" if self.computed else ""
        return f"{self.images:,} images{skipped}{speed}"


def name_loaded(lines: Sequence[tuple[str, str]]) -> None:
    """Prints on stderr which checkpoint was loaded, as (label, text)."""
    for label, text in lines:
        print(f"{label:<10} {printable_line(text)}", file=sys.stderr)


def named_unreadable(lines: Sequence[str]) -> int:
    """Names images that cannot be read on stderr, one per line, and returns their number."""
    for line in lines:
        print(f"unreadable image {line}", file=sys.stderr)
    return len(lines)


@contextmanager
def shown_progress(total: int, done: int = 0) -> Iterator[Advance]:
    """Shows images, images/s and the time left.

    Args:
        total: number of images.
        done: number of images that an earlier process has done.
    """
    start, remaining = perf_counter(), total - done
    finished = 0
    if not sys.stderr.isatty():
        line_at = start

        def advance(images: int) -> None:
            nonlocal finished, line_at
            finished += images
            now = perf_counter()
            if now - line_at >= SECONDS_BETWEEN_LINES and finished:
                line_at, rate = now, finished / (now - start)
                left = clock((remaining - finished) / rate)
                print(f"{done + finished:,}/{total:,} images  {rate:,.0f} images/s  {left} left", file=sys.stderr)

        yield advance
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), TextColumn("left"))
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task("", total=total, completed=done, rate="")

        def advance_bar(images: int) -> None:
            nonlocal finished
            finished += images
            bar.update(task, advance=images, rate=f"{finished / (perf_counter() - start):,.1f} images/s")

        yield advance_bar
