"""The published evaluations, tensor for tensor, on real images; and what a run says of the one it used."""

import json
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY, Command, only_run
from PIL import Image
from torchvision import transforms

from swin_lab.data import Preprocessing
from swin_lab.data.images import open_rgb
from swin_lab.errors import UserError
from swin_lab.models import create_model
from swin_lab.weights.preprocessing import IMAGENET_MEAN, IMAGENET_STD, PRESETS, preset

SAMPLE = ROOT.parent / "shared" / "data" / "imagenet-sample" / "val"
BICUBIC = transforms.InterpolationMode.BICUBIC

EXPECTED = {
    ("official", "swin_tiny_patch4_window7_224"): (256, 224),
    ("official", "swinv2_base_window12_192"): (219, 192),
    ("official", "swinv2_tiny_window8_256"): (292, 256),
    ("official", "swin_base_patch4_window12_384"): ((384, 384), 384),
    ("timm", "swin_tiny_patch4_window7_224"): (248, 224),
    ("timm", "swinv2_tiny_window8_256"): (284, 256),
    ("timm", "swin_base_patch4_window12_384"): (384, 384),
    ("torchvision", "swin_tiny_patch4_window7_224"): (232, 224),
    ("torchvision", "swin_small_patch4_window7_224"): (246, 224),
    ("torchvision", "swin_base_patch4_window7_224"): (238, 224),
    ("torchvision", "swinv2_tiny_window8_256"): (260, 256),
    ("torchvision", "swinv2_small_window8_256"): (260, 256),
    ("torchvision", "swinv2_base_window8_256"): (272, 256),
    ("huggingface", "swin_tiny_patch4_window7_224"): ((224, 224), 224),
}
"""Preset and variant -> what torchvision's Resize is given, and the crop."""


def ours(name: str, variant: str):
    with torch.device("meta"):
        config = create_model(variant).config
    size = (config["img_size"], config["img_size"])
    fitted = preset(name, config)
    return Preprocessing.checked(img_size=size, channels=3, mean=IMAGENET_MEAN, std=IMAGENET_STD, **fitted).for_evaluation()


def theirs(resize: int | tuple[int, int], crop: int):
    normalise = transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)
    fit = [transforms.Resize(resize, BICUBIC), transforms.CenterCrop(crop)]
    return transforms.Compose([*fit, transforms.ToTensor(), normalise])


def photographs() -> list[Path]:
    files = sorted(SAMPLE.rglob("*.JPEG"))
    if not files:
        pytest.skip(f"there is no {SAMPLE}")
    return files


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["swin_tiny_patch4_window7_224", "swin_base_patch4_window12_384"])
def test_the_official_preset_gives_torchvisions_tensor_for_each_real_image(variant: str) -> None:
    """PIL Resize(256, bicubic) + CenterCrop(224) + normalise; at 384 the stretched image. Equal to the last bit."""
    mine, reference = ours("official", variant), theirs(*EXPECTED["official", variant])
    files = photographs()
    assert len(files) == 500
    for file in files:
        with Image.open(file) as image:
            expected = reference(image.convert("RGB"))
        assert torch.equal(mine(open_rgb(file)), expected), file


@pytest.mark.parametrize(("name", "variant"), EXPECTED)
def test_every_preset_gives_torchvisions_tensor_at_its_sizes(name: str, variant: str) -> None:
    mine, reference = ours(name, variant), theirs(*EXPECTED[name, variant])
    generator = torch.Generator().manual_seed(0)
    for size in ((500, 375), (333, 500), (68, 100), (301, 1203), (256, 256)):
        pixels = torch.randint(0, 256, (size[1], size[0], 3), generator=generator, dtype=torch.uint8)
        image = Image.fromarray(pixels.numpy())
        assert torch.equal(mine(image), reference(image)), size


def test_an_unknown_preset_brings_the_nearest() -> None:
    with pytest.raises(UserError, match="preset=oficial is unknown; did you mean official"):
        preset("oficial", {"img_size": 224})


@pytest.mark.parametrize("name", PRESETS)
def test_a_run_logs_its_preset_with_its_metrics(command: Command, tmp_path: Path, name: str) -> None:
    outcome = command("train", *TINY, f"preset={name}", "trainer.max_epochs=1")
    assert outcome.code == 0, outcome.err
    result = json.loads((only_run(tmp_path) / "results.json").read_text())
    assert result["preprocessing"]["preset"] == name
    assert f"preset     {name} (" in outcome.out
    assert result["preprocessing"]["in_words"] in outcome.out.split("top-1", 2)[-1].replace("\n", "")


def test_an_evaluation_takes_another_preset_and_says_so(command: Command, tmp_path: Path) -> None:
    command("train", *TINY, "trainer.max_epochs=1", "preset=official")
    run = only_run(tmp_path)
    said = command("eval", f"checkpoint={run}", "preset=timm", "out=other").out
    assert "timm (shorter side 35, centre crop 32x32, bicubic)" in said
    result = json.loads((tmp_path / "other" / "results.json").read_text())
    assert result["preprocessing"]["preset"] == "timm"
    assert result["preprocessing"]["crop_pct"] == 0.9


def test_a_wrong_preset_is_told_before_any_image_is_read(command: Command) -> None:
    outcome = command("train", *TINY, "preset=oficial")
    assert (outcome.code, "did you mean official" in outcome.err) == (2, True)
    assert not Path("runs").exists()


def test_without_a_preset_a_run_is_prepared_as_its_data_says(command: Command, tmp_path: Path) -> None:
    command("train", *TINY, "trainer.max_epochs=1", "data.resize_mode=squash")
    result = json.loads((only_run(tmp_path) / "results.json").read_text())
    assert result["preprocessing"]["in_words"] == "own (stretched to 32x32, bicubic)"
