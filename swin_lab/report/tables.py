"""Tables on the terminal. Cells are printed literally: square brackets in them are not read as markup."""

from collections.abc import Collection, Sequence

import rich
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from swin_lab.errors import printable_line


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str | None = None,
    left: Collection[str] = (),
    framed: bool = True,
    console: Console | None = None,
) -> None:
    """Prints rows under column names.

    Args:
        columns: names of the columns, all different.
        rows: one string per column.
        title: printed above the table. If None, there is no title.
        left: names of the columns that are aligned to the left, besides the first; numbers are aligned to the right.
        framed: whether lines are drawn around the cells.
        console: where to print. If None, to the terminal.
    """
    table = Table(title=None if title is None else escape(title), title_justify="left", title_style="bold")
    if not framed:
        table.box, table.padding, table.pad_edge = None, (0, 2, 0, 0), False
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 or column in left else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    (console or rich.get_console()).print(table)


def print_rows(rows: Sequence[tuple[str, str]], *, title: str | None = None) -> None:
    """Prints labelled values in a frame, under a title that is never wrapped, so that it can be copied.

    Args:
        rows: labels and values.
        title: printed above the table. If None, there is no title.
    """
    console = rich.get_console()
    table = Table(show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(label, escape(value))
    if title is not None:
        console.print(f"\n{title}", markup=False, highlight=False, soft_wrap=True)
    console.print(table)


def print_lines(lines: Sequence[tuple[str, str]]) -> None:
    """Prints labels and texts next to each other, without a frame and unwrapped."""
    for label, text in lines:
        print(f"{label:<10} {printable_line(text)}")
