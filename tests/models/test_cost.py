"""The cost of a forward pass, and how it grows with the image. One multiply-accumulate (MAC) is two FLOPs."""

from functools import cache

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from swin_lab import SwinTransformer
from swin_lab.models import count_macs, model_config

MACS = {
    "swin_tiny_patch4_window7_224": (224, 4.4944e9),
    "swin_small_patch4_window7_224": (224, 8.7465e9),
    "swin_base_patch4_window7_224": (224, 15.4385e9),
    "swin_large_patch4_window7_224": (224, 34.4870e9),
    "swin_base_patch4_window12_384": (384, 47.1053e9),
    "swin_large_patch4_window12_384": (384, 103.9523e9),
    "swin_tiny_c24_patch4_window8_256": (256, 5.9260e9),
    "swin_mlp_tiny_c24_patch4_window8_256": (256, 4.0319e9),
    "swin_mlp_tiny_c12_patch4_window8_256": (256, 4.0319e9),
    "swin_mlp_tiny_c6_patch4_window8_256": (256, 4.0319e9),
    "swin_mlp_base_patch4_window7_224": (224, 10.4196e9),
    "swin_s3_tiny_224": (224, 4.6272e9),
    "swin_s3_small_224": (224, 9.4103e9),
    "swin_s3_base_224": (224, 13.6625e9),
    "swinv2_tiny_window8_256": (256, 5.9257e9),
    "swinv2_tiny_window16_256": (256, 6.6052e9),
    "swinv2_small_window8_256": (256, 11.5149e9),
    "swinv2_small_window16_256": (256, 12.6473e9),
    "swinv2_base_window8_256": (256, 20.2857e9),
    "swinv2_base_window16_256": (256, 21.7956e9),
    "swinv2_base_window12to24_192to384": (384, 54.7483e9),
    "swinv2_base_window12_192": (192, 11.7609e9),
    "swinv2_large_window12to16_192to256": (256, 47.4909e9),
    "swinv2_large_window12to24_192to384": (384, 115.4169e9),
    "swinv2_large_window12_192": (192, 25.9649e9),
}
"""Image side in pixels and MACs by the official code's formula, which counts norms as well (less than 1%)."""


def macs(model, side):
    """Counts the MACs of matrix products and convolutions on one image; on the meta device nothing is computed."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, 3, side, side, device="meta"))
    return counter.get_total_flops() / 2


def swin(name):
    """Builds a model with the reference backend, as torch's counter has formulas for few kernels of fused attention."""
    with torch.device("meta"):
        return SwinTransformer(model_config(name).with_attention("reference")).eval()


@cache
def swin_tiny_at(side):
    return macs(swin("swin_tiny_patch4_window7_224"), side)


@cache
def vit_small_at(side):
    """Returns the MACs of a model of similar size (22 M parameters) with global attention, for comparison."""
    with torch.device("meta"):
        model = timm.create_model("vit_small_patch16_224", img_size=side).eval()
    for block in model.blocks:
        block.attn.fused_attn = False
    return macs(model, side)


@pytest.mark.parametrize("name", MACS)
def test_the_formula_of_the_official_code_gives_the_published_number_to_its_last_digit(name):
    assert round(count_macs(model_config(name)) / 1e9, 4) == MACS[name][1] / 1e9


@pytest.mark.parametrize("name", MACS)
def test_an_image_costs_the_published_number_of_operations(name):
    side, published = MACS[name]
    assert macs(swin(name), side) == pytest.approx(published, rel=0.02)


@pytest.mark.parametrize("side", [224, 448])
def test_four_times_the_pixels_cost_four_times_the_operations(side):
    assert swin_tiny_at(2 * side) / swin_tiny_at(side) == pytest.approx(4, rel=0.02)


def test_global_attention_costs_more_than_four_times_and_the_more_the_larger_the_image():
    first, second = vit_small_at(448) / vit_small_at(224), vit_small_at(896) / vit_small_at(448)
    assert first > 4.8
    assert second > 6.9


def test_at_224_both_cost_about_the_same_and_at_896_global_attention_costs_twice_as_much():
    assert vit_small_at(224) / swin_tiny_at(224) == pytest.approx(1, abs=0.05)
    assert vit_small_at(896) / swin_tiny_at(896) > 2
