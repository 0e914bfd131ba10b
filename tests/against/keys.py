"""Names of a peer's weights in swin_lab, and random weights under which every part of a network shows in its logits."""

import re

import torch

TIMM = [
    (r"^patch_embed\.", r"embed."),
    (r"^layers\.(\d+)\.downsample\.", r"stages.\1.merge."),
    (r"^layers\.(\d+)\.blocks\.", r"stages.\1.blocks."),
    (r"^head\.fc\.", r"head."),
]
"""(pattern, replacement); timm 1.0.31, where merging opens a stage, as ours does."""

TORCHVISION = [
    (r"^features\.0\.0\.", r"embed.proj."),
    (r"^features\.0\.2\.", r"embed.norm."),
    (r"^features\.(\d*[02468])\.(?=norm|reduction)", lambda found: f"stages.{int(found[1]) // 2}.merge."),
    (r"^features\.(\d*[13579])\.", lambda found: f"stages.{int(found[1]) // 2}.blocks."),
    (r"\.mlp\.0\.", r".mlp.fc1."),
    (r"\.mlp\.3\.", r".mlp.fc2."),
]
"""torchvision 0.29: embedding, stage, merging, stage, ... share one list."""

DERIVED = re.compile(r"relative_position_index$")


def translate(tensors, table):
    """A peer's named tensors under our names, without those that follow from the geometry."""
    translated = {}
    for name, tensor in tensors.items():
        if DERIVED.search(name):
            continue
        for pattern, replacement in table:
            name = re.sub(pattern, replacement, name)
        translated[name] = tensor
    return translated


@torch.no_grad()
def randomise(model, seed=0):
    """Weights that keep outputs at order one, norms and biases that change them, relative position biases around ±1."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("relative_position_bias_table"):
            parameter.copy_(noise)
        elif parameter.ndim > 1:
            parameter.copy_(noise * parameter[0].numel() ** -0.5)
        else:
            parameter.copy_(0.3 * noise + (name.endswith("weight")))
    return model.eval()


def images(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradients(model, image):
    """Of a fixed random projection of the logits, by parameter name; that of the image under "image"."""
    image = image.clone().requires_grad_()
    logits = model(image)
    (logits * images(*logits.shape, seed=1)).sum().backward()
    return {name: p.grad for name, p in model.named_parameters()} | {"image": image.grad}


def furthest(ours, theirs):
    """The largest absolute difference."""
    return (ours - theirs).abs().max().item()
