"""Compares the geometry of windows with loops over positions."""

import pytest
import torch

from swin_lab.ops.geometry import (
    MASKED,
    crop_bias_table,
    fit_window,
    merge_neighbours,
    pad_to_multiple,
    partition,
    region_labels,
    relative_position_index,
    reverse_partition,
    shift_mask,
)

CPU = torch.device("cpu")
MAPS_AND_WINDOWS = [((8, 8), (4, 4)), ((6, 12), (3, 4)), ((5, 7), (5, 7)), ((10, 3), (2, 3)), ((9, 15), (3, 5))]
SHIFTED = [
    ((8, 8), (4, 4), (2, 2)),
    ((6, 12), (3, 4), (1, 2)),
    ((15, 9), (5, 3), (2, 1)),
    ((8, 8), (4, 4), (0, 2)),
    ((8, 4), (4, 4), (2, 0)),
    ((14, 21), (7, 7), (3, 3)),
    ((8, 12), (4, 4), (3, 1)),
]


def numbered(height, width, channels, batch=1):
    """Returns a map in which all values differ."""
    return torch.arange(batch * height * width * channels, dtype=torch.float32).reshape(batch, height, width, channels)


@pytest.mark.parametrize(("size", "multiple", "padded"), [((5, 7), (4, 3), (8, 9)), ((1, 6), (2, 3), (2, 6))])
@pytest.mark.parametrize("value", [None, torch.tensor([-1.0, -2.0])])
def test_padding_is_added_below_and_to_the_right(size, multiple, padded, value):
    x = numbered(*size, 2, batch=2)
    expected = torch.zeros(2, *padded, 2)
    for row in range(padded[0]):
        for column in range(padded[1]):
            if row < size[0] and column < size[1]:
                expected[:, row, column] = x[:, row, column]
            elif value is not None:
                expected[:, row, column] = value
    assert torch.equal(pad_to_multiple(x, multiple, value), expected)


def test_a_map_of_whole_windows_is_not_padded():
    x = numbered(8, 6, 2)
    assert torch.equal(pad_to_multiple(x, (4, 3), torch.ones(2)), x)


def test_the_padding_value_receives_the_gradient_of_every_padded_position():
    value = torch.zeros(2, requires_grad=True)
    pad_to_multiple(numbered(3, 3, 2), (4, 4), value).sum().backward()
    assert value.grad.tolist() == [7.0, 7.0]


@pytest.mark.parametrize(("size", "window"), MAPS_AND_WINDOWS)
def test_windows_are_listed_row_by_row_and_so_are_their_tokens(size, window):
    x = numbered(*size, 3, batch=2)
    expected = [
        [
            x[:, top + row, left + column]
            for row in range(window[0])
            for column in range(window[1])
        ]
        for top in range(0, size[0], window[0])
        for left in range(0, size[1], window[1])
    ]  # fmt: skip
    stacked = torch.stack([torch.stack(tokens, dim=1) for tokens in expected], dim=1)
    assert torch.equal(partition(x, window), stacked)


@pytest.mark.parametrize(("size", "window"), MAPS_AND_WINDOWS)
def test_reversing_a_partition_restores_the_map(size, window):
    x = numbered(*size, 3, batch=2)
    assert torch.equal(reverse_partition(partition(x, window), window, size), x)


@pytest.mark.parametrize(("size", "window", "shift"), SHIFTED)
def test_the_mask_lets_two_tokens_attend_if_their_offset_in_the_image_is_their_offset_in_the_window(size, window, shift):
    mask = shift_mask(size, window, shift, CPU)
    windows_across = size[1] // window[1]
    expected = torch.full_like(mask, MASKED)
    for g in range(mask.shape[0]):
        top, left = (g // windows_across) * window[0], (g % windows_across) * window[1]
        tokens = [(row, column) for row in range(window[0]) for column in range(window[1])]
        origin = [((top + r + shift[0]) % size[0], (left + c + shift[1]) % size[1]) for r, c in tokens]
        for i, a in enumerate(tokens):
            for j, b in enumerate(tokens):
                in_window = (a[0] - b[0], a[1] - b[1])
                in_image = (origin[i][0] - origin[j][0], origin[i][1] - origin[j][1])
                if in_window == in_image:
                    expected[g, i, j] = 0
    assert torch.equal(mask, expected)


def test_the_regions_of_figure_4_on_an_8x8_map_with_windows_of_4_shifted_by_2():
    assert region_labels((8, 8), (4, 4), (2, 2), CPU).tolist() == [
        [0, 0, 0, 0, 1, 1, 2, 2],
        [0, 0, 0, 0, 1, 1, 2, 2],
        [0, 0, 0, 0, 1, 1, 2, 2],
        [0, 0, 0, 0, 1, 1, 2, 2],
        [3, 3, 3, 3, 4, 4, 5, 5],
        [3, 3, 3, 3, 4, 4, 5, 5],
        [6, 6, 6, 6, 7, 7, 8, 8],
        [6, 6, 6, 6, 7, 7, 8, 8],
    ]


def test_a_shift_along_one_axis_splits_regions_along_that_axis_only():
    assert region_labels((8, 8), (4, 4), (0, 1), CPU).unique_consecutive(dim=0).tolist() == [[0, 0, 0, 0, 1, 1, 1, 2]]


@pytest.mark.parametrize("window", [(4, 4), (7, 7), (2, 5), (3, 1)])
def test_the_bias_of_a_pair_of_tokens_depends_on_their_row_and_column_offset(window):
    index = relative_position_index(window, CPU)
    height, width = window
    for query in range(height * width):
        for key in range(height * width):
            rows = query // width - key // width
            columns = query % width - key % width
            assert index[query, key] == (rows + height - 1) * (2 * width - 1) + columns + width - 1


def test_every_row_of_the_bias_table_belongs_to_a_pair_of_tokens():
    assert relative_position_index((4, 3), CPU).unique().tolist() == list(range(7 * 5))


@pytest.mark.parametrize(("window", "table_window"), [((2, 3), (4, 5)), ((3, 7), (7, 7)), ((1, 1), (3, 2)), ((7, 2), (7, 7))])
def test_a_smaller_window_reads_the_middle_of_the_table(window, table_window):
    grid = numbered(2 * table_window[0] - 1, 2 * table_window[1] - 1, 1)[0, :, :, 0]
    middle = (table_window[0] - 1, table_window[1] - 1)
    table = crop_bias_table(grid.reshape(-1, 1), table_window, window)
    found = table[:, 0][relative_position_index(window, CPU)]
    tokens = [(row, column) for row in range(window[0]) for column in range(window[1])]
    for i, a in enumerate(tokens):
        for j, b in enumerate(tokens):
            assert found[i, j] == grid[middle[0] + a[0] - b[0], middle[1] + a[1] - b[1]]


@pytest.mark.parametrize("size", [(4, 6), (5, 6), (4, 3), (7, 5), (1, 1)])
def test_merging_concatenates_down_before_right_and_pads_odd_sides_with_zeros(size):
    x = numbered(*size, 3, batch=2) + 1
    merged = merge_neighbours(x)
    assert merged.shape == (2, -(-size[0] // 2), -(-size[1] // 2), 12)
    for row in range(merged.shape[1]):
        for column in range(merged.shape[2]):
            for k, (down, right) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
                r, c = 2 * row + down, 2 * column + right
                expected = x[:, r, c] if r < size[0] and c < size[1] else torch.zeros(2, 3)
                assert torch.equal(merged[:, row, column, 3 * k : 3 * k + 3], expected)


@pytest.mark.parametrize(
    ("size", "fitted", "shift"),
    [
        ((8, 8), (4, 4), (2, 2)),
        ((5, 9), (4, 4), (2, 2)),
        ((4, 8), (4, 4), (0, 2)),
        ((8, 4), (4, 4), (2, 0)),
        ((3, 8), (3, 4), (0, 2)),
        ((2, 1), (2, 1), (0, 0)),
    ],
)
def test_a_window_of_4_shrinks_to_smaller_maps_and_does_not_shift_where_it_covers_them(size, fitted, shift):
    assert fit_window(size, (4, 4), (2, 2)) == (fitted, shift)


def test_each_axis_is_fitted_independently():
    assert fit_window((5, 5), (7, 3), (3, 1)) == ((5, 3), (0, 1))


def test_constants_are_computed_once_per_window_and_device():
    assert relative_position_index((3, 8), CPU) is relative_position_index((3, 8), CPU)


def test_a_constant_computed_in_inference_mode_can_be_used_by_autograd():
    with torch.inference_mode():
        mask = shift_mask((22, 33), (11, 11), (5, 5), CPU)
    assert not mask.is_inference()
