"""Tiny and base as published, V1 and V2, against timm, torchvision and transformers, both ways: logits within 1e-5 (fp32)."""

import pytest
import torch
from parts import furthest, images, randomise, same_tensors

from swin_lab import create_model
from swin_lab.weights import load
from swin_lab.weights.peers import LIBRARIES, build_peer

pytestmark = pytest.mark.slow

NAMES = (
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
    "swin_base_patch4_window7_224",
    "swinv2_base_window8_256",
)


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    return randomise(create_model(name))


@pytest.mark.parametrize("layout", LIBRARIES)
def test_ours_in_the_peer_and_the_peer_s_file_in_ours(name, model, layout, tmp_path):
    image = images(1, 3, *model.shape.img_size)
    peer = build_peer(model, layout).eval()  # strict: every tensor of the peer is filled
    assert furthest(model, peer, image) <= 1e-5
    torch.save(peer.state_dict(), tmp_path / "peer.pth")
    back, report = load(tmp_path / "peer.pth", name=name)
    assert same_tensors(back.state_dict(), model.state_dict())
    assert report.checkpoint.layout.name == layout


@pytest.mark.parametrize("layout", ["timm", "huggingface"])
@pytest.mark.parametrize("variant", ["swinv2_tiny_window16_256", "swinv2_base_window12to16_192to256"])
def test_shrunk_windows_and_windows_of_an_earlier_training(variant, layout):
    model = randomise(create_model(variant, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8], embed_dim=32))
    assert furthest(model, build_peer(model, layout), images(1, 3, 256, 256)) <= 1e-5
