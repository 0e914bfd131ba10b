"""Tests that need an NVIDIA GPU: `pytest -m gpu`."""

from pathlib import Path

import pytest
import torch
from conftest import TINY, Command, final_metrics, only_run

from swin_lab import SwinConfig, SwinTransformer
from swin_lab.models.swin import BranchNorm
from swin_lab.ops import window_attention

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
ON_GPU = [override for override in TINY if override != "trainer.accelerator=cpu"]


def test_a_run_uses_the_gpu_in_bf16_by_default_and_its_evaluation_has_the_same_metrics(
    command: Command, tmp_path: Path
) -> None:
    printed = command("train", *ON_GPU).out
    assert "1 x cuda, precision bf16-mixed" in printed
    run = only_run(tmp_path)
    assert command("eval", f"checkpoint={run}").code == 0
    (evaluated,) = run.glob("eval_*/results.json")
    assert final_metrics(evaluated.parent) == final_metrics(run)


def test_a_gpu_checkpoint_evaluates_on_the_cpu(command: Command, tmp_path: Path) -> None:
    command("train", *ON_GPU)
    assert command("eval", f"checkpoint={only_run(tmp_path)}", "trainer.accelerator=cpu").code == 0


@pytest.mark.parametrize("shift", [(0, 0), (2, 2)])
def test_sdpa_equals_the_reference_on_the_gpu_in_values_and_gradients(shift: tuple[int, int]) -> None:
    """Outputs and gradients in fp32 differ by 1e-4 at most."""
    results = []
    for backend in ("reference", "sdpa"):
        torch.manual_seed(0)
        qkv = torch.randn(2, 9, 10, 48, device="cuda", requires_grad=True)
        table = torch.randn(49, 2, device="cuda", requires_grad=True)
        out = window_attention(qkv, table, num_heads=2, window=(4, 4), shift=shift, backend=backend)
        out.square().sum().backward()
        results.append((out, qkv.grad, table.grad))
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("version", [1, 2])
def test_mixed_precision_copies_no_input_of_a_branch_norm_to_fp32(version: int) -> None:
    """Logits under bf16-mixed differ from fp32 by 2 % of the largest at most, as on a CPU."""
    torch.manual_seed(0)
    config = SwinConfig(version=version, img_size=64, embed_dim=32, depths=(2, 2), num_heads=(2, 4), num_classes=10)
    model = SwinTransformer(config).cuda().eval()  # no drop path
    dtypes = []
    for module in model.modules():
        if isinstance(module, BranchNorm):
            module.register_forward_hook(lambda _, given, out: dtypes.append((given[0].dtype, out.dtype)))
    image = torch.randn(2, 3, 64, 64, device="cuda")
    expected = model(image)
    dtypes.clear()
    with torch.autocast("cuda", torch.bfloat16):
        found = model(image)
    assert all(given == out for given, out in dtypes)
    assert torch.bfloat16 in {out for _, out in dtypes}
    torch.testing.assert_close(found.float(), expected, atol=0.02 * expected.abs().max().item(), rtol=0)
