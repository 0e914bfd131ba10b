"""Parity with torchvision 0.29 under the same random weights. Logits of order one differ by 1e-5 at most (fp32)."""

import pytest
import torch
from keys import TORCHVISION, furthest, gradients, images, randomise, translate
from torchvision.models import swin_t as torchvision_swin_t
from torchvision.models.swin_transformer import SwinTransformer as TorchvisionSwin

from swin_lab import SwinTransformer, create_model


@pytest.fixture(scope="module")
def swin_t():
    peer = randomise(torchvision_swin_t(weights=None))
    ours = create_model("swin_tiny_patch4_window7_224").eval()
    ours.load_state_dict(translate(peer.state_dict(), TORCHVISION), strict=True)
    return ours.requires_grad_(False), peer.requires_grad_(False)


def pair(window=(4, 4), depths=(2, 2), num_heads=(2, 4)):
    """A tiny network of each with the same weights, windows as for large images."""
    config = {"embed_dim": 16, "depths": list(depths), "num_heads": list(num_heads), "num_classes": 5}
    peer = randomise(TorchvisionSwin(patch_size=[4, 4], window_size=list(window), **config))
    ours = SwinTransformer(**config, img_size=512, window_size=[window] * len(depths)).eval()
    ours.load_state_dict(translate(peer.state_dict(), TORCHVISION), strict=True)
    return ours, peer


def test_logits_equal_at_240x200_where_windows_divide_the_map_of_no_stage(swin_t):
    ours, peer = swin_t
    image = images(1, 3, 240, 200)
    expected = peer(image)
    assert 0.3 < expected.std() < 3
    assert furthest(ours(image), expected) <= 1e-5


def test_the_feature_maps_of_all_stages_equal_at_240x200():
    """torchvision's list alternates: embedding, stage, merging, stage, ..."""
    ours, peer = pair(depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8))
    image = images(2, 3, 240, 200)
    expected = [peer.features[:end](image).permute(0, 3, 1, 2) for end in (2, 4, 6, 8)]
    torch.testing.assert_close(ours.features(image), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (60, 52), (36, 76), (100, 68)])
@pytest.mark.parametrize("window", [(4, 4), (3, 4)])
def test_tiny_networks_equal_at_any_size_of_whole_patches(size, window):
    ours, peer = pair(window)
    image = images(2, 3, *size)
    assert furthest(ours(image), peer(image)) <= 1e-5


def test_the_gradients_of_every_parameter_and_of_the_image_equal_with_padding_and_shift():
    ours, peer = pair()
    image = images(2, 3, 60, 52)
    expected = translate(gradients(peer, image), TORCHVISION)
    torch.testing.assert_close(gradients(ours, image), expected, atol=1e-5, rtol=1e-4)


def test_on_a_map_smaller_than_the_window_they_differ_as_torchvision_fills_the_window_with_padding():
    """Ours attends within the map alone (DESIGN.md 4.4), as the published code does when a model is made that small."""
    ours, peer = pair((7, 7))
    image = images(1, 3, 16, 20)
    assert furthest(ours(image), peer(image)) > 1e-2
