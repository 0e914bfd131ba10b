"""Tiny native networks and reference models in which every tensor has an effect, and comparisons of them."""

import pytest
import torch
from timm.models.swin_transformer import SwinTransformer as TimmV1
from timm.models.swin_transformer_v2 import SwinTransformerV2 as TimmV2
from torchvision.models import swin_transformer as tv

from swin_lab import SwinTransformer
from swin_lab.errors import UserError
from swin_lab.models import SwinConfig
from swin_lab.weights import load

TINY = {
    "img_size": 64,
    "embed_dim": 16,
    "depths": (1, 2, 2, 1),
    "num_heads": (1, 2, 2, 4),
    "window_size": 2,
    "num_classes": 5,
}
"""Four stages with maps of 16, 8, 4 and 2 tokens, which only the last window covers, so that shifts have an effect."""


@torch.no_grad()
def randomise(model, seed=0):
    """Sets random weights: outputs of order one, norms and biases that change them, V2's scales near their initialisation."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("logit_scale"):
            parameter.copy_(2.3 + 0.5 * noise)
        elif name.endswith("relative_position_bias_table"):
            parameter.copy_(noise)
        elif parameter.ndim > 1:
            parameter.copy_(noise * parameter[0].numel() ** -0.5)
        else:
            parameter.copy_(0.3 * noise + (name.endswith("weight")))
    return model.eval()


def native(version=1, seed=0, **changes):
    return randomise(SwinTransformer(SwinConfig(version=version, **TINY | changes)), seed)


def timm_reference(version):
    return randomise((TimmV1 if version == 1 else TimmV2)(**TINY))


def torchvision_reference(version):
    """Returns torchvision's model; its keys have a bias without effect, which is zero from the beginning."""
    v2 = {"block": tv.SwinTransformerBlockV2, "downsample_layer": tv.PatchMergingV2} if version == 2 else {}
    config = {key: list(value) for key, value in TINY.items() if isinstance(value, tuple)}
    reference = randomise(
        tv.SwinTransformer(patch_size=[4, 4], window_size=[2, 2], embed_dim=16, num_classes=5, **config, **v2)
    )
    for name, parameter in reference.named_parameters():
        if version == 2 and name.endswith("qkv.bias"):
            parameter.data[len(parameter) // 3 : 2 * len(parameter) // 3] = 0
    return reference


def transformers_reference(version):
    """Returns a model of transformers; without that package, the test is skipped."""
    transformers = pytest.importorskip("transformers")
    config = {
        "image_size": 64,
        "embed_dim": 16,
        "depths": [1, 2, 2, 1],
        "num_heads": [1, 2, 2, 4],
        "window_size": 2,
        "num_labels": 5,
    }
    if version == 1:
        return randomise(transformers.SwinForImageClassification(transformers.SwinConfig(**config)))
    return randomise(transformers.Swinv2ForImageClassification(transformers.Swinv2Config(**config)))


REFERENCE_MODELS = {"timm": timm_reference, "torchvision": torchvision_reference, "huggingface": transformers_reference}


def images(*shape, seed=0):
    return torch.randn(*(shape or (2, 3, 64, 64)), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits(model, image):
    output = model.eval()(image)
    return output.logits if hasattr(output, "logits") else output


def max_difference(first, second, image=None):
    """Returns the largest absolute difference of two models' logits, which must be of order one."""
    image = images() if image is None else image
    a, b = logits(first, image), logits(second, image)
    assert 0.1 < b.std() < 10
    return (a - b).abs().max().item()


def sizes(config):
    """Returns what a configuration says about the sizes of a network, however its windows were given."""
    names = ("version", "image_size", "in_channels", "num_classes", "depths", "num_heads", "channels", "maps", "windows")
    return [getattr(config, name) for name in (*names, "pretrained_windows")]


def same_tensors(first, second):
    """Returns whether tensors are equal bit for bit, by name."""
    return list(first) == list(second) and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def assert_refused(file, *parts):
    """Checks that a file is refused in one to four lines that contain some parts."""
    with pytest.raises(UserError) as refusal:
        load(file)
    message = str(refusal.value)
    assert 1 <= len(message.splitlines()) <= 4
    for part in parts:
        assert part in message
