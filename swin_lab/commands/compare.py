"""`swin-lab compare`: runs in a table, as CSV, or as a page."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from swin_lab.errors import UserError

MAX_UNREADABLE = 10
"""Number of unreadable runs that are named."""


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN", help="Run directories, folders that contain runs at any depth, or patterns; as many as wanted."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="A page (.html) or a table (.csv) that is written.", show_default=False
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", metavar="", help="Replace the file if it exists.")] = False,
) -> None:
    """Compare runs, also unfinished ones: metrics, and the configuration values that differ.

    Example: [bold]swin-lab compare runs/sweeps/2026-01-31_12-00-00 -o page.html[/bold]
    """
    file = None if out is None else out.expanduser().absolute()
    if file is None and overwrite:
        raise UserError("--overwrite has no effect without --out FILE")
    if file is not None:
        _check_file(file, overwrite)
    from swin_lab.report import print_lines, shorter
    from swin_lab.report.compare import print_runs, read_runs, write_csv, write_page

    found, unreadable = read_runs(runs)
    for line in unreadable[:MAX_UNREADABLE]:
        print(f"skipped: {line}", file=sys.stderr)
    if len(unreadable) > MAX_UNREADABLE:
        print(f"skipped: {len(unreadable) - MAX_UNREADABLE} more", file=sys.stderr)
    print_runs(found)
    if file is not None:
        (write_csv if file.suffix.lower() == ".csv" else write_page)(found, file)
        print_lines([("written", shorter(file))])


def _check_file(file: Path, overwrite: bool) -> None:
    if file.suffix.lower() not in (".html", ".csv"):
        raise UserError(f"{file}: the name of the file must end with .html (a page) or .csv (a table)")
    if file.is_dir() or not file.parent.is_dir():
        raise UserError(f"{file}: give a file in a folder that exists")
    if file.exists() and not overwrite:
        raise UserError(f"{file} exists; choose another name, or allow it with --overwrite")
