"""Compares every backend with the reference, and the reference with a loop over tokens, in values and in gradients."""

import pytest
import torch

from swin_lab.errors import UserError
from swin_lab.ops import window_attention
from swin_lab.ops.window_attention import BACKENDS, attention_backend

HEADS, DIM = 2, 6
RUN_HERE = [name for name in BACKENDS if name != "triton"]
"""Backends that run on every device; the Triton kernels have test_triton_attention.py."""
CASES = {
    "whole windows": ((8, 8), (4, 4), (0, 0)),
    "shifted": ((8, 8), (4, 4), (2, 2)),
    "odd shift": ((6, 9), (3, 3), (1, 1)),
    "padded": ((7, 10), (4, 4), (0, 0)),
    "padded and shifted": ((7, 10), (4, 4), (2, 2)),
    "padding as wide as the shift": ((6, 5), (4, 4), (2, 2)),
    "non-square windows": ((6, 9), (3, 4), (1, 2)),
    "shifted along one axis": ((8, 8), (4, 4), (0, 2)),
    "one window high": ((4, 8), (4, 4), (2, 2)),
    "map smaller than the window": ((3, 5), (4, 7), (2, 3)),
    "map lower than the window": ((3, 9), (4, 4), (2, 2)),
    "map of one token": ((1, 1), (4, 4), (2, 2)),
}

every_case = pytest.mark.parametrize(("size", "window", "shift"), CASES.values(), ids=CASES.keys())


def inputs(size, window, dtype, seed=0):
    """Returns qkv, bias table and padding value of order one, so that a wrong bias or neighbour changes the first digits."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(2, *size, 3 * DIM), ((2 * window[0] - 1) * (2 * window[1] - 1), HEADS), (3 * DIM,)]
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def loop_over_tokens(qkv, bias_table, window, shift, pad_value, cosine_scale=None):
    """Attends by original coordinates: row r, padding rows included, is in window floor((r - shift) / M)."""
    (M, N), (height, width) = window, qkv.shape[1:3]
    m, n = min(M, height), min(N, width)
    down = 0 if height <= M else shift[0]
    right = 0 if width <= N else shift[1]
    table = bias_table.reshape(2 * M - 1, 2 * N - 1, HEADS)

    windows = {}
    for row in range(-(-height // m) * m):
        for column in range(-(-width // n) * n):
            windows.setdefault(((row - down) // m, (column - right) // n), []).append((row, column))

    out = torch.empty(*qkv.shape[:3], DIM, dtype=qkv.dtype)
    for b in range(qkv.shape[0]):
        for tokens in windows.values():
            content = [qkv[b, r, c] if r < height and c < width else pad_value for r, c in tokens]
            q, k, v = torch.stack(content).reshape(len(tokens), 3, HEADS, DIM // HEADS).unbind(1)
            for i, (row, column) in enumerate(tokens):
                if row >= height or column >= width:
                    continue
                bias = torch.stack([table[row - r + M - 1, column - c + N - 1] for r, c in tokens])
                if cosine_scale is None:
                    logits = (q[i] * k).sum(-1) / (DIM // HEADS) ** 0.5 + bias
                else:
                    logits = torch.cosine_similarity(q[i][None], k, dim=-1) * cosine_scale.flatten() + bias
                out[b, row, column] = (logits.softmax(0)[:, :, None] * v).sum(0).flatten()
    return out


def with_gradients(attend, tensors):
    """Returns the output of `attend` and the gradients of a fixed random projection of it."""
    out = attend(*tensors)
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    gradients = torch.autograd.grad((out * direction).sum(), tensors, materialize_grads=True)
    return {"output": out} | dict(zip(("gradient of qkv", "of bias_table", "of pad_value"), gradients, strict=True))


def operator(window, shift, backend):
    return lambda qkv, table, pad: window_attention(
        qkv, table, num_heads=HEADS, window=window, shift=shift, pad_value=pad, backend=backend
    )


@every_case
def test_the_reference_equals_a_loop_over_tokens(size, window, shift):
    """The inputs are in double precision; the tolerance of 2e-6 is for the softmax, which the reference computes in single."""
    tensors = inputs(size, window, torch.float64)
    expected = with_gradients(lambda qkv, table, pad: loop_over_tokens(qkv, table, window, shift, pad), tensors)
    actual = with_gradients(operator(window, shift, "reference"), tensors)
    torch.testing.assert_close(actual, expected, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("backend", [name for name in RUN_HERE if name != "reference"])
@every_case
def test_the_backend_equals_the_reference(backend, size, window, shift):
    tensors = inputs(size, window, torch.float32)
    expected = with_gradients(operator(window, shift, "reference"), tensors)
    actual = with_gradients(operator(window, shift, backend), tensors)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def cosine_inputs(size, window, dtype):
    return [*inputs(size, window, dtype), torch.tensor([3.0, 20.0], dtype=dtype).reshape(HEADS, 1, 1).requires_grad_()]


def cosine_operator(window, shift, backend):
    return lambda qkv, table, pad, scale: window_attention(
        qkv, table, num_heads=HEADS, window=window, shift=shift, pad_value=pad, cosine_scale=scale, backend=backend
    )


def with_all_gradients(attend, tensors):
    out = attend(*tensors)
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    return [out, *torch.autograd.grad((out * direction).sum(), tensors, materialize_grads=True)]


@every_case
def test_the_cosine_attention_of_v2_equals_a_loop_over_tokens(size, window, shift):
    """The tolerance is 2e-5, because a scale of 20 multiplies the rounding of the softmax."""
    tensors = cosine_inputs(size, window, torch.float64)
    expected = with_all_gradients(lambda qkv, t, pad, scale: loop_over_tokens(qkv, t, window, shift, pad, scale), tensors)
    actual = with_all_gradients(cosine_operator(window, shift, "reference"), tensors)
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("backend", [name for name in RUN_HERE if name != "reference"])
@every_case
def test_the_backend_equals_the_reference_in_cosine_attention(backend, size, window, shift):
    tensors = cosine_inputs(size, window, torch.float32)
    expected = with_all_gradients(cosine_operator(window, shift, "reference"), tensors)
    actual = with_all_gradients(cosine_operator(window, shift, backend), tensors)
    torch.testing.assert_close(actual, expected, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("backend", RUN_HERE)
def test_keys_of_length_zero_give_finite_outputs_in_half_precision(backend, dtype):
    """Padding is such a key in V2, where keys have no bias. The square of a small number is zero in fp16."""
    qkv, table, _, scale = cosine_inputs((5, 6), (4, 4), torch.float32)
    out = cosine_operator((4, 4), (2, 2), backend)(qkv.to(dtype) * 1e-4, table, torch.zeros(3 * DIM), scale)
    assert out.dtype == dtype
    assert out.isfinite().all()


@pytest.mark.parametrize("backend", RUN_HERE)
def test_without_a_padding_value_padding_is_zero(backend):
    qkv, table, _ = inputs((5, 6), (4, 4), torch.float32)
    attend = operator((4, 4), (2, 2), backend)
    torch.testing.assert_close(attend(qkv, table, None), attend(qkv, table, torch.zeros(3 * DIM)), atol=0, rtol=0)


@pytest.mark.parametrize("backend", RUN_HERE)
def test_the_output_is_close_and_in_bfloat16_for_bfloat16_inputs(backend):
    tensors = inputs((7, 10), (4, 4), torch.float32)
    exact = operator((4, 4), (2, 2), "reference")(*tensors)
    qkv, table, pad = tensors
    rounded = operator((4, 4), (2, 2), backend)(qkv.bfloat16(), table, pad)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("backend", RUN_HERE)
def test_the_inputs_are_not_modified(backend):
    tensors = inputs((7, 10), (4, 4), torch.float32)
    before = [tensor.detach().clone() for tensor in tensors]
    operator((4, 4), (2, 2), backend)(*tensors)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(tensors, before, strict=True))


def test_an_unknown_backend_is_rejected_with_the_choices():
    with pytest.raises(UserError, match="'flash'") as refusal:
        attention_backend("flash")
    assert all(name in str(refusal.value) for name in BACKENDS)


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name not in ("reference", "triton")])
@pytest.mark.parametrize("cosine", [False, True], ids=["V1", "V2"])
def test_fp32_maps_can_be_trained_on_under_autocast(backend, cosine):
    """A map need not come from a layer that autocast has cast; within 0.05 of fp32, the rounding of bfloat16."""
    tensors = cosine_inputs((7, 10), (4, 4), torch.float32)
    if not cosine:
        tensors = tensors[:3]
    make = cosine_operator if cosine else operator
    expected = with_all_gradients(make((4, 4), (2, 2), "reference"), tensors)
    with torch.autocast("cpu", torch.bfloat16):
        actual = with_all_gradients(make((4, 4), (2, 2), backend), tensors)
    for found, exact in zip(actual, expected, strict=True):
        torch.testing.assert_close(found.float(), exact, atol=0.05 * exact.detach().abs().max().item(), rtol=0.05)
