"""Matrix products and roofline of a network, against torch's counter and against the published budget."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from swin_lab.bench.cost import flops, matrix_products
from swin_lab.bench.roofline import Rates, images_per_second, roofline
from swin_lab.models import SwinTransformer, model_config

H200 = Rates(bandwidth=4.2e12, products=650e12, attention=200e12)


@pytest.mark.parametrize(
    ("name", "img_size", "tolerance"),
    [
        ("swin_tiny_patch4_window7_224", None, 0.0),
        ("swin_tiny_patch4_window7_224", 200, 0.0),  # windows do not divide the maps
        ("swin_s3_tiny_224", None, 0.0),  # windows differ between stages
        ("swin_mlp_tiny_c24_patch4_window8_256", None, 0.0),
        ("swin_mlp_tiny_c24_patch4_window8_256", 288, 0.0),
        ("swinv2_tiny_window8_256", None, 0.002),  # its bias MLP is not counted
    ],
)
def test_flops_of_the_matrix_products_are_those_that_torch_counts(name: str, img_size: int | None, tolerance: float) -> None:
    with torch.device("meta"):
        config = replace(model_config(name), **({} if img_size is None else {"img_size": img_size}))
        model = SwinTransformer(config.with_attention("reference"))
    images = torch.empty(2, 3, *model.config.image_size, device="meta")
    with FlopCounterMode(display=False) as forward:
        model(images)
    with FlopCounterMode(display=False) as both:
        model(images).sum().backward()
    products = matrix_products(model.config, 2)
    assert flops(products, training=False) == pytest.approx(forward.get_total_flops(), rel=tolerance)
    assert flops(products, training=True) == pytest.approx(both.get_total_flops(), rel=tolerance)


@pytest.mark.parametrize(
    ("name", "training", "expected"),
    [
        ("swin_tiny_patch4_window7_224", True, 13_800),
        ("swin_tiny_patch4_window7_224", False, 42_700),
        ("swin_base_patch4_window7_224", True, 5_200),
        ("swin_base_patch4_window7_224", False, 15_900),
    ],
)
def test_the_roofline_of_one_h200_is_the_published_budget_within_5_percent(name: str, training: bool, expected: float) -> None:
    predicted = images_per_second(roofline(model_config(name), H200, training=training))
    assert predicted == pytest.approx(expected, rel=0.05)


def test_the_roofline_falls_with_the_bytes_of_an_element_and_rises_with_the_rates() -> None:
    config = model_config("swin_tiny_patch4_window7_224")
    slow = Rates(H200.bandwidth / 2, H200.products / 2, H200.attention / 2)
    bf16 = images_per_second(roofline(config, H200, training=True))
    assert images_per_second(roofline(config, slow, training=True)) == pytest.approx(bf16 / 2)
    assert images_per_second(roofline(config, H200, training=True, element_bytes=4)) < bf16


def test_an_inference_has_no_backward_pass_in_the_roofline() -> None:
    limits = roofline(model_config("swin_tiny_patch4_window7_224"), H200, training=False)
    assert all(limit.backward == 0 and limit.forward > 0 for limit in limits)
    assert [limit.section for limit in limits if not limit.part] == ["embed", "head"]


def test_the_roofline_of_swin_mlp_has_a_window_mlp_and_no_attention() -> None:
    limits = roofline(model_config("swin_mlp_tiny_c24_patch4_window8_256"), H200, training=True)
    assert [limit.part for limit in limits].count("window MLP") == 4
    assert not [limit for limit in limits if limit.part == "attention"]
