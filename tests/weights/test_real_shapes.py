"""Tiny and base, V1 and V2, read from and written for timm, torchvision and transformers: logits within 1e-5 (fp32)."""

import pytest
import torch
from parts import images, max_difference, randomise, same_tensors

from swin_lab import create_model
from swin_lab.weights import load
from swin_lab.weights.reference_models import LIBRARIES, build_reference_model

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
def test_native_weights_give_the_reference_model_s_logits_and_are_read_back(name, model, layout, tmp_path):
    pytest.importorskip(LIBRARIES[layout])
    image = images(1, 3, *model.config.image_size)
    reference = build_reference_model(model, layout).eval()  # strict: every tensor of the reference is filled
    assert max_difference(model, reference, image) <= 1e-5
    torch.save(reference.state_dict(), tmp_path / "reference.pth")
    back, report = load(tmp_path / "reference.pth", name=name)
    assert same_tensors(back.state_dict(), model.state_dict())
    assert report.checkpoint.layout.name == layout


@pytest.mark.parametrize("layout", ["timm", "huggingface"])
@pytest.mark.parametrize("variant", ["swinv2_tiny_window16_256", "swinv2_base_window12to16_192to256"])
def test_shrunk_windows_and_windows_of_an_earlier_training(variant, layout):
    pytest.importorskip(LIBRARIES[layout])
    model = randomise(create_model(variant, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8], embed_dim=32))
    assert max_difference(model, build_reference_model(model, layout), images(1, 3, 256, 256)) <= 1e-5
