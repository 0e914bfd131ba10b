"""Plugs in a backend that never partitions a map: what it needs is one function and one entry in the table of backends."""

import pytest
import torch
import torch.nn.functional as F
from test_backends_match_reference import (
    cosine_inputs,
    cosine_operator,
    every_case,
    inputs,
    operator,
    with_all_gradients,
)

from swin_lab import create_model
from swin_lab.ops.geometry import pad_to_multiple
from swin_lab.ops.window_attention import BACKENDS
from swin_lab.ops.windows import WindowLayout


def dense(qkv, bias_table, layout: WindowLayout, pad_value, cosine_scale):
    """Attends over all positions of the map at once, with a bias of minus infinity between windows."""
    (M, N), (down, right), height, width = layout.window, layout.shift, *qkv.shape[1:3]
    qkv = pad_to_multiple(qkv, layout.window, pad_value)
    B, H, W, C3 = qkv.shape
    row, column = torch.arange(H).repeat_interleave(W), torch.arange(W).repeat(H)
    window_row, window_column = (row - down) // M, (column - right) // N
    same = (window_row[:, None] == window_row) & (window_column[:, None] == window_column)
    index = (row[:, None] - row + M - 1) * (2 * N - 1) + column[:, None] - column + N - 1
    bias = bias_table[index * same].masked_fill(~same[..., None], float("-inf")).permute(2, 0, 1)

    q, k, v = qkv.reshape(B, H * W, 3, layout.num_heads, -1).permute(2, 0, 3, 1, 4)
    if cosine_scale is None:
        q = q * q.shape[-1] ** -0.5
    else:
        q, k = F.normalize(q, dim=-1) * cosine_scale, F.normalize(k, dim=-1)
    out = (q @ k.transpose(-2, -1) + bias).softmax(-1) @ v
    return out.transpose(1, 2).reshape(B, H, W, C3 // 3)[:, :height, :width]


@pytest.fixture(autouse=True)
def _plugged_in(monkeypatch):
    monkeypatch.setitem(BACKENDS, "dense", dense)


@every_case
def test_a_backend_without_windows_equals_the_reference(size, window, shift):
    """In fp32, within 1e-5."""
    tensors = inputs(size, window, torch.float32)
    expected = with_all_gradients(operator(window, shift, "reference"), tensors)
    actual = with_all_gradients(operator(window, shift, "dense"), tensors)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@every_case
def test_a_backend_without_windows_equals_the_reference_in_cosine_attention(size, window, shift):
    """In fp32, within 5e-5."""
    tensors = cosine_inputs(size, window, torch.float32)
    expected = with_all_gradients(cosine_operator(window, shift, "reference"), tensors)
    actual = with_all_gradients(cosine_operator(window, shift, "dense"), tensors)
    torch.testing.assert_close(actual, expected, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("version", [1, 2])
def test_a_model_uses_a_new_backend_by_its_name(version):
    """Logits within 1e-5, on a map that windows do not divide."""
    logits = []
    for backend in ("reference", "dense"):
        torch.manual_seed(0)
        name = "swin_micro_patch4_window4_32"
        model = create_model(name, num_classes=5, version=version, attention_backend=backend).eval()
        logits.append(model(torch.randn(2, 3, 36, 44, generator=torch.Generator().manual_seed(0))))
    torch.testing.assert_close(logits[1], logits[0], atol=1e-5, rtol=1e-5)
