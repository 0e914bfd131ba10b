"""Compares every published recipe, value by value, with its source (the official configurations, torchvision's README)."""

import math
import re
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from timm.data import create_transform
from torchvision.transforms import v2

from swin_lab.paths import CONF
from swin_lab.run.compose import composed
from swin_lab.run.instantiate import instantiate
from swin_lab.run.recipe import Recipe, build_recipe, derived_values

IMAGES = 1_281_167
SHIPPED = {file.stem for file in (CONF / "experiment").glob("*.yaml") if not file.stem.startswith("_")} - {"none"}
SMALL_DATA = {"cifar10", "cifar100", "finetune_lora", "finetune_small"}

SCRATCH = {
    "swin_tiny_patch4_window7_224": ("tiny", 0.2),
    "swin_small_patch4_window7_224": ("small", 0.3),
    "swin_base_patch4_window7_224": ("base", 0.5),
    "swin_tiny_c24_patch4_window8_256": ("tiny", 0.2),
    "swin_mlp_tiny_c24_patch4_window8_256": ("mlp_tiny_c24", 0.2),
    "swin_mlp_tiny_c12_patch4_window8_256": ("mlp_tiny_c12", 0.2),
    "swin_mlp_tiny_c6_patch4_window8_256": ("mlp_tiny_c6", 0.2),
    "swin_mlp_base_patch4_window7_224": ("mlp_base", 0.5),
    "swinv2_tiny_patch4_window8_256": ("tiny", 0.2),
    "swinv2_tiny_patch4_window16_256": ("tiny", 0.2),
    "swinv2_small_patch4_window8_256": ("small", 0.3),
    "swinv2_small_patch4_window16_256": ("small", 0.3),
    "swinv2_base_patch4_window8_256": ("base", 0.5),
    "swinv2_base_patch4_window16_256": ("base", 0.5),
}
"""Name -> size, drop path."""
PRETRAINING = {
    "swin_tiny_patch4_window7_224_22k": ("tiny", 0.1, 0.05),
    "swin_small_patch4_window7_224_22k": ("small", 0.2, 0.05),
    "swin_base_patch4_window7_224_22k": ("base", 0.2, 0.05),
    "swin_large_patch4_window7_224_22k": ("large", 0.2, 0.05),
    "swinv2_base_patch4_window12_192_22k": ("base", 0.2, 0.1),
    "swinv2_large_patch4_window12_192_22k": ("large", 0.2, 0.1),
}
"""Name -> size, drop path, weight decay."""
FINE_TUNING = {
    "swin_tiny_patch4_window7_224_22kto1k": ("tiny", 0.1),
    "swin_small_patch4_window7_224_22kto1k": ("small", 0.2),
    "swin_base_patch4_window7_224_22kto1k": ("base", 0.2),
    "swin_large_patch4_window7_224_22kto1k": ("large", 0.2),
    "swin_base_patch4_window12_384_22kto1k": ("base", 0.2),
    "swin_large_patch4_window12_384_22kto1k": ("large", 0.2),
    "swin_base_patch4_window12_384_finetune": ("base", 0.5),
    "swinv2_base_patch4_window12to16_192to256_22kto1k_ft": ("base", 0.2),
    "swinv2_large_patch4_window12to16_192to256_22kto1k_ft": ("large", 0.2),
    "swinv2_base_patch4_window12to24_192to384_22kto1k_ft": ("base", 0.2),
    "swinv2_large_patch4_window12to24_192to384_22kto1k_ft": ("large", 0.2),
}
TORCHVISION = {
    "torchvision_swin_t": ("tiny", 0.2, 232),
    "torchvision_swin_s": ("small", 0.3, 246),
    "torchvision_swin_b": ("base", 0.5, 238),
    "torchvision_swin_v2_t": ("tiny", 0.2, 260),
    "torchvision_swin_v2_s": ("small", 0.3, 260),
    "torchvision_swin_v2_b": ("base", 0.5, 272),
}
"""Name -> size, drop path, shorter side in an evaluation."""
OFFICIAL = SCRATCH | PRETRAINING | FINE_TUNING
SIMMIM = {
    "swin_base_patch4_window6_192_simmim": (0.0, None, 89_874_104),
    "swinv2_small_patch4_window12_192_simmim": (0.1, 47, 48_959_418 + 96 + 768 * 3072 + 3072),
    "swinv2_base_patch4_window12_192_simmim": (0.1, 47, 90_042_744),
    "swinv2_large_patch4_window12_192_simmim": (0.1, 47, 195_202_932 + 192 + 1536 * 3072 + 3072),
    "swinv2_huge_patch4_window12_192_simmim": (0.1, 47, 655_210_922 + 352 + 2816 * 3072 + 3072),
}
"""Name -> drop path, side of the square by which targets are normalised, parameters with mask token and decoder."""
SIMMIM_FINE_TUNING = {
    "swin_base_patch4_window7_224_simmim_ft": 0.8,
    **{f"swinv2_{size}_patch4_window12to14_192to224_simmim_ft": 0.75 for size in ("small", "base", "large", "huge")},
}
"""Name -> layer decay."""

TENSORS = {
    (1, "tiny"): (173, 53),
    (1, "deep"): (329, 101),
    (2, "tiny"): (221, 53),
    (2, "deep"): (425, 101),
    ("mlp", "tiny"): (137, 41),
    ("mlp", "deep"): (257, 77),
}
"""Parameter tensors and decayed ones, by version and depth."""
DECAYED_1K = {
    "tiny": 28_199_424,
    "small": 49_433_088,
    "base": 87_537_664,
    "large": 196_187_136,
    "mlp_tiny_c24": 20_326_912,
    "mlp_tiny_c12": 21_080_576,
    "mlp_tiny_c6": 22_587_904,
    "mlp_base": 60_522_104,
}
"""Numbers in decayed tensors of a network with 1,000 classes, the same for both versions; of Swin-MLP by official shapes."""
WIDTH = {"tiny": 768, "small": 768, "base": 1024, "large": 1536, "mlp_base": 1024}
WIDTH |= dict.fromkeys(("mlp_tiny_c24", "mlp_tiny_c12", "mlp_tiny_c6"), 768)
DROP_STEP = {("tiny", 0.2): 0.0181818, ("small", 0.3): 0.0130435, ("base", 0.5): 0.0217391}


@cache
def config_of(name: str, *overrides: str) -> dict[str, Any]:
    return composed([f"experiment={name}", *overrides])


@cache
def recipe(name: str, *overrides: str, devices: int = 8) -> Recipe:
    """Returns a recipe, which is built once for all tests: they only read it, and it has no weights."""
    return build_recipe(config_of(name, *overrides), devices)


def test_every_experiment_is_pinned_here() -> None:
    assert {*OFFICIAL, *TORCHVISION, *SIMMIM, *SIMMIM_FINE_TUNING, *SMALL_DATA} == SHIPPED


@pytest.mark.parametrize("name", SCRATCH)
def test_from_scratch_learning_rates_and_updates_are_the_published_ones(name: str) -> None:
    found = derived_values(recipe(name))
    assert found["learning rate"] == pytest.approx(1e-3, rel=1e-12)
    assert found["initial learning rate"] == pytest.approx(1e-6, rel=1e-12)
    assert found["final learning rate"] == pytest.approx(1e-5, rel=1e-12)
    assert (found["updates per epoch"], found["warm-up updates"], found["updates"]) == (1251, 25_020, 375_300)


@pytest.mark.parametrize("name", FINE_TUNING)
def test_fine_tuning_learning_rates_and_updates_are_the_published_ones(name: str) -> None:
    found = recipe(name)
    derived = derived_values(found)
    assert derived["learning rate"] == pytest.approx(4e-5, rel=1e-12)
    assert derived["initial learning rate"] == pytest.approx(4e-8, rel=1e-12)
    assert derived["final learning rate"] == pytest.approx(4e-7, rel=1e-12)
    assert (derived["updates per epoch"], derived["warm-up updates"], derived["updates"]) == (1251, 6255, 37_530)
    assert found.learning_rate(18_765) == pytest.approx(2.63185365e-5, rel=1e-8)


def test_as_published_the_cosine_drops_at_the_end_of_the_warm_up() -> None:
    found = recipe("swin_large_patch4_window7_224_22kto1k", "schedule.cosine_after_warmup=false")
    assert found.learning_rate(6255) == pytest.approx(3.73473030e-5, rel=1e-8)
    assert found.learning_rate(18_765) == pytest.approx(2.02e-5, rel=1e-8)


@pytest.mark.parametrize("name", PRETRAINING)
def test_pre_training_learning_rates_and_epochs_are_the_published_ones(name: str) -> None:
    found = recipe(name)
    derived = derived_values(found)
    assert derived["learning rate"] == pytest.approx(1e-3, rel=1e-12)
    assert derived["initial learning rate"] == pytest.approx(1e-6, rel=1e-12)
    assert derived["final learning rate"] == pytest.approx(1e-5, rel=1e-12)
    assert (found.config["global_batch"], found.config["trainer"]["max_epochs"]) == (4096, 90)
    assert found.config["schedule"]["warmup_epochs"] == 5
    assert found.model.network.config.num_classes == 21_841  # type: ignore[union-attr, index]


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_learning_rates_and_ema_are_the_published_ones(name: str) -> None:
    found = recipe(name)
    derived = derived_values(found)
    assert derived["learning rate"] == pytest.approx(1e-3, rel=1e-12)
    assert derived["initial learning rate"] == pytest.approx(1e-5, rel=1e-12)
    in_epoch_300 = 1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi * 279 / 280)) / 2  # 1e-5 would be next
    assert derived["final learning rate"] == pytest.approx(in_epoch_300, rel=1e-12)
    assert found.config["schedule"]["interval"] == "epoch"
    assert found.config["data"]["repeats"] == 4
    assert found.config["ema"]["decay"] == pytest.approx(1 - min(1, (1 - 0.99998) * 8 * 128 * 32 / 300), rel=1e-6)
    assert (found.config["ema"]["every"], found.config["ema"]["warmup"]) == (32, False)


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_evaluates_at_the_published_size(name: str) -> None:
    size = 256 if "_v2_" in name else 224
    expected = f"torchvision (shorter side {TORCHVISION[name][2]}, centre crop {size}x{size}, bicubic)"
    assert derived_values(recipe(name))["evaluation"] == expected


def test_torchvision_augments_as_in_its_recipe() -> None:
    steps = recipe("torchvision_swin_t").config["augment"]
    names = [step["_target_"].rpartition(".")[2] for part in ("image_transforms", "tensor_transforms") for step in steps[part]]
    assert names == ["RandomResizedCrop", "RandomHorizontalFlip", "TrivialAugmentWide", "RandomErasing"]
    assert steps["tensor_transforms"][0]["p"] == 0.25
    assert {step["interpolation"] for step in steps["image_transforms"] if "interpolation" in step} == {3}


def transformed(transform: v2.Transform, image: Image.Image) -> list[bytes]:
    """Results for ten seeds: TrivialAugment chooses one operation per call."""
    results = []
    for seed in range(10):
        torch.manual_seed(seed)
        results.append(transform(image).tobytes())
    return results


def test_torchvision_interpolates_bicubically() -> None:
    """Interpolation 3, as in its command line, is the constant of PIL; v2 transforms accept it."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for step in recipe("torchvision_swin_t").config["augment"]["image_transforms"]:
        if "interpolation" in step:
            built = instantiate("augment", step, {"size": 64})
            arguments = {key: value for key, value in step.items() if key not in ("_target_", "interpolation")}
            bicubic, bilinear = (
                type(built)(
                    **arguments, **({"size": 64} if hasattr(built, "size") else {}), interpolation=v2.InterpolationMode(m)
                )
                for m in ("bicubic", "bilinear")
            )
            image = Image.fromarray(noise)
            assert transformed(built, image) == transformed(bicubic, image) != transformed(bilinear, image)


@pytest.mark.parametrize("name", OFFICIAL | TORCHVISION)
def test_as_many_tensors_decay_as_in_the_official_code(name: str) -> None:
    size = (OFFICIAL | TORCHVISION)[name][0]
    derived = derived_values(recipe(name))
    version = 2 if "v2_" in name else 1
    classes = 21_841 if name in PRETRAINING else 1000
    kind, depth = "mlp" if "mlp" in size else version, "tiny" if "tiny" in size else "deep"
    assert (derived["tensors"], derived["tensors with weight decay"]) == TENSORS[kind, depth]
    assert derived["parameters with weight decay"] == DECAYED_1K[size] + (classes - 1000) * WIDTH[size]


@pytest.mark.parametrize("name", [*OFFICIAL, *SIMMIM, *SIMMIM_FINE_TUNING])
def test_the_network_has_the_windows_and_the_size_of_its_name(name: str) -> None:
    windows = re.search(r"window(?:12to)?(\d+)", name)
    size = re.search(r"_(?:192to)?(192|224|256|384)(?:_|$)", name)
    assert windows is not None
    assert size is not None
    config = recipe(name).config["model"]
    assert (config["window_size"], config["img_size"]) == (int(windows[1]), int(size[1]))


@pytest.mark.parametrize("name", OFFICIAL | TORCHVISION)
def test_drop_path_is_the_published_one(name: str) -> None:
    size, drop = (OFFICIAL | TORCHVISION)[name][:2]
    derived = derived_values(recipe(name))
    assert derived["drop path rate of the last block"] == pytest.approx(drop, rel=1e-12)
    if (size, drop) in DROP_STEP:
        assert derived["drop path rate per block"] == pytest.approx(DROP_STEP[size, drop], abs=1e-7)


@pytest.mark.parametrize(("name", "drop"), [(name, values[1]) for name, values in (OFFICIAL | TORCHVISION).items()])
def test_the_network_has_the_drop_path_rates_of_the_recipe(name: str, drop: float) -> None:
    network = recipe(name).model.network
    rates = [float(block.drop_path.p) for stage in network.stages for block in stage.blocks]  # type: ignore[union-attr]
    assert rates[0] == 0
    assert rates == pytest.approx([drop * i / (len(rates) - 1) for i in range(len(rates))], rel=1e-5)


@pytest.mark.parametrize("name", OFFICIAL)
def test_images_are_evaluated_as_the_official_code_does(name: str) -> None:
    size = next(size for size in (384, 256, 192, 224) if f"_{size}" in name or f"to{size}" in name)
    shorter = {192: 219, 224: 256, 256: 292}
    fitted = "stretched to 384x384" if size == 384 else f"shorter side {shorter[size]}, centre crop {size}x{size}"
    assert derived_values(recipe(name))["evaluation"] == f"official ({fitted}, bicubic)"


@pytest.mark.parametrize("name", OFFICIAL)
def test_mixing_smoothing_and_augmentation_are_enabled(name: str) -> None:
    config = recipe(name).config
    assert config["task"]["label_smoothing"] == 0.1
    assert {key: config["mixing"][key] for key in ("mixup", "cutmix", "prob", "switch_prob", "mode")} == {
        "mixup": 0.8,
        "cutmix": 1.0,
        "prob": 1.0,
        "switch_prob": 0.5,
        "mode": "batch",
    }
    augment = config["augment"]
    assert (augment["auto_augment"], augment["color_jitter"]) == ("rand-m9-mstd0.5-inc1", 0.4)
    assert (augment["erase"], augment["erase_mode"], augment["erase_count"]) == (0.25, "pixel", 1)
    assert augment["interpolation"] == "bicubic"


WEIGHT_DECAY = (
    dict.fromkeys(SCRATCH, 0.05)
    | {name: values[2] for name, values in PRETRAINING.items()}
    | dict.fromkeys(FINE_TUNING, 1e-8)
    | dict.fromkeys(TORCHVISION, 0.05)
)


@pytest.mark.parametrize("name", WEIGHT_DECAY)
def test_the_optimizer_is_the_published_one(name: str) -> None:
    config = recipe(name).config
    assert config["optimizer"]["weight_decay"] == WEIGHT_DECAY[name]
    assert (config["optimizer"]["betas"], config["optimizer"]["eps"]) == ([0.9, 0.999], 1e-8)
    assert config["optimizer"]["layer_decay"] is None
    assert config["trainer"]["gradient_clip_val"] == 5.0


@pytest.mark.parametrize("name", OFFICIAL | TORCHVISION)
@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_the_batch_can_be_split_between_any_usual_number_of_devices(name: str, devices: int) -> None:
    batching = recipe(name, devices=devices).batching
    assert batching.device_batch * batching.devices * batching.accumulate == (4096 if name in PRETRAINING else 1024)
    assert batching.device_batch <= 128


@pytest.mark.parametrize("name", FINE_TUNING)
def test_fine_tuning_takes_the_head_that_its_weights_have(name: str) -> None:
    transfer = recipe(name).config["transfer"]
    assert transfer["head"] == ("keep" if name.endswith("_finetune") else "map22k")
    assert transfer["required"]


@pytest.mark.parametrize("name", [name for name in (*FINE_TUNING, *SIMMIM_FINE_TUNING) if "12to" in name])
def test_version_2_fine_tuning_knows_the_windows_of_its_pre_training(name: str) -> None:
    network = recipe(name).model.network
    assert network.config.pretrained_windows == ((12, 12), (12, 12), (12, 12), (6, 6))  # type: ignore[union-attr]


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_header_gives_the_source_the_accuracy_and_the_commands(name: str) -> None:
    header = [line for line in (CONF / "experiment" / f"{name}.yaml").read_text().splitlines() if line.startswith("#")]
    text = "\n".join(header)
    assert header[0] == "# @package _global_"
    assert len(re.findall(rf"python train.py experiment={name}\b", text)) >= 2  # on one device and on several
    for part in ("1 GPU", "8 GPUs", "epochs", "Published top-1"):
        assert part in text, part


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_the_table_of_all_recipes_gives_the_accuracy_of_the_header(name: str) -> None:
    header = re.search(r"^# Published top-1: ([\d.]*)", (CONF / "experiment" / f"{name}.yaml").read_text(), re.M)
    table = re.search(rf"^\| `{name}` \| ([\d.]*).* \| (.+) \|$", (ROOT / "docs" / "reproduce.md").read_text(), re.M)
    assert header is not None
    assert table is not None
    assert table[1] == header[1]


@pytest.mark.parametrize("name", [*SCRATCH, *FINE_TUNING, *TORCHVISION, *SIMMIM, *SIMMIM_FINE_TUNING])
def test_the_header_gives_the_number_of_images_seen(name: str) -> None:
    seen = derived_values(recipe(name))["training images seen"]
    assert f"{seen / 1e6:,.1f} M images seen" in (CONF / "experiment" / f"{name}.yaml").read_text()


@pytest.mark.parametrize("name", SIMMIM)
def test_pre_training_by_simmim_is_the_published_one(name: str) -> None:
    """TASKS, table of SimMIM: rates are per 512 images, and an epoch has 625 batches of 2,048."""
    found, (drop, side, parameters) = recipe(name), SIMMIM[name]
    derived, config = derived_values(found), found.config
    assert (derived["updates per epoch"], derived["warm-up updates"], derived["updates"]) == (625, 6250, 500_000)
    rates = [found.learning_rate(step) for step in (0, 6250, 700 * 625 - 1, 700 * 625, 499_999)]
    assert rates == pytest.approx([2e-6, 4e-4, 4e-4, 4e-5, 4e-5], rel=1e-12)
    assert derived["parameters"] == parameters
    assert derived["drop path rate of the last block"] == drop
    assert (config["optimizer"]["weight_decay"], config["optimizer"]["layer_decay"]) == (0.05, None)
    assert (config["trainer"]["gradient_clip_val"], config["mixing"], config["ema"]) == (5.0, {}, {})
    assert config["task"] == {
        "_target_": "swin_lab.tasks.SimMIM",
        "mask_patch_size": 32,
        "mask_ratio": 0.6,
        "norm_target_size": side,
    }


def test_simmim_augments_by_large_crops_and_flips_alone() -> None:
    augment = recipe("swin_base_patch4_window6_192_simmim").config["augment"]
    crop, flip = (instantiate("augment", step, {"size": 192}) for step in augment["image_transforms"])
    expected = v2.RandomResizedCrop(192, scale=(0.67, 1.0), ratio=(3 / 4, 4 / 3))  # torchvision's interpolation
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    assert transformed(crop, image) == transformed(expected, image)
    assert (type(flip), flip.p, augment["tensor_transforms"]) == (v2.RandomHorizontalFlip, 0.5, [])


@pytest.mark.parametrize("name", SIMMIM_FINE_TUNING)
def test_fine_tuning_after_simmim_is_the_published_one(name: str) -> None:
    found = recipe(name)
    derived, config = derived_values(found), found.config
    assert (derived["updates per epoch"], derived["warm-up updates"], derived["updates"]) == (625, 12_500, 62_500)
    rates = [derived[f"{when}learning rate"] for when in ("", "initial ", "final ")]
    assert rates == pytest.approx([5e-3, 1e-6, 1e-6], rel=1e-12)
    assert (derived["drop path rate of the last block"], derived["parameter groups"]) == (0.1, 52)
    assert (config["optimizer"]["layer_decay"], config["optimizer"]["weight_decay"]) == (SIMMIM_FINE_TUNING[name], 0.05)
    assert config["trainer"]["gradient_clip_val"] == 5.0
    transfer, version = config["transfer"], config["model"]["version"]
    assert (transfer["head"], transfer["required"]) == ("reinit", True)
    assert transfer["bias_interpolation"] == ("geometric" if version == 1 else "bicubic")
    assert (config["mixing"]["mixup"], config["mixing"]["cutmix"], config["task"]["label_smoothing"]) == (0.8, 1.0, 0.1)
    assert config["augment"]["auto_augment"] == "rand-m9-mstd0.5-inc1"


def test_without_weights_fine_tuning_does_not_start(command: Any) -> None:
    outcome = command("train", "experiment=swin_tiny_patch4_window7_224_22kto1k", "data=synthetic")
    assert outcome.code == 2
    assert "weights must be given" in outcome.err


def test_timm_s_own_transform_has_the_same_steps() -> None:
    from swin_lab.data import TimmAugment

    expected = create_transform(
        224,
        is_training=True,
        color_jitter=0.4,
        auto_augment="rand-m9-mstd0.5-inc1",
        re_prob=0.25,
        re_mode="pixel",
        re_count=1,
        interpolation="bicubic",
    )
    node = {key: value for key, value in recipe("swin_tiny_patch4_window7_224").config["augment"].items() if key != "_target_"}
    actual = TimmAugment(**node, img_size=224, mean=(0.485, 0.456, 0.406)).image_transforms
    assert list(map(repr, actual)) == list(map(repr, expected.transforms[: len(actual)]))
