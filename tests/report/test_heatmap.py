"""A matrix of counts as a PNG file."""

import numpy as np
import pytest
from PIL import Image

from swin_lab.errors import UserError
from swin_lab.report import draw_heatmap
from swin_lab.report.heatmap import group_rows


def drawn(file, names, counts):
    draw_heatmap(np.asarray(counts), names, file, row="truth", column="prediction", title="top-1 90%")
    return file


@pytest.mark.parametrize("count", [2, 10, 30, 60, 300])
def test_the_file_is_a_png_that_opens(tmp_path, count):
    counts = np.random.default_rng(0).integers(0, 9, (count, count))
    with Image.open(drawn(tmp_path / "a.png", [f"class {i}" for i in range(count)], counts)) as image:
        assert image.format == "PNG"
        assert min(image.size) > 300


def test_many_classes_are_grouped_so_that_classes_which_are_confused_are_neighbours():
    """Every class is confused with the one that is 50 further on: each is in the group of its partner, or next to it."""
    counts = 90 * np.eye(100, dtype=int) + 10 * np.roll(np.eye(100, dtype=int), 50, axis=1)
    groups = group_rows(counts)
    assert sorted(np.concatenate(groups)) == list(range(100))
    assert {len(group) for group in groups} == {4}
    order = list(np.concatenate(groups))
    assert all(abs(order.index(row) - order.index((row + 50) % 100)) == 1 for row in range(100))


def test_rows_without_counts_are_drawn_without_a_warning(tmp_path, recwarn):
    drawn(tmp_path / "a.png", list("abc"), [[8, 2, 0], [1, 3, 1], [0, 0, 0]])
    assert [str(warning.message) for warning in recwarn if "divide" in str(warning.message)] == []


def test_the_darkest_cell_has_the_largest_share(tmp_path):
    """Counts on the diagonal alone make it dark: the corners of the two matrices differ as light from dark."""
    files = drawn(tmp_path / "a.png", list("ab"), np.diag([5, 5])), drawn(tmp_path / "b.png", list("ab"), np.diag([5, 5])[::-1])
    diagonal, other = (np.asarray(Image.open(file).convert("L"), int) for file in files)
    height, width = diagonal.shape
    upper_left = np.s_[height // 4 : height // 3, width // 4 : width // 3]
    assert np.median(diagonal[upper_left]) + 100 < np.median(other[upper_left])


@pytest.mark.parametrize("name", ["$5_ to $6_", r"a$\frac$b", "50% off", "__init__"])
def test_a_name_that_looks_like_a_formula_is_drawn_as_text(tmp_path, name):
    assert drawn(tmp_path / "a.png", [name, "x"], np.eye(2, dtype=int)).is_file()


def test_a_file_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"cannot write .*nowhere/a.png: no such file or directory"):
        drawn(tmp_path / "nowhere" / "a.png", list("ab"), np.eye(2))
