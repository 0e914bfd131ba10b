"""Contact sheets: what is drawn where."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from swin_lab.errors import UserError
from swin_lab.report.contact_sheet import FRAMES, GAP, MARGIN, MAX_ROWS, SIDE, Tile, draw_contact_sheet

RED, GREEN = (255, 0, 0), (0, 128, 0)


def drawn(rows: list[list[Tile]], tmp_path: Path, **texts: str) -> np.ndarray:
    """Returns the pixels of a sheet, (H, W, 3)."""
    draw_contact_sheet(rows, tmp_path / "sheet.png", **{"title": "a title", **texts})
    return np.asarray(Image.open(tmp_path / "sheet.png"))


def position_of(colour: tuple[int, int, int], pixels: np.ndarray) -> tuple[int, int, int, int]:
    """Returns the first row and column of a colour and the height and width of what has it."""
    y, x = np.nonzero((pixels == colour).all(axis=2))
    return int(y.min()), int(x.min()), int(np.ptp(y)) + 1, int(np.ptp(x)) + 1


def test_images_are_scaled_to_a_square_and_stand_next_to_each_other(tmp_path: Path) -> None:
    tiles = [Tile(Image.new("RGB", size, colour), ["0.9"]) for size, colour in (((300, 300), RED), ((4, 4), GREEN))]
    pixels = drawn([tiles], tmp_path)
    top, left, *size = position_of(RED, pixels)
    assert size == [SIDE, SIDE]
    top_2, left_2, *size = position_of(GREEN, pixels)
    assert (size, top_2, left_2 - left) == ([SIDE, SIDE], top, SIDE + GAP + 6)


def test_a_wide_image_keeps_its_proportions_and_is_centred(tmp_path: Path) -> None:
    pixels = drawn([[Tile(Image.new("RGB", (400, 100), RED), [])], [Tile(Image.new("RGB", (9, 9), GREEN), [])]], tmp_path)
    top, left, height, width = position_of(RED, pixels)
    assert (height, width) == (SIDE // 4, SIDE)
    assert position_of(GREEN, pixels)[1] == left
    assert position_of(GREEN, pixels)[0] - top == SIDE + 6 + 4 + GAP - (SIDE - SIDE // 4) // 2


def test_the_mark_of_a_tile_is_the_colour_of_its_frame(tmp_path: Path) -> None:
    pixels = drawn([[Tile(Image.new("RGB", (8, 8), RED), [], mark="same"), Tile(None, [], mark="other")]], tmp_path)
    top, left, *_ = position_of(RED, pixels)
    assert "#{:02x}{:02x}{:02x}".format(*pixels[top - 2, left + 9]) == FRAMES["same"]
    assert "#{:02x}{:02x}{:02x}".format(*pixels[top - 2, left + SIDE + GAP + 20]) == FRAMES["other"]


def test_long_captions_do_not_run_into_the_next_tile(tmp_path: Path) -> None:
    pixels = drawn(
        [[Tile(Image.new("RGB", (8, 8), RED), ["x" * 500], "y" * 500), Tile(Image.new("RGB", (8, 8), GREEN), [""])]], tmp_path
    )
    top, left, *_ = position_of(GREEN, pixels)
    below = pixels[top + SIDE + 4 :, left - GAP : left - 3]
    assert (below == 255).all()


def test_a_long_caption_keeps_its_start_and_a_long_path_its_end() -> None:
    caption, path = Tile(None, ["0.993  " + "long " * 20], "folder/" * 20 + "a.png").lines
    assert caption.startswith("0.993  long")
    assert caption.endswith("…")
    assert path.startswith("…")
    assert path.endswith("/a.png")


def test_letters_of_other_alphabets_and_control_characters_are_drawn(tmp_path: Path) -> None:
    assert drawn([[Tile(None, ["žluťoučký кот γάτα"], "a\nb\x07")]], tmp_path, title="naïve → $x$").std() > 0


def test_a_wide_title_is_not_clipped(tmp_path: Path) -> None:
    pixels = drawn([[Tile(None, [])]], tmp_path, title="W" * 60)
    assert (pixels[:, -MARGIN:] == 255).all()


def test_short_rows_stand_next_to_each_other(tmp_path: Path) -> None:
    rows = [[Tile(Image.new("RGB", (8, 8), colour), []), Tile(None, [])] for colour in (RED, GREEN, (0, 0, 255))]
    draw_contact_sheet(rows, tmp_path / "sheet.png", title="a title", across=2)
    pixels = np.asarray(Image.open(tmp_path / "sheet.png"))
    (top, left, *_), (top_2, left_2, *_), (top_3, left_3, *_) = (position_of(c, pixels) for c in (RED, GREEN, (0, 0, 255)))
    assert (top, left) == (top_2, left_3)
    assert left_2 - left > 2 * SIDE
    assert top_3 - top > SIDE
    assert (pixels[:, -MARGIN:] == 255).all()


def test_too_many_rows_and_a_missing_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"at most {MAX_ROWS} rows, not 101"):
        drawn([[Tile(None, [])]] * 101, tmp_path)
    with pytest.raises(UserError, match=r"cannot write .*sheet\.png: no such file or directory"):
        drawn([[Tile(None, [])]], tmp_path / "nowhere")
