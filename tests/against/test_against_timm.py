"""Parity with timm 1.0.31 under the same random weights. Logits of order one differ by 1e-5 at most (fp32)."""

import pytest
import timm
import torch
from keys import TIMM, gradients, images, max_difference, randomise, translate
from timm.models.swin_transformer import SwinTransformer as TimmSwin

from swin_lab import SwinConfig, SwinTransformer, create_model

NAME = "swin_tiny_patch4_window7_224"
SMALL = {"img_size": 32, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4, "num_classes": 5}
FOUR_STAGES = {"img_size": 128, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)}
TIMM_ARGUMENTS = {"in_channels": "in_chans"}


@pytest.fixture(scope="module")
def swin_t():
    reference = randomise(timm.create_model(NAME))
    network = create_model(NAME).eval()
    network.load_state_dict(translate(reference.state_dict(), TIMM), strict=True)
    return network.requires_grad_(False), reference.requires_grad_(False)


def pair(**changes):
    """Returns a tiny network of swin_lab and one of timm with the same weights; a tuple is the window of every stage."""
    config = SMALL | changes
    reference = randomise(TimmSwin(**{TIMM_ARGUMENTS.get(key, key): value for key, value in config.items()}))
    if isinstance(config["window_size"], tuple):
        config["window_size"] = [config["window_size"]] * len(config["depths"])
    network = SwinTransformer(SwinConfig(**config)).eval()
    network.load_state_dict(translate(reference.state_dict(), TIMM), strict=True)
    return network, reference


@pytest.fixture(scope="module")
def expected_at_224(swin_t):
    return swin_t[1](images(1, 3, 224, 224))


def test_logits_equal_at_224(swin_t, expected_at_224):
    assert 0.3 < expected_at_224.std() < 3
    assert max_difference(swin_t[0](images(1, 3, 224, 224)), expected_at_224) <= 1e-5


def test_the_bias_tables_affect_the_compared_logits(swin_t, expected_at_224):
    """With small tables, as after initialisation, a wrong bias would not be detected."""
    network, _ = swin_t
    without_bias = {name: torch.zeros_like(t) if name.endswith("table") else t for name, t in network.state_dict().items()}
    assert max_difference(torch.func.functional_call(network, without_bias, images(1, 3, 224, 224)), expected_at_224) > 1e-2


def test_logits_equal_at_448_where_the_last_stage_has_four_windows_and_shifts(swin_t):
    network, reference = swin_t
    larger = timm.create_model(NAME, img_size=448).eval()
    larger.load_state_dict(reference.state_dict(), strict=True)
    image = images(1, 3, 448, 448)
    with torch.no_grad():
        assert max_difference(network(image), larger(image)) <= 1e-5


def test_the_feature_maps_of_all_stages_equal():
    network, reference = pair(**FOUR_STAGES)
    image = images(2, 3, 128, 128)
    expected = reference.forward_intermediates(image, intermediates_only=True, output_fmt="NCHW")
    torch.testing.assert_close(network.features(image), expected, atol=1e-5, rtol=1e-5)


def test_the_embedding_equals_the_pooled_features():
    network, reference = pair(**FOUR_STAGES)
    image = images(2, 3, 128, 128)
    expected = reference.forward_head(reference.forward_features(image), pre_logits=True)
    assert max_difference(network.embedding(image), expected) <= 1e-5


@pytest.mark.parametrize(
    ("changes", "image"),
    [
        pytest.param({}, (3, 32, 32), id="plain"),
        pytest.param({"window_size": 8}, (3, 32, 32), id="window shrunk at construction"),
        pytest.param({"img_size": (32, 64), "window_size": (2, 4)}, (3, 32, 64), id="non-square"),
        pytest.param({"img_size": 48, "window_size": (3, 12)}, (3, 48, 48), id="shifted along one axis"),
        pytest.param(
            {"img_size": 96, "depths": (2, 2, 2), "num_heads": (1, 2, 4), "window_size": 6},
            (3, 96, 96),
            id="three stages",
        ),
        pytest.param({"qkv_bias": False, "mlp_ratio": 3.0, "in_channels": 1}, (1, 32, 32), id="greyscale, no qkv bias"),
    ],
)
def test_tiny_networks_equal(changes, image):
    network, reference = pair(**changes)
    batch = images(2, *image)
    assert max_difference(network(batch), reference(batch)) <= 1e-5


def test_the_gradients_of_every_parameter_and_of_the_image_equal():
    network, reference = pair()
    image = images(2, 3, 32, 32)
    expected = translate(gradients(reference, image), TIMM)
    torch.testing.assert_close(gradients(network, image), expected, atol=1e-5, rtol=1e-4)


def test_without_shift_they_equal_where_windows_do_not_divide_the_map():
    network, reference = pair(img_size=(60, 52), depths=(1, 1))
    image = images(1, 3, 60, 52)
    assert max_difference(network(image), reference(image)) <= 1e-5


def test_with_shift_they_differ_where_windows_do_not_divide_the_map():
    """timm rolls before it pads, so that opposite borders of the image share a window without a mask (FACTS c7)."""
    network, reference = pair(img_size=(60, 52))
    image = images(1, 3, 60, 52)
    assert max_difference(network(image), reference(image)) > 1e-2


def test_with_shift_they_differ_at_240x200_with_the_windows_of_swin_t():
    """This is the size at which swin_lab equals torchvision, see test_against_torchvision.py."""
    network, reference = pair(img_size=(240, 200), window_size=7)
    image = images(1, 3, 240, 200)
    assert max_difference(network(image), reference(image)) > 1e-2
