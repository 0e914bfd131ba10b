"""Writes figures."""

from pathlib import Path

from matplotlib.figure import Figure

from swin_lab.errors import UserError


def write_figure(figure: Figure, file: Path, *, dpi: int) -> None:
    """Writes a figure as a PNG file; raises UserError if the file cannot be written."""
    try:
        figure.savefig(file, dpi=dpi)
    except OSError as error:
        raise UserError(f"cannot write {file}: {(error.strerror or str(error)).lower()}") from error
