"""The worked example, sentence by sentence: a 32x32 image through patches of 4, C = 64 and windows of 4."""

import pytest
import torch

from swin_lab import create_model
from swin_lab.ops import geometry
from swin_lab.ops.reference import softmax_attention
from swin_lab.ops.window_attention import BACKENDS
from swin_lab.ops.windows import attend_in_windows

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("swin_micro_patch4_window4_32", num_classes=10).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def image():
    return torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def heard(model, image, monkeypatch):
    """Returns the query shapes of every attention in order: (B, windows, heads, tokens, channels per head)."""
    shapes = []

    def listen(q, k, v, bias, scale):
        shapes.append(tuple(q.shape))
        return softmax_attention(q, k, v, bias, scale)

    monkeypatch.setitem(BACKENDS, "auto", lambda *arguments: attend_in_windows(*arguments, listen))
    model(image)
    return shapes


def test_a_32x32_image_in_three_colours_is_64_patches_of_48_values(image):
    patches = geometry.partition(image.permute(0, 2, 3, 1), (4, 4)).flatten(2)
    assert patches.shape == (1, 64, 48)


def test_each_patch_becomes_64_numbers_by_one_linear_map_of_its_48_values(model, image):
    weight = model.embed.proj.weight.permute(0, 2, 3, 1).reshape(64, 48)
    patches = geometry.partition(image.permute(0, 2, 3, 1), (4, 4)).flatten(2)
    by_hand = model.embed.norm(patches @ weight.T + model.embed.proj.bias)
    torch.testing.assert_close(model.embed(image).reshape(1, 64, 64), by_hand, atol=1e-5, rtol=0)


def test_after_embedding_the_map_is_8x8x64(model, image):
    assert model.embed(image).shape == (1, 8, 8, 64)


def test_the_map_is_split_into_four_windows_of_16_tokens(model, image):
    assert geometry.partition(model.embed(image), (4, 4)).shape == (1, 4, 16, 64)


def test_every_head_takes_16x16_which_is_256_dot_products_in_each_window(model, image, monkeypatch):
    batch, windows, heads, tokens, channels = heard(model, image, monkeypatch)[0]
    assert (batch, windows, tokens, heads * channels) == (1, 4, 16, 64)
    assert tokens * tokens == 256
    assert geometry.relative_position_index((4, 4), CPU).numel() == 256


def test_the_256_pairs_share_49_biases_per_head(model):
    attention = model.stages[0].blocks[0].attn
    assert attention.relative_position_bias_table.shape == (7 * 7, attention.num_heads)


def test_the_first_block_leaves_windows_in_place_and_the_second_shifts_them_by_two(model):
    assert [block.attn.shift for block in model.stages[0].blocks] == [(0, 0), (2, 2)]


def test_of_the_four_shifted_windows_one_is_whole_two_are_halves_and_one_is_quarters():
    allowed = geometry.shift_mask((8, 8), (4, 4), (2, 2), CPU) == 0
    assert allowed.sum(dim=(1, 2)).tolist() == [256, 2 * 64, 2 * 64, 4 * 16]


def test_the_shift_adds_no_window(model, image, monkeypatch):
    first, second = heard(model, image, monkeypatch)[:2]
    assert first == second


def test_merging_concatenates_four_neighbours_to_4x4x256_and_reduces_them_to_4x4x128(model, image):
    stage_one = model.stages[0](model.embed(image))
    assert stage_one.shape == (1, 8, 8, 64)
    side_by_side = geometry.merge_neighbours(stage_one)
    assert side_by_side.shape == (1, 4, 4, 256)
    merge = model.stages[1].merge
    assert merge.reduction(merge.norm(side_by_side)).shape == (1, 4, 4, 128)
    assert merge(stage_one).shape == (1, 4, 4, 128)


def test_in_the_second_stage_one_window_sees_the_whole_map_and_has_nothing_to_shift(model, image, monkeypatch):
    assert [(windows, tokens) for _, windows, _, tokens, _ in heard(model, image, monkeypatch)[2:]] == [(1, 16), (1, 16)]
    assert geometry.fit_window((4, 4), (4, 4), (2, 2)) == ((4, 4), (0, 0))


def test_the_mean_of_16_tokens_of_128_numbers_becomes_ten_logits(model, image):
    assert model.features(image)[-1].shape == (1, 128, 4, 4)
    assert model.embedding(image).shape == (1, 128)
    assert model(image).shape == (1, 10)
