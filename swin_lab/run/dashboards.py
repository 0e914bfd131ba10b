"""What the loggers of this project show besides metrics: figures, tables, and the record at the end."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from lightning.pytorch.loggers import Logger

from swin_lab.record import Flat
from swin_lab.run.instantiate import first_line

log = logging.getLogger("swin_lab")


@dataclass(frozen=True)
class Shown:
    """Contains a figure for a dashboard."""

    tag: str
    file: Path
    """The figure as a PNG file."""
    images: Sequence[np.ndarray] = ()
    """The images that it consists of, (H, W, 3) of uint8; none for a plot."""
    captions: Sequence[str] = ()


@runtime_checkable
class Dashboard(Protocol):
    """Defines what a logger of this project shows besides metrics."""

    def show(self, figures: Sequence[Shown], tables: Mapping[str, Mapping[str, Sequence[Any]]], step: int) -> None:
        """Shows figures and tables (tag -> column -> values) at an update."""

    def end(self, record: Flat) -> None:
        """Shows the final record of the run, and ends the run on the dashboard within a bounded time."""


def show(loggers: Sequence[Logger], figures: Sequence[Shown], tables: Mapping[str, Any], step: int) -> None:
    """Shows figures and tables on every dashboard; the client of a service that fails does not end the run.

    Raises:
        OSError: a file cannot be written.
    """
    for logger in loggers:
        if isinstance(logger, Dashboard):
            try:
                logger.show(figures, tables, step)
            except OSError:
                raise
            except Exception as error:
                log.warning("logger %s: %s", type(logger).__name__, first_line(error))


def end_dashboards(loggers: Sequence[Logger], record: Flat) -> None:
    """Ends the run on every dashboard, however the run has ended; one that fails keeps no other from its end."""
    for logger in loggers:
        if isinstance(logger, Dashboard):
            try:
                logger.end(record)
            except Exception as error:  # The client of a service raises anything.
                log.warning("logger %s: %s", type(logger).__name__, first_line(error))
