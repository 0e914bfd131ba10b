"""Which tokens attend to which: windows, shifted windows, the border of the cyclic shift, and padding."""

import pytest
import torch

from swin_lab.models.attention import WindowAttention
from swin_lab.models.swin import SwinBlock
from swin_lab.ops import window_attention

WINDOW = 4


def block(shifted):
    """Returns a block in double precision and with large biases, so that a token changes every output that it reaches."""
    torch.manual_seed(0)
    attention = WindowAttention(8, 2, (WINDOW, WINDOW), shifted, True, "auto")
    made = SwinBlock(attention, dim=8, mlp_ratio=2.0, drop_path=0.0)
    torch.nn.init.normal_(made.attn.relative_position_bias_table)
    torch.nn.init.normal_(made.attn.qkv.bias)
    return made.double().eval()


def tokens(*size, seed=1):
    return torch.randn(1, *size, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reached_by(network, size, touched):
    """Returns a mask (H, W) of the positions whose output changes with the input at `touched` (row, column)."""
    x = tokens(*size)
    other = x.clone()
    other[:, *touched] = tokens(seed=2)
    return (network(x) != network(other)).any(dim=-1)[0]


def region(size, rows, columns):
    mask = torch.zeros(size, dtype=torch.bool)
    mask[rows, columns] = True
    return mask


@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
def test_a_token_reaches_exactly_its_window(size):
    reached = reached_by(block(shifted=False), size, (5, 2))
    assert torch.equal(reached, region(size, slice(4, 8), slice(0, 4)))


@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
def test_after_the_shift_a_token_reaches_across_the_border_of_the_old_windows(size):
    reached = reached_by(block(shifted=True), size, (3, 3))
    assert torch.equal(reached, region(size, slice(2, 6), slice(2, 6)))


def border(side, end):
    """Returns the rows or columns of the first (end 0) or last (end -1) window when windows are shifted by 2."""
    return slice(0, 2) if end == 0 else slice(side - ((side - 2) % WINDOW or WINDOW), side)


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (6, 6), (5, 9)])
@pytest.mark.parametrize("corner", [(0, 0), (0, -1), (-1, 0), (-1, -1)])
def test_the_cyclic_shift_lets_no_corner_see_the_opposite_one(size, corner):
    reached = reached_by(block(shifted=True), size, corner)
    assert torch.equal(reached, region(size, border(size[0], corner[0]), border(size[1], corner[1])))


def test_two_blocks_carry_a_token_into_its_neighbouring_windows():
    reached = reached_by(torch.nn.Sequential(block(shifted=False), block(shifted=True)), (8, 8), (0, 0))
    assert torch.equal(reached, region((8, 8), slice(0, 6), slice(0, 6)))


def test_a_whole_window_of_a_padded_map_gives_what_it_gives_alone():
    x = tokens(6, 7)
    made = block(shifted=False)
    torch.testing.assert_close(made(x)[:, :4, :4], made(x[:, :4, :4]), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("size", "shift", "rows", "columns"),
    [
        ((6, 10), (0, 0), slice(0, 4), slice(0, 8)),
        ((7, 9), (2, 2), slice(0, 6), slice(0, 6)),
        ((10, 7), (2, 2), slice(0, 10), slice(0, 6)),
        ((6, 6), (2, 2), slice(0, 6), slice(0, 6)),
    ],
)
def test_padding_is_seen_by_the_windows_it_fills_and_by_no_other(size, shift, rows, columns):
    generator = torch.Generator().manual_seed(0)
    qkv, table = torch.randn(1, *size, 24, generator=generator), torch.randn(49, 2, generator=generator)

    def attend(padding):
        return window_attention(qkv, table, num_heads=2, window=(4, 4), shift=shift, pad_value=padding)

    unseen = (attend(torch.zeros(24)) == attend(torch.ones(24))).all(dim=-1)[0]
    assert torch.equal(unseen, region(size, rows, columns))


def test_a_padding_token_is_a_zero_before_the_linear_layer_that_makes_queries_keys_and_values():
    attention = block(shifted=True).attn
    x = tokens(7, 6)
    padded = torch.zeros(1, 8, 8, 8, dtype=torch.float64)
    padded[:, :7, :6] = x
    torch.testing.assert_close(attention(x), attention(padded)[:, :7, :6], atol=1e-12, rtol=0)
