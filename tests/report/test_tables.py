"""Tables on the terminal."""

import io

import pytest
from rich.console import Console

from swin_lab.report import print_lines, print_table

ROWS = [["ant", "[red]x[/red]", "7"], ["a bee", "y", "1,000"]]


def printed(**options) -> list[str]:
    console = Console(width=60, file=io.StringIO(), record=True)
    print_table(["name", "note", "number"], ROWS, console=console, **options)
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_cells_are_printed_literally():
    assert any("[red]x[/red]" in line for line in printed())


def test_numbers_are_aligned_to_the_right_and_names_to_the_left():
    assert printed(framed=False, left=["note"]) == [
        "name   note          number",
        "ant    [red]x[/red]       7",
        "a bee  y              1,000",
    ]


def test_the_title_is_above_the_frame():
    lines = printed(title="All [2] rows")
    assert lines[0] == "All [2] rows"
    assert lines[1].startswith("┏")


def test_labels_are_padded(capsys: pytest.CaptureFixture[str]):
    print_lines([("written", "a file"), ("use", "it")])
    assert capsys.readouterr().out == "written    a file\nuse        it\n"
