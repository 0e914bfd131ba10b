"""Where the log goes: to the terminal, and into run.log."""

import logging
import sys
from logging.handlers import WatchedFileHandler
from pathlib import Path

import rich


class LogFile(WatchedFileHandler):
    """Writes the log into run.log, and makes the file again if someone has removed it or its directory.

    A full disk does not stop the run here: everything is printed as well, and what must be written reports the disk.

    Args:
        run_dir: the run directory.
    """

    def __init__(self, run_dir: Path) -> None:
        super().__init__(run_dir / "run.log")
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def reopenIfNeeded(self) -> None:  # noqa: N802  # The standard library's name.
        """Opens the file again if it has been removed."""
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        super().reopenIfNeeded()

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a record."""
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # The standard library's name.
        """Prints the traceback of an error that is not one of the disk."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        """Closes the file."""
        try:
            super().close()
        except OSError:  # Closing writes what a full disk has not taken.
            self.handleError(logging.makeLogRecord({}))


class Console(logging.Handler):
    """Prints the log, above a progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a record."""
        prefix = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        rich.get_console().print(prefix + record.getMessage(), markup=False, highlight=False, soft_wrap=True)
