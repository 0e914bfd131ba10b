"""Contact sheets of the images that `swin-lab search` and `duplicates` have found."""

from collections.abc import Sequence
from pathlib import Path

from swin_lab.errors import UserError
from swin_lab.inference.duplicates import Pair
from swin_lab.inference.search import Match, Queries
from swin_lab.inference.thumbnails import Thumbnails
from swin_lab.inference.whole_files import written_whole
from swin_lab.report.contact_sheet import MAX_ROWS, SIDE, Mark, Tile, draw_contact_sheet

PAIRS_ACROSS = 4
"""Pairs that stand next to each other on a sheet."""


def draw_matches(queries: Queries, matches: Sequence[Sequence[Match]], out: Path, title: str) -> None:
    """Writes a sheet with a row for each query: the query, and what was found.

    Images that cannot be read again are named on stderr.

    Args:
        queries: at most as many as a sheet has rows.
        matches: the images of each query, the most similar first.
        out: the sheet; an existing file is replaced.
        title: of the sheet.
    """
    paths = [*queries.names, *(match.path for found in matches for match in found)]
    read = Thumbnails(list(dict.fromkeys(paths)), SIDE)
    rows = []
    for name, label, found in zip(queries.names, queries.labels, matches, strict=True):
        query = Tile(read(name), [*filter(None, [label])], name, "query")
        rows.append([query, *(_tile(read, match.path, match.label, match.similarity, label) for match in found)])
    _write(rows, read, out, title, "Left: the query." + _legend(queries.labels))


def draw_pairs(pairs: Sequence[Pair], out: Path, title: str, columns: Sequence[str]) -> int:
    """Writes a sheet with a row for each of the first pairs.

    Args:
        pairs: the most similar first; of more than a sheet has rows, the others are left out.
        out: the sheet; an existing file is replaced.
        title: of the sheet.
        columns: what the images on the left and on the right are.

    Returns:
        The number of pairs on the sheet.
    """
    shown = pairs[:MAX_ROWS]
    read = Thumbnails(list(dict.fromkeys(image.path for pair in shown for image in (pair.first, pair.second))), SIDE)
    rows = [
        [
            Tile(read(pair.first.path), [*filter(None, [pair.first.label])], pair.first.path, "query"),
            _tile(read, pair.second.path, pair.second.label, pair.similarity, pair.first.label),
        ]
        for pair in shown
    ]
    labels = [pair.first.label for pair in shown]
    _write(rows, read, out, title, f"Left: {columns[0]}; right: {columns[1]}.{_legend(labels)}", PAIRS_ACROSS)
    return len(rows)


def check_rows(count: int) -> None:
    """Raises UserError if a sheet cannot have a row for each of so many queries."""
    if count > MAX_ROWS:
        raise UserError(f"a sheet has {MAX_ROWS} rows at most, not {count}; give fewer images, or no -o")


def _tile(read: Thumbnails, path: str, label: str | None, similarity: float, of_query: str | None) -> Tile:
    mark: Mark = "plain" if label is None or of_query is None else "same" if label == of_query else "other"
    return Tile(read(path), [f"{similarity:.3f}  {label or ''}"], path, mark)


def _legend(labels: Sequence[str | None]) -> str:
    return " Blue frame: the same class; orange frame: another class." if any(label is not None for label in labels) else ""


def _write(rows: Sequence[Sequence[Tile]], read: Thumbnails, out: Path, title: str, note: str, across: int = 1) -> None:
    read.name_missing()
    with written_whole(out) as unfinished:
        draw_contact_sheet(rows, unfinished, title=title, note=note, across=across)
