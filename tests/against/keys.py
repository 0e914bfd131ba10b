"""Weight names of reference models in swin_lab, and random weights under which every part of a network affects its logits."""

import re

import torch

TIMM = [
    (r"^patch_embed\.", r"embed."),
    (r"^layers\.(\d+)\.downsample\.", r"stages.\1.merge."),
    (r"^layers\.(\d+)\.blocks\.", r"stages.\1.blocks."),
    (r"^head\.fc\.", r"head."),
]
"""(pattern, replacement) for timm 1.0.31, where merging is the first layer of a stage, as in swin_lab."""

TORCHVISION = [
    (r"^features\.0\.0\.", r"embed.proj."),
    (r"^features\.0\.2\.", r"embed.norm."),
    (r"^features\.(\d*[02468])\.(?=norm|reduction)", lambda found: f"stages.{int(found[1]) // 2}.merge."),
    (r"^features\.(\d*[13579])\.", lambda found: f"stages.{int(found[1]) // 2}.blocks."),
    (r"\.mlp\.0\.", r".mlp.fc1."),
    (r"\.mlp\.3\.", r".mlp.fc2."),
]
"""(pattern, replacement) for torchvision 0.29, where embedding, stage, merging, stage, ... share one list."""

DERIVED = re.compile(r"relative_position_index$")


def translate(tensors, table):
    """Returns a reference model's tensors under the names of swin_lab, without those that follow from the geometry."""
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
    """Fills a model with weights that keep outputs at order one, norms and biases that affect them, position biases near ±1."""
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
    """Returns the gradients of a fixed random projection of the logits by parameter name, and that of the image as "image"."""
    image = image.clone().requires_grad_()
    logits = model(image)
    (logits * images(*logits.shape, seed=1)).sum().backward()
    return {name: p.grad for name, p in model.named_parameters()} | {"image": image.grad}


def max_difference(actual, expected):
    """Returns the largest absolute difference."""
    return (actual - expected).abs().max().item()
