"""Attention weights, rollout and class activation of a network that is run once."""

import pytest
import torch

from swin_lab import SwinConfig, SwinTransformer
from swin_lab.errors import UserError
from swin_lab.models.inspection import inspect
from swin_lab.ops.windows import unit

NETWORKS = {
    "the worked example": ({"img_size": 32, "window_size": 4}, (32, 32)),
    "maps that windows do not divide": ({"img_size": 32, "window_size": 4}, (38, 45)),
    "maps smaller than a window": ({"img_size": 64, "window_size": 8}, (20, 52)),
    "V2": ({"version": 2, "img_size": 32, "window_size": 4}, (32, 32)),
    "V2 with padding": ({"version": 2, "img_size": 40, "window_size": 5}, (36, 44)),
}
"""Description -> hyper-parameters and image size."""


def network(**given) -> SwinTransformer:
    torch.manual_seed(0)
    config = {"embed_dim": 16, "depths": (2, 3), "num_heads": (2, 4), "num_classes": 5, **given}
    model = SwinTransformer(SwinConfig(**config)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 or "bias_table" in name:  # V2 begins as an identity: the norms of its branches are 0.
                parameter.add_(torch.randn_like(parameter) * 0.5)
    return model


@pytest.fixture(params=NETWORKS)
def case(request):
    """A network, two images, and what one pass has shown."""
    values, size = NETWORKS[request.param]
    model = network(**values)
    images = torch.randn(2, 3, *size)
    return model, images, inspect(model, images)


def blocks(model):
    return [block for stage in model.stages for block in stage.blocks]


def operands(block, x_BHWC):
    """Returns q, k, v of every token, (B, N, h, D) each, with the padding of the last window, and the logits' scale."""
    attention = block.attn
    x_BHWC = block.norm1(x_BHWC) if hasattr(attention, "relative_position_bias_table") else x_BHWC
    H, W = x_BHWC.shape[1:3]
    M, N = (min(side, size) for side, size in zip(attention.window, (H, W), strict=True))
    padded = torch.nn.functional.pad(x_BHWC, (0, 0, 0, -W % N, 0, -H % M))
    if hasattr(attention, "relative_position_bias_table"):
        qkv = attention.qkv(padded)
    else:
        bias = torch.cat([attention.q_bias, torch.zeros_like(attention.q_bias), attention.v_bias])
        qkv = attention.qkv(padded, bias)
    q, k, v = (
        qkv.flatten(1, 2).reshape(len(qkv), -1, 3, attention.num_heads, qkv.shape[-1] // 3 // attention.num_heads).unbind(2)
    )
    if hasattr(attention, "relative_position_bias_table"):
        return q * q.shape[-1] ** -0.5, k, v, (M, N), (H + -H % M, W + -W % N)
    scale = attention.logit_scale.clamp(max=4.6051702).exp().reshape(1, 1, -1, 1)
    return unit(q) * scale, unit(k), v, (M, N), (H + -H % M, W + -W % N)


def inputs_of(model, images):
    """Returns the input of every block."""
    kept = []
    hooks = [block.register_forward_pre_hook(lambda _block, arguments: kept.append(arguments[0])) for block in blocks(model)]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    return kept


def test_the_logits_are_those_of_the_network(case):
    model, images, found = case
    torch.testing.assert_close(found.logits_BK, model(images), atol=1e-5, rtol=0)


def test_there_is_one_entry_per_block_with_the_windows_in_use(case):
    model, _, found = case
    assert [(entry.stage, entry.block) for entry in found.attention] == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    assert all(entry.window <= entry.map_size for entry in found.attention)
    assert len(found.attention) == len(blocks(model))


def test_rows_of_all_pairs_sum_to_one(case):
    _, _, found = case
    for entry in found.attention:
        sums = entry.pairs().sum(dim=-1)
        torch.testing.assert_close(sums, torch.ones_like(sums), atol=1e-5, rtol=0)


def test_pairs_of_different_windows_or_regions_are_zero(case):
    """The window of a token is that of its row and column, moved by the shift; rows above the first window have their own."""
    _, _, found = case
    for entry in found.attention:
        (H, W), (M, N), (down, right) = entry.padded_size, entry.window, entry.shift
        rows, columns = (
            (torch.arange(H) - down).div(M, rounding_mode="floor"),
            (torch.arange(W) - right).div(N, rounding_mode="floor"),
        )
        window_P = (rows[:, None] * 1000 + columns[None, :]).flatten()
        apart = window_P[:, None] != window_P[None, :]
        assert entry.pairs()[:, apart].abs().amax() < 1e-30 if apart.any() else True


def test_a_shifted_block_equals_a_loop_over_pairs_of_tokens(case):
    """Rows and columns of the padded map are compared one pair at a time, without windows, rolls or masks."""
    model, images, found = case
    for block, x_BHWC, entry in zip(blocks(model), inputs_of(model, images), found.attention, strict=True):
        q, k, _, (M, N), (H, W) = operands(block, x_BHWC[:1])
        (down, right), head = entry.shift, 1
        assert entry.padded_size == (H, W)
        for query in range(0, H * W, 7):
            y, x = divmod(query, W)
            logits = {}
            for key in range(H * W):
                row, column = divmod(key, W)
                if ((row - down) // M, (column - right) // N) == ((y - down) // M, (x - right) // N):
                    bias = entry.bias_hMN[head, row - y + M - 1, column - x + N - 1]
                    logits[key] = (q[0, query, head] @ k[0, key, head] + bias).item()
            expected = torch.zeros(H * W)
            expected[list(logits)] = torch.tensor(list(logits.values())).softmax(dim=0)
            torch.testing.assert_close(entry.pairs(head)[0, query], expected, atol=1e-5, rtol=0)


def test_the_output_of_a_block_can_be_computed_from_its_maps(case):
    model, images, found = case
    for block, x_BHWC, entry in zip(blocks(model), inputs_of(model, images), found.attention, strict=True):
        _, _, v, _, (H, W) = operands(block, x_BHWC)
        heads = range(v.shape[2])
        attended = torch.cat([entry.pairs(head) @ v[:, :, head] for head in heads], dim=-1)
        attended = attended.reshape(len(x_BHWC), H, W, -1)[:, : entry.map_size[0], : entry.map_size[1]]
        branch = block.attn.proj(attended)
        real = block.attn(block.norm1(x_BHWC) if hasattr(block.attn, "relative_position_bias_table") else x_BHWC)
        torch.testing.assert_close(branch, real, atol=1e-5, rtol=0)


def test_the_map_of_a_token_and_received_attention_are_rows_and_sums_of_all_pairs(case):
    _, _, found = case
    for entry in found.attention:
        (H, W), (rows, columns) = entry.map_size, entry.padded_size
        pairs = entry.pairs(1).reshape(-1, rows, columns, rows, columns)[:, :H, :W, :H, :W]
        torch.testing.assert_close(entry.seen_from(H - 1, 1, 1), pairs[:, H - 1, 1], atol=1e-6, rtol=0)
        torch.testing.assert_close(entry.received(1), pairs.sum(dim=(1, 2)), atol=1e-5, rtol=0)


def test_shares_of_a_rollout_sum_to_one(case):
    _, _, found = case
    _, H, W, _ = found.features_BHWC.shape
    each_token = torch.eye(H * W).reshape(1, H * W, H, W).expand(2, -1, -1, -1)
    rolled = found.rollout(each_token)
    assert rolled.shape == (2, H * W, *found.attention[0].map_size)
    torch.testing.assert_close(rolled.sum(dim=(2, 3)), torch.ones(2, H * W), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.rollout()[:, 0], rolled.mean(dim=1), atol=1e-6, rtol=0)


def test_a_class_activation_averages_to_the_logit_without_bias(case):
    model, _, found = case
    activation = found.class_activation([3, 0])
    expected = found.logits_BK[[0, 1], [3, 0]] - model.head.bias[[3, 0]]
    torch.testing.assert_close(activation.mean(dim=(1, 2)), expected, atol=1e-5, rtol=0)


def test_the_network_is_afterwards_as_before():
    model = network(img_size=32, window_size=4).train()
    before = [block.attn.backend for block in blocks(model)]
    inspect(model, torch.randn(1, 3, 32, 32))
    assert model.training
    assert [block.attn.backend for block in blocks(model)] == before
    with pytest.raises(UserError):
        inspect(model, torch.randn(1, 1, 32, 32))
    assert [block.attn.backend for block in blocks(model)] == before
    assert not model.norm._forward_hooks


def test_heads_tokens_and_classes_that_do_not_exist_are_refused():
    model = network(img_size=32, window_size=4)
    found = inspect(model, torch.randn(1, 3, 32, 32))
    with pytest.raises(UserError, match="head 3 does not exist; stage 1 has the heads 1 to 2"):
        found.attention[0].weights(2)
    with pytest.raises(UserError, match=r"token \(8, 0\) is outside the 8x8 map of stage 1"):
        found.attention[0].seen_from(8, 0)
    with pytest.raises(UserError, match="class 5 does not exist; the network has the classes 0 to 4"):
        found.class_activation([5])
    with pytest.raises(UserError, match="has no head"):
        inspect(network(img_size=32, window_size=4, num_classes=0), torch.randn(1, 3, 32, 32)).class_activation([0])
