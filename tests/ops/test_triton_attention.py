"""Compares the Triton kernels with the reference, in values and gradients.

The tests of the kernels need a GPU (`pytest -m gpu`) or Triton's interpreter, which is chosen when Triton is first imported:
`test_the_kernels_in_the_interpreter` runs this file in a process of its own with TRITON_INTERPRET=1. Maps are tiny there.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import swin_lab.ops.auto as automatic
from swin_lab import SwinConfig, create_model
from swin_lab.errors import UserError
from swin_lab.ops import triton_support, window_attention
from swin_lab.ops.products import products
from swin_lab.ops.sdpa import sdpa
from swin_lab.ops.triton_attention import triton
from swin_lab.ops.windows import WindowLayout

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 2e-2}
"""Largest difference from the reference, relative to the largest value of each tensor."""

# Size of the map, window, shift, channels of a head, heads
CASES = {
    "windows of one token": ((3, 2), (1, 1), (0, 0), 16, 1),
    "windows of 2": ((4, 6), (2, 2), (1, 1), 16, 2),
    "windows of 4": ((8, 4), (4, 4), (0, 0), 24, 1),
    "padded and shifted windows of 4": ((7, 10), (4, 4), (2, 2), 32, 2),
    "padding as wide as the shift": ((6, 5), (4, 4), (2, 2), 16, 1),
    "shifted along one axis": ((8, 8), (4, 4), (0, 2), 16, 1),
    "padded windows of 7": ((9, 7), (7, 7), (3, 3), 32, 2),
    "windows of 8": ((8, 16), (8, 8), (0, 4), 48, 1),
    "rectangular windows": ((5, 11), (3, 5), (1, 2), 64, 1),
    "a map smaller than the window": ((3, 5), (4, 7), (2, 3), 40, 1),
    "windows of several tiles": ((9, 10), (9, 9), (4, 4), 32, 1),
    "rectangular windows of several tiles": ((13, 6), (12, 6), (6, 3), 20, 1),
}
LARGE = {
    "Swin-T, stage 1": ((56, 56), (7, 7), (3, 3), 32, 3),
    "Swin-T, stage 4": ((7, 7), (7, 7), (0, 0), 32, 24),
    "padded windows of 7": ((50, 61), (7, 7), (3, 3), 32, 6),
    "windows of 8": ((64, 64), (8, 8), (4, 4), 32, 3),
    "windows of 12": ((24, 24), (12, 12), (6, 6), 32, 8),
    "windows of 16": ((32, 32), (16, 16), (8, 8), 32, 6),
    "padded windows of 16": ((20, 37), (16, 16), (8, 8), 32, 6),
    "windows of 24": ((24, 48), (24, 24), (0, 12), 32, 4),
    "heads of 64 channels": ((28, 28), (14, 14), (7, 7), 64, 2),
}
"""Cases for a GPU, at batch 64."""


def needs_kernels(test):
    """Marks a test for a GPU, unless kernels are interpreted."""
    if INTERPRETED:
        return test
    return pytest.mark.gpu(pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")(test))


def needs_gpu(test):
    return pytest.mark.gpu(pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")(test))


def inputs(case, dtype, version, with_padding_value=True, batch=1):
    """Returns qkv, bias table, padding value and cosine scale of order one, or None, as leaves."""
    (height, width), (M, N), _, head_dim, heads = case
    generator = torch.Generator().manual_seed(0)

    def leaf(*shape):
        return torch.randn(shape, generator=generator)

    qkv = leaf(batch, height, width, 3 * head_dim * heads).to(dtype)
    tensors = [qkv, leaf((2 * M - 1) * (2 * N - 1), heads), leaf(3 * head_dim * heads), leaf(heads, 1, 1).abs() * 5 + 1]
    keep = (True, True, with_padding_value, version == 2)
    return [x.to(DEVICE).requires_grad_() if kept else None for x, kept in zip(tensors, keep, strict=True)]


def attend(backend, case, qkv, table, pad_value, cosine_scale):
    _, window, shift, _, heads = case
    options = {"num_heads": heads, "window": window, "shift": shift, "pad_value": pad_value, "cosine_scale": cosine_scale}
    return window_attention(qkv, table, **options, backend=backend)


def with_gradients(backend, case, tensors):
    """Returns the output and the gradients of a fixed random projection of it, in fp32."""
    out = attend(backend, case, *tensors)
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    names = ("qkv", "table", "padding value", "cosine scale")
    leaves = {name: tensor for name, tensor in zip(names, tensors, strict=True) if tensor is not None}
    gradients = torch.autograd.grad(out, list(leaves.values()), direction, materialize_grads=True)
    return {"output": out.detach().float()} | {name: g.float() for name, g in zip(leaves, gradients, strict=True)}


def exact(case, tensors):
    """Returns what the reference computes in fp32 from the same, rounded values."""
    return with_gradients("reference", case, [None if x is None else x.detach().float().requires_grad_() for x in tensors])


def assert_close(actual, expected, tolerance):
    errors = {name: ((actual[name] - x).abs().max() / x.abs().max().clamp(min=1e-12)).item() for name, x in expected.items()}
    assert all(error <= tolerance for error in errors.values()), errors


each_version = pytest.mark.parametrize("version", [1, 2])
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


@needs_kernels
@each_version
@each_dtype
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_outputs_and_gradients_equal_the_reference(case, dtype, version):
    """Within 1e-4 (fp32) and 2e-2 (bf16) of the largest value of each tensor; every second case of bf16 needs a GPU."""
    if INTERPRETED and dtype == torch.bfloat16 and list(CASES.values()).index(case) % 2 == 0:
        pytest.skip("the interpreter is slow")
    tensors = inputs(case, dtype, version)
    assert_close(with_gradients("triton", case, tensors), exact(case, tensors), TOLERANCE[dtype])


@needs_kernels
@each_version
@pytest.mark.parametrize("name", ["padded and shifted windows of 4", "rectangular windows of several tiles"])
def test_without_a_padding_value_padding_is_zero(name, version):
    tensors = inputs(CASES[name], torch.float32, version, with_padding_value=False)
    assert_close(with_gradients("triton", CASES[name], tensors), exact(CASES[name], tensors), 1e-4)


@needs_kernels
@pytest.mark.parametrize("name", ["padded and shifted windows of 4", "windows of several tiles"])
def test_outputs_and_gradients_in_fp16_equal_the_reference(name):
    """Within 2e-3 of the largest value of each tensor."""
    tensors = inputs(CASES[name], torch.float16, 2)
    assert_close(with_gradients("triton", CASES[name], tensors), exact(CASES[name], tensors), TOLERANCE[torch.float16])


@needs_kernels
@pytest.mark.parametrize("name", ["padded and shifted windows of 4", "windows of several tiles"])
def test_two_backward_passes_give_the_same_bits(name):
    case = CASES[name]
    tensors = inputs(case, torch.bfloat16, 2, batch=1 if INTERPRETED else 64)
    first, second = with_gradients("triton", case, tensors), with_gradients("triton", case, tensors)
    assert all(torch.equal(first[key], second[key]) for key in first)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_keys_of_length_zero_give_finite_outputs(dtype):
    """Padding is such a key in V2, where keys have no bias."""
    qkv, table, pad_value, scale = inputs(CASES["padded and shifted windows of 4"], dtype, 2)
    out = attend("triton", CASES["padded and shifted windows of 4"], qkv * 1e-4, table, pad_value * 0, scale)
    assert out.isfinite().all()


@needs_kernels
def test_maps_need_not_be_contiguous_and_an_empty_batch_has_an_empty_output():
    case = CASES["windows of 2"]
    qkv, table, pad_value, _ = inputs(case, torch.float32, 1)
    strided = qkv.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    assert not strided.is_contiguous()
    expected = with_gradients("triton", case, [qkv, table, pad_value, None])
    assert_close(with_gradients("triton", case, [strided, table, pad_value, None]), expected, 0)
    assert attend("triton", case, qkv[:0], table, pad_value, None).shape == (0, 4, 6, 32)


@needs_kernels
def test_inference_mode_gives_the_same_bits():
    case = CASES["windows of several tiles"]
    tensors = inputs(case, torch.float32, 2)
    expected = attend("triton", case, *tensors)
    with torch.inference_mode():
        assert torch.equal(attend("triton", case, *tensors), expected)


@needs_kernels
def test_the_operator_passes_the_checks_of_torch():
    """Schema, fake tensors, registration of gradients and tracing with symbolic sizes."""
    case = CASES["padding as wide as the shift"]
    _, window, shift, _, heads = case
    arguments = (*inputs(case, torch.float32, 2), heads, *window, *shift)
    torch.library.opcheck(torch.ops.swin_lab.window_attention.default, arguments)


def tiny(version, backend, **changes):
    torch.manual_seed(0)
    sizes = {"img_size": 32, "embed_dim": 16, "depths": (2,), "num_heads": (1,), "drop_path_rate": 0.0}
    name = "swin_micro_patch4_window4_32"
    network = create_model(name, num_classes=5, version=version, attention_backend=backend, **sizes, **changes)
    return network.to(DEVICE)


def image():
    return torch.randn(2, 3, 24, 28, generator=torch.Generator().manual_seed(0)).to(DEVICE)


def logits_and_gradients(network, run=None):
    logits = (network if run is None else run)(image())
    logits.float().square().sum().backward()
    gradients = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    network.zero_grad()
    return {"logits": logits.detach().float()} | gradients


@needs_kernels
@each_version
def test_a_compiled_model_is_one_graph_and_has_the_same_gradients(version):
    """On a padded map, within 1e-5 of the largest value; under the interpreter without Inductor, which generates code."""
    network = tiny(version, "triton")
    expected = logits_and_gradients(network)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager" if INTERPRETED else "inductor")
    assert_close(logits_and_gradients(network, compiled), expected, 1e-5 if INTERPRETED else 1e-3)


@needs_kernels
@each_version
def test_a_model_under_autocast_equals_the_reference_and_keeps_its_bias_in_fp32(version):
    """Within 3e-2 of the largest value of logits and gradients, as both round to bfloat16."""
    results = []
    for backend in ("reference", "triton"):
        with torch.autocast(DEVICE, torch.bfloat16):
            results.append(logits_and_gradients(tiny(version, backend)))
    assert all(x.dtype == torch.float32 for x in results[1].values())
    assert_close(results[1], results[0], 3e-2)


@needs_kernels
def test_activation_checkpointing_gives_the_same_bits():
    plain, checkpointed = (tiny(1, "triton", activation_checkpointing=value).train() for value in (False, True))
    assert_close(logits_and_gradients(checkpointed), logits_and_gradients(plain), 0)


@needs_gpu
@each_version
@pytest.mark.parametrize("dtype", TOLERANCE, ids=["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("case", LARGE.values(), ids=LARGE.keys())
def test_large_maps_equal_the_reference_and_two_backward_passes_give_the_same_bits(case, dtype, version):
    """At batch 64, within the same tolerances; fp32 with exact products, as torch allows no TF32 by default."""
    tensors = inputs(case, dtype, version, batch=64)
    first, second = with_gradients("triton", case, tensors), with_gradients("triton", case, tensors)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert_close(first, exact(case, tensors), TOLERANCE[dtype])


@needs_gpu
@each_version
def test_products_in_tf32_are_within_its_rounding(version):
    """Within 1e-2 of the largest value: TF32 has 10 bits."""
    case = LARGE["Swin-T, stage 1"]
    tensors = inputs(case, torch.float32, version, batch=2)
    expected = exact(case, tensors)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        assert_close(with_gradients("triton", case, tensors), expected, 1e-2)
    finally:
        torch.set_float32_matmul_precision(before)


@needs_gpu
def test_a_batch_of_more_than_2_to_the_31_values_equals_its_images_alone():
    """The last image has the same bits: 4 GiB of qkv in bfloat16, and as much of gradients."""
    size, heads = 448, 8
    case = ((size, size), (7, 7), (3, 3), 32, heads)
    if torch.cuda.get_device_properties(0).total_memory < 30 * 2**30:
        pytest.skip("needs 30 GB of GPU memory")
    batch = 2**31 // (size * size * 3 * 32 * heads) + 2
    qkv = torch.randn(batch, size, size, 3 * 32 * heads, device=DEVICE, dtype=torch.bfloat16).requires_grad_()
    table = torch.randn(169, heads, device=DEVICE)
    out = attend("triton", case, qkv, table, None, None)
    (gradient,) = torch.autograd.grad(out, qkv, out.detach())
    last = qkv[-1:].detach().clone().requires_grad_()
    out_of_last = attend("triton", case, last, table, None, None)
    (gradient_of_last,) = torch.autograd.grad(out_of_last, last, out_of_last.detach())
    assert qkv.numel() > 2**31
    assert torch.equal(out[-1:], out_of_last)
    assert torch.equal(gradient[-1:], gradient_of_last)


@needs_gpu
@each_version
def test_swin_tiny_trains_compiled_under_autocast_on_the_gpu(version):
    """One graph, forward and backward; the loss is within 2 % of that of the reference backend."""
    losses = []
    for backend in ("reference", "triton"):
        torch.manual_seed(0)
        name = "swin_tiny_patch4_window7_224" if version == 1 else "swinv2_tiny_window8_256"
        network = create_model(name, num_classes=10, attention_backend=backend, drop_path_rate=0.0).cuda().train()
        compiled = torch.compile(network, fullgraph=True)
        side = network.config.image_size[0]
        images = torch.randn(8, 3, side, side, generator=torch.Generator().manual_seed(0)).cuda()
        with torch.autocast("cuda", torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(compiled(images), torch.arange(8, device="cuda"))
        loss.backward()
        assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=2e-2)


@needs_gpu
def test_auto_takes_the_kernels_in_bfloat16_and_sdpa_in_float32():
    for dtype, expected in ((torch.bfloat16, triton), (torch.float32, sdpa)):
        qkv, table, pad_value, _ = inputs(CASES["windows of 2"], dtype, 1)
        layout = WindowLayout(2, (2, 2), (1, 1))
        chosen = automatic.auto(qkv, table, layout, pad_value, None)
        assert torch.equal(chosen, expected(qkv, table, layout, pad_value, None))


not_interpreted = pytest.mark.skipif(INTERPRETED, reason="is about processes without the interpreter")


@not_interpreted
@pytest.mark.slow
def test_the_kernels_in_the_interpreter():
    """Runs the tests of kernels above on the CPU: about 50 s of one core, which is why the maps are tiny."""
    pytest.importorskip("triton")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not gpu", str(Path(__file__))]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]


CPU_ARGUMENTS = (torch.zeros(1, 4, 4, 48), torch.zeros(9, 1), WindowLayout(1, (2, 2), (0, 0)), None, None)


@not_interpreted
def test_on_a_cpu_the_error_names_the_other_backends_and_the_interpreter():
    with pytest.raises(UserError, match="needs an NVIDIA GPU, but the images are on the device 'cpu'") as refusal:
        triton(*CPU_ARGUMENTS)
    assert "attention_backend=sdpa" in str(refusal.value)
    assert "TRITON_INTERPRET=1" in str(refusal.value)
    assert str(refusal.value).count("\n") <= 2


@not_interpreted
def test_without_triton_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr("swin_lab.ops.triton_support.INSTALLED", False)
    with pytest.raises(UserError, match=r"needs the package triton .*attention_backend=sdpa"):
        triton(*CPU_ARGUMENTS)


@not_interpreted
def test_double_precision_is_refused_with_the_supported_dtypes():
    qkv, *others = CPU_ARGUMENTS
    with pytest.raises(UserError, match="supports bfloat16, float16 and float32, not float64; use attention_backend=sdpa"):
        triton(qkv.double(), *others)


@not_interpreted
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"embed_dim": 24, "num_heads": (3, 6, 12, 24)}, "supports heads of 16 to 64 channels, not 8; change num_heads"),
        ({"num_heads": (1, 2, 4, 8)}, "supports heads of 16 to 64 channels, not 96"),
        ({"window_size": 28}, "supports windows of up to 24 tokens along a side, not 28x28"),
    ],
)
def test_a_configuration_that_the_kernels_do_not_support_is_refused(values, message):
    SwinConfig(**values)
    with pytest.raises(UserError, match=message) as refusal:
        SwinConfig(**values, attention_backend="triton")
    assert "attention_backend=sdpa" in str(refusal.value)


@not_interpreted
@pytest.mark.skipif(torch.version.cuda is None or not triton_support.INSTALLED, reason="this torch has no CUDA or no Triton")
@pytest.mark.parametrize(
    ("device", "dtype", "window", "head_dim", "chosen"),
    [
        ("cuda", torch.bfloat16, (7, 7), 32, triton),
        ("cuda", torch.float16, (8, 8), 32, triton),
        ("cuda", torch.float32, (7, 7), 32, sdpa),
        ("cuda", torch.bfloat16, (12, 12), 32, sdpa),
        ("cuda", torch.bfloat16, (7, 7), 96, sdpa),
        ("cpu", torch.bfloat16, (7, 7), 32, products),
    ],
)
def test_the_kernels_are_chosen_for_small_windows_in_half_precision_on_a_gpu(device, dtype, window, head_dim, chosen):
    assert automatic.fastest(device, dtype, window, head_dim, trains=True) is chosen
