"""Parity with torchvision 0.29 under the same random weights. Logits of order one differ by 1e-5 at most (fp32)."""

import pytest
import torch
from keys import TORCHVISION, gradients, images, max_difference, randomise, translate
from torchvision.models import swin_t as torchvision_swin_t
from torchvision.models.swin_transformer import SwinTransformer as TorchvisionSwin

from swin_lab import SwinConfig, SwinTransformer, create_model


@pytest.fixture(scope="module")
def swin_t():
    reference = randomise(torchvision_swin_t(weights=None))
    network = create_model("swin_tiny_patch4_window7_224").eval()
    network.load_state_dict(translate(reference.state_dict(), TORCHVISION), strict=True)
    return network.requires_grad_(False), reference.requires_grad_(False)


def pair(window=(4, 4), depths=(2, 2), num_heads=(2, 4)):
    """Returns a tiny network of swin_lab and one of torchvision with the same weights, with windows as for large images."""
    config = {"embed_dim": 16, "depths": list(depths), "num_heads": list(num_heads), "num_classes": 5}
    reference = randomise(TorchvisionSwin(patch_size=[4, 4], window_size=list(window), **config))
    network = SwinTransformer(SwinConfig(**config, img_size=512, window_size=[window] * len(depths))).eval()
    network.load_state_dict(translate(reference.state_dict(), TORCHVISION), strict=True)
    return network, reference


def test_logits_equal_at_240x200_where_windows_divide_the_map_of_no_stage(swin_t):
    network, reference = swin_t
    image = images(1, 3, 240, 200)
    expected = reference(image)
    assert 0.3 < expected.std() < 3
    assert max_difference(network(image), expected) <= 1e-5


def test_the_feature_maps_of_all_stages_equal_at_240x200():
    """torchvision's list alternates embedding, stage, merging, stage, ..."""
    network, reference = pair(depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8))
    image = images(2, 3, 240, 200)
    expected = [reference.features[:end](image).permute(0, 3, 1, 2) for end in (2, 4, 6, 8)]
    torch.testing.assert_close(network.features(image), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (60, 52), (36, 76), (100, 68)])
@pytest.mark.parametrize("window", [(4, 4), (3, 4)])
def test_tiny_networks_equal_at_any_size_of_whole_patches(size, window):
    network, reference = pair(window)
    image = images(2, 3, *size)
    assert max_difference(network(image), reference(image)) <= 1e-5


def test_the_gradients_of_every_parameter_and_of_the_image_equal_with_padding_and_shift():
    network, reference = pair()
    image = images(2, 3, 60, 52)
    expected = translate(gradients(reference, image), TORCHVISION)
    torch.testing.assert_close(gradients(network, image), expected, atol=1e-5, rtol=1e-4)


def test_on_a_map_smaller_than_the_window_they_differ_as_torchvision_fills_the_window_with_padding():
    """swin_lab attends within the map alone (DESIGN.md 4.4), as the published code does when a model is built that small."""
    network, reference = pair((7, 7))
    image = images(1, 3, 16, 20)
    assert max_difference(network(image), reference(image)) > 1e-2
