"""Copies that the network does not make: of layouts around the patch embedding, of dtypes around norms on a GPU."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from swin_lab import SwinConfig, SwinTransformer
from swin_lab.models.swin import BranchNorm

TINY = {"img_size": 32, "embed_dim": 8, "depths": (1, 2), "num_heads": (1, 2), "window_size": 4, "num_classes": 5}


@pytest.mark.parametrize("size", [(32, 32), (30, 33)], ids=["whole-patches", "padded"])
def test_the_patch_embedding_writes_its_map_in_the_layout_of_its_norm(size):
    model, layouts = SwinTransformer(SwinConfig(**TINY)), []
    model.embed.norm.register_forward_pre_hook(lambda _, given: layouts.append(given[0].is_contiguous()))
    model(torch.rand(2, 3, *size))
    assert layouts == [True]


@pytest.mark.parametrize("given", [torch.bfloat16, torch.float16, torch.float32])
def test_the_norm_of_a_branch_has_the_dtype_of_its_input_on_a_gpu(given):
    """Fake tensors have a device and a dtype, and no values."""
    with FakeTensorMode():
        norm = BranchNorm(8, device="cuda")
        out = norm(torch.empty(2, 4, 4, 8, device="cuda", dtype=given))
    assert (out.dtype, norm.weight.dtype) == (given, torch.float32)


def test_rounding_the_affine_weights_of_a_norm_costs_as_much_as_rounding_its_output():
    """In bfloat16, whose spacing is 1/128, the difference from fp32 is 1/64 of the largest value at most."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 96, generator=generator).bfloat16()
    weight, bias = torch.randn(2, 96, generator=generator)
    exact = torch.nn.functional.layer_norm(x.float(), (96,), weight, bias)
    found = torch.nn.functional.layer_norm(x, (96,), weight.bfloat16(), bias.bfloat16())
    assert (found.float() - exact).abs().max() < exact.abs().max() / 64
