"""Writes the result of a benchmark: JSON with all numbers, a table in Markdown, and a chart."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swin_lab.errors import UserError
from swin_lab.report.bars import Bar, draw_bars
from swin_lab.report.summary import shorter

ENDINGS = (".json", ".md", ".png")


@dataclass(frozen=True)
class Shown:
    """A table that is printed and written."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    """Lines below the table."""
    left: Sequence[str] = ()
    """Columns that are aligned to the left, besides the first."""


@dataclass(frozen=True)
class Result:
    """Contains all that a benchmark shows."""

    kind: str
    """Name of the benchmark."""
    header: Sequence[tuple[str, str]]
    """What is compared, on what."""
    tables: Sequence[Shown]
    groups: Sequence[tuple[str, Sequence[Bar]]]
    """Title and bars of every plot."""
    unit: str
    values: dict[str, Any]
    """Plain Python: all numbers."""


def check_out(folder: Path | None, name: str | None, kind: str, overwrite: bool) -> str:
    """Checks the options of the files of a result; writes nothing.

    Args:
        folder: of the files. If None, nothing will be written.
        name: of the files, without ending. If None, they are named after the benchmark.
        kind: name of the benchmark.
        overwrite: whether existing files may be overwritten.

    Returns:
        The name of the files.

    Raises:
        UserError: files exist, the name is none, or an option has no effect.
    """
    if folder is None:
        if overwrite or name is not None:
            raise UserError(f"{'--overwrite' if overwrite else '--name'} has no effect without --out DIR")
        return kind
    file = kind if name is None else name
    if Path(file).name != file:
        raise UserError(f"--name={name} cannot be the name of a file")
    existing = [folder / f"{file}{ending}" for ending in ENDINGS if (folder / f"{file}{ending}").exists()]
    if existing and not overwrite:
        raise UserError(f"{shorter(existing[0])} exists; choose another --out or --name, or allow it with --overwrite")
    return file


def create_out(folder: Path | None) -> None:
    """Creates the folder of the files before the measurement; raises UserError if that is not possible."""
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out={folder} cannot be created: {(error.strerror or str(error)).lower()}") from error


def print_result(result: Result) -> None:
    """Prints the header and the tables on the terminal."""
    from swin_lab.report import print_lines, print_table

    print_lines(list(result.header))
    for table in result.tables:
        print(f"\n{table.title}")
        print_table(table.columns, table.rows, left=table.left, framed=False)
        for note in table.notes:
            print(note)


def write_result(result: Result, machine: dict[str, Any], folder: Path, name: str) -> list[Path]:
    """Writes NAME.json, NAME.md and NAME.png into a folder and returns them.

    Raises:
        UserError: a file cannot be written.
    """
    files = [folder / f"{name}{ending}" for ending in ENDINGS]
    content = {"kind": result.kind, "header": dict(result.header), "machine": machine, **result.values}
    try:
        files[1].write_text(_markdown(result, machine))
        draw_bars(result.groups, files[2], title="\n".join(text for _, text in result.header[:2]), unit=result.unit)
        files[0].write_text(json.dumps(content, indent=1) + "\n")  # last: its existence says that the result is complete
    except OSError as error:
        raise UserError(f"cannot write {error.filename}: {(error.strerror or str(error)).lower()}") from error
    return files


def _markdown(result: Result, machine: dict[str, Any]) -> str:
    lines = [f"# {result.kind}", "", *(f"- {label}: {text}" for label, text in result.header)]
    git, versions = machine["git"], machine["versions"]
    commit = "not a checkout" if git is None else git["commit"][:12] + (", with changes" if git["changed"] else "")
    lines += [
        f"- machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; GPU: {machine['gpu'] or 'none'}",
        f"- versions: {', '.join(f'{name} {number}' for name, number in versions.items() if number)}",
        f"- commit: {commit}; {machine['date']}",
        f"- command: `{machine['command']}`",
    ]
    for table in result.tables:
        lines += ["", f"## {table.title}", "", f"| {' | '.join(table.columns)} |"]
        lines += [f"|{'|'.join('---' if c == table.columns[0] or c in table.left else '---:' for c in table.columns)}|"]
        lines += [f"| {' | '.join(cell.strip() for cell in row)} |" for row in table.rows]
        lines += ["", *(f"{note}  " for note in table.notes)] if table.notes else []
    return "\n".join(lines).rstrip() + "\n"
