"""Heat maps on an image, and relative position bias, as PNG files."""

import numpy as np
import pytest
from PIL import Image

from swin_lab.errors import UserError
from swin_lab.report import BiasMaps, HeatMap, draw_attention, draw_position_bias

RANDOM = np.random.default_rng(0)


def heat_map(title="stage 1", **given) -> HeatMap:
    return HeatMap(title, RANDOM.random((6, 8)), "attention", 4, **given)


@pytest.mark.parametrize(("count", "size", "channels"), [(1, (24, 32), 3), (5, (24, 32), 1), (13, (240, 32), 3)])
def test_the_file_is_a_png_with_room_for_every_map(tmp_path, count, size, channels):
    file = tmp_path / "a.png"
    draw_attention(RANDOM.random((*size, channels)), [heat_map() for _ in range(count)], file, title="an image")
    with Image.open(file) as image:
        assert image.format == "PNG"
        assert image.width * image.height > (count + 1) * 150 * 150


def test_windows_and_a_marked_token_change_the_drawing(tmp_path):
    drawn = []
    values = heat_map()
    for given in ({}, {"windows": ((4, 4), (2, 2))}, {"marked": (3, 5)}):
        file = tmp_path / f"{len(drawn)}.png"
        changed = HeatMap(values.title, values.values_HW, values.label, values.stride, **given)
        draw_attention(np.zeros((24, 32, 3)), [changed], file, title="x")
        drawn.append(file.read_bytes())
    assert len(set(drawn)) == 3


@pytest.mark.parametrize("title", ["$5_ to $6_", "a" * 500, "two\nlines", ""])
def test_any_title_is_drawn(tmp_path, title):
    draw_attention(np.zeros((24, 32, 3)), [heat_map(title)], tmp_path / "a.png", title=title)
    assert (tmp_path / "a.png").is_file()


@pytest.mark.parametrize("heads", [(1,), (3,), tuple(range(1, 17))])
def test_the_bias_of_every_head_is_drawn(tmp_path, heads):
    blocks = [BiasMaps("stage 1", RANDOM.random((len(heads), 7, 5)), heads), BiasMaps("stage 2", np.zeros((1, 1, 1)), (1,))]
    draw_position_bias(blocks, tmp_path / "bias.png", title="bias")
    with Image.open(tmp_path / "bias.png") as image:
        assert min(image.size) > 200


def test_a_file_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot write"):
        draw_attention(np.zeros((24, 32, 3)), [heat_map()], tmp_path / "nowhere" / "a.png", title="x")
