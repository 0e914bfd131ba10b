"""Tiny networks in which everything matters, of ours and of the peers, and what is compared of them."""

import torch
import transformers
from timm.models.swin_transformer import SwinTransformer as TimmV1
from timm.models.swin_transformer_v2 import SwinTransformerV2 as TimmV2
from torchvision.models import swin_transformer as tv

from swin_lab import SwinTransformer

TINY = {
    "img_size": 64,
    "embed_dim": 16,
    "depths": (1, 2, 2, 1),
    "num_heads": (1, 2, 2, 4),
    "window_size": 2,
    "num_classes": 5,
}
"""Four stages, whose maps (16, 8, 4, 2) no window covers but in the last: shifts matter."""


@torch.no_grad()
def randomise(model, seed=0):
    """Outputs of order one; norms, biases and position biases that change them; V2's scales near their start."""
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


def ours(version=1, seed=0, **changes):
    return randomise(SwinTransformer(version=version, **TINY | changes), seed)


def timm_peer(version):
    return randomise((TimmV1 if version == 1 else TimmV2)(**TINY))


def torchvision_peer(version):
    """Its keys have a bias without effect, zero from the start."""
    v2 = {"block": tv.SwinTransformerBlockV2, "downsample_layer": tv.PatchMergingV2} if version == 2 else {}
    config = {key: list(value) for key, value in TINY.items() if isinstance(value, tuple)}
    peer = randomise(tv.SwinTransformer(patch_size=[4, 4], window_size=[2, 2], embed_dim=16, num_classes=5, **config, **v2))
    for name, parameter in peer.named_parameters():
        if version == 2 and name.endswith("qkv.bias"):
            parameter.data[len(parameter) // 3 : 2 * len(parameter) // 3] = 0
    return peer


def transformers_peer(version):
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


PEERS = {"timm": timm_peer, "torchvision": torchvision_peer, "huggingface": transformers_peer}


def images(*shape, seed=0):
    return torch.randn(*(shape or (2, 3, 64, 64)), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits(model, image):
    output = model.eval()(image)
    return output.logits if hasattr(output, "logits") else output


def furthest(first, second, image=None):
    """The largest absolute difference of two models' logits, which must be of order one."""
    image = images() if image is None else image
    a, b = logits(first, image), logits(second, image)
    assert 0.1 < b.std() < 10
    return (a - b).abs().max().item()


def same_tensors(first, second):
    """Bit for bit, by name."""
    return list(first) == list(second) and all(torch.equal(tensor, second[name]) for name, tensor in first.items())
