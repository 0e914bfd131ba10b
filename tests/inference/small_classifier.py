"""A tiny classifier and a folder of images, which the tests of inference share."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from swin_lab import SwinConfig, SwinTransformer
from swin_lab.preprocessing import Preprocessing

CLASSES = ("ant", "bee", "cat")
GREY = (0.5, 0.5, 0.5)


def classifier(class_names: tuple[str, ...] | None = CLASSES, num_classes: int = 3) -> SwinTransformer:
    """Returns a classifier of two stages with random weights that differ much between images."""
    torch.manual_seed(0)
    config = SwinConfig(
        img_size=32, embed_dim=8, depths=(1, 2), num_heads=(1, 2), window_size=4, num_classes=num_classes, drop_path_rate=0.0
    )
    network = SwinTransformer(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    network.class_names = class_names
    network.preprocessing = Preprocessing(
        img_size=(32, 32), channels=3, crop_pct=0.9, interpolation="bicubic", mean=GREY, std=GREY
    )
    return network


def write_image(file: Path, seed: int, size: tuple[int, int] = (40, 36)) -> Path:
    """Writes noise."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)
    return file


def write_photos(folder: Path) -> Path:
    """Writes 30 images in a folder for each class, one of which cannot be read."""
    for i in range(30):
        write_image(folder / CLASSES[i % 3] / f"{i:02}.png", i)
    damaged = folder / "bee" / "13.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    return folder
