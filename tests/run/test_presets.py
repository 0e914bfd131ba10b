"""Published preprocessing equals torchvision's, tensor for tensor, and runs log which one they used."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from conftest import ROOT, TINY, Command, only_run, recorded
from PIL import Image
from torchvision import transforms
from torchvision.datasets.folder import pil_loader
from transformers.image_utils import load_image

from swin_lab.data.decoding import decode, decoder
from swin_lab.data.transforms import eval_transform
from swin_lab.errors import UserError
from swin_lab.models import model_config
from swin_lab.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from swin_lab.run.compose import composed
from swin_lab.run.evaluator import build_data_module as build_evaluation_data
from swin_lab.run.instantiate import build_dataclass
from swin_lab.run.recipe import build_recipe
from swin_lab.run.settings import TrainConfig
from swin_lab.run.trainer import find_launch
from swin_lab.run.training import build_training
from swin_lab.weights.preprocessing import PRESETS, preset_preprocessing

RECIPE = "experiment=swin_tiny_patch4_window7_224"
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
"""(preset, variant) -> arguments of torchvision's Resize and CenterCrop."""


def native_transform(name: str, variant: str):
    config = model_config(variant)
    values = preset_preprocessing(name, config)
    return eval_transform(Preprocessing(img_size=config.image_size, channels=3, mean=IMAGENET_MEAN, std=IMAGENET_STD, **values))


def torchvision_transform(resize: int | tuple[int, int], crop: int):
    normalise = transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)
    resize_and_crop = [transforms.Resize(resize, BICUBIC), transforms.CenterCrop(crop)]
    return transforms.Compose([*resize_and_crop, transforms.ToTensor(), normalise])


def sample_files() -> list[Path]:
    files = sorted(SAMPLE.rglob("*.JPEG"))
    if not files:
        pytest.skip(f"{SAMPLE} does not exist")
    return files


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["swin_tiny_patch4_window7_224", "swin_base_patch4_window12_384"])
def test_the_official_preset_equals_torchvision_for_each_real_image(variant: str) -> None:
    """Equals PIL Resize(256, bicubic), CenterCrop(224) and Normalize bit for bit; at 384 pixels, the image is stretched."""
    native, reference = native_transform("official", variant), torchvision_transform(*EXPECTED["official", variant])
    files = sample_files()
    assert len(files) == 500
    for file in files:
        with Image.open(file) as image:
            expected = reference(image.convert("RGB"))
        assert torch.equal(native(decode(file.read_bytes(), exif_orientation=False)), expected), file


def sideways(folder: Path) -> Path:
    """Writes class folders with landscape images whose EXIF orientation says that they are portraits."""
    exif = Image.Exif()
    exif[0x0112] = 6
    generator = torch.Generator().manual_seed(0)
    for split in ("train", "val"):
        for label in ("a", "b"):
            (folder / split / label).mkdir(parents=True)
            pixels = torch.randint(0, 256, (24, 40, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / split / label / "0.jpg", exif=exif)
    return folder


def read_by_timm(file: Path) -> Image.Image:
    image: Image.Image = timm.data.ImageDataset(str(file.parent.parent))[0][0]
    return image


FOLDER = [entry for entry in TINY if not entry.startswith("data")] + ["data=folder", "global_batch=2"]

ORIGINS = {
    "official": pil_loader,  # the official code's datasets are torchvision's ImageFolder, or zip files read in the same way
    "timm": read_by_timm,
    "torchvision": pil_loader,
    "huggingface": lambda file: load_image(str(file)),
}
"""Preset -> the function by which its origin reads an image file."""


@pytest.mark.parametrize("name", PRESETS)
def test_an_exif_orientation_is_treated_as_by_the_origin_of_the_preset(tmp_path: Path, name: str) -> None:
    file = sideways(tmp_path) / "val" / "a" / "0.jpg"
    values = preset_preprocessing(name, model_config("swin_tiny_patch4_window7_224"))
    preprocessing = Preprocessing(img_size=(224, 224), channels=3, mean=IMAGENET_MEAN, std=IMAGENET_STD, **values)
    expected = ORIGINS[name](file)
    assert expected.size == ((24, 40) if name == "huggingface" else (40, 24))
    assert (np.asarray(decoder(preprocessing)(file.read_bytes())) == np.asarray(expected)).all()


@pytest.mark.parametrize(("preset", "size"), [("official", (40, 24)), ("huggingface", (24, 40)), ("null", (24, 40))])
def test_training_and_evaluation_read_images_as_the_preset_says(tmp_path: Path, preset: str, size: tuple[int, int]) -> None:
    config = composed([*FOLDER, "name=tiny", f"data.root={sideways(tmp_path)}", f"preset={preset}"])
    training = build_training(build_dataclass("", TrainConfig, config), find_launch(config["trainer"], "32-true"), config)
    evaluation = build_evaluation_data(training.data, training.task, training.preprocessing, 1)
    content = training.data.source.train.encoded(0)
    assert [module.decode(content).size for module in (training.data_module, evaluation)] == [size, size]


@pytest.mark.parametrize(("name", "variant"), EXPECTED)
def test_every_preset_equals_torchvision_at_its_sizes(name: str, variant: str) -> None:
    native, reference = native_transform(name, variant), torchvision_transform(*EXPECTED[name, variant])
    generator = torch.Generator().manual_seed(0)
    for size in ((500, 375), (333, 500), (68, 100), (301, 1203), (256, 256)):
        pixels = torch.randint(0, 256, (size[1], size[0], 3), generator=generator, dtype=torch.uint8)
        image = Image.fromarray(pixels.numpy())
        assert torch.equal(native(image), reference(image)), size


def test_an_unknown_preset_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UserError, match="preset=oficial is unknown; did you mean official"):
        preset_preprocessing("oficial", model_config("swin_tiny_patch4_window7_224"))


@pytest.mark.parametrize("name", PRESETS)
def test_a_run_logs_its_preset_with_its_metrics(command: Command, tmp_path: Path, name: str) -> None:
    outcome = command("train", *TINY, f"preset={name}", "trainer.max_epochs=1")
    assert outcome.code == 0, outcome.err
    result = recorded(only_run(tmp_path))
    assert result["preprocessing.preset"] == name
    assert f"preset     {name} (" in outcome.out
    assert result["preprocessing.description"] in outcome.out.split("top-1", 2)[-1].replace("\n", "")


def test_an_evaluation_uses_and_logs_another_preset(command: Command, tmp_path: Path) -> None:
    command("train", *TINY, "trainer.max_epochs=1", "preset=official")
    run = only_run(tmp_path)
    printed = command("eval", f"checkpoint={run}", "preset=timm", "out=other").out
    assert "timm (shorter side 35, centre crop 32x32, bicubic)" in printed
    result = recorded(tmp_path / "other")
    assert result["preprocessing.preset"] == "timm"
    assert result["preprocessing.crop_pct"] == 0.9


def test_a_wrong_preset_is_refused_before_any_image_is_read(command: Command) -> None:
    outcome = command("train", *TINY, "preset=oficial")
    assert (outcome.code, "did you mean official" in outcome.err) == (2, True)
    assert not Path("runs").exists()


def test_without_a_preset_the_keys_of_data_apply(command: Command, tmp_path: Path) -> None:
    command("train", *TINY, "trainer.max_epochs=1", "data.resize_mode=stretch")
    result = recorded(only_run(tmp_path))
    assert result["preprocessing.description"] == "own (stretched to 32x32, bicubic)"


@pytest.mark.parametrize(
    ("model", "used"),
    [
        (["model=timm", "model.name=resnet10t"], "for a TimmModel, its own preprocessing is used"),
        (["model=torchvision", "model.name=resnet18"], "for a TorchvisionModel, its own preprocessing is used"),
    ],
    ids=str,
)
def test_the_preset_of_a_recipe_leaves_the_model_of_another_library_its_own_preprocessing(
    caplog: pytest.LogCaptureFixture, model: list[str], used: str
) -> None:
    given = [*model, "data=synthetic"]
    with caplog.at_level("INFO", "swin_lab"):
        recipes = [build_recipe(composed([experiment, *given])) for experiment in (RECIPE, "experiment=none")]
    assert recipes[0].preprocessing == recipes[1].preprocessing
    assert [record.message.endswith(used) for record in caplog.records] == [True]


def test_an_unknown_preset_is_refused_for_every_model() -> None:
    with pytest.raises(UserError, match="preset=oficial is unknown; did you mean official"):
        build_recipe(composed(["model=timm", "model.name=resnet10t", "data=synthetic", "preset=oficial"]))
