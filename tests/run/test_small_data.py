"""The recipes for custom data and for CIFAR, with small networks and generated images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Command, final_metrics, only_run, recorded
from PIL import Image

from swin_lab import SwinConfig, SwinTransformer, save_weights

SMALL = ["model.embed_dim=8", "model.depths=[1,1]", "model.num_heads=[1,2]", "trainer.accelerator=cpu", "data.num_workers=0"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 6)):
        for name in ("kind_a", "kind_b", "kind_c"):  # These are not classes of ImageNet-22k.
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for i in range(count):
                noise = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(noise).save(tmp_path / "images" / split / name / f"{i}.png")
    return tmp_path / "images"


@pytest.fixture
def weights_22k(tmp_path: Path) -> Path:
    """Saves a small network with a head of ImageNet-22k."""
    torch.manual_seed(0)
    model = SwinTransformer(SwinConfig(img_size=64, embed_dim=8, depths=(1, 1), num_heads=(1, 2), num_classes=21_841))
    return save_weights(model, tmp_path / "small_22k.pth", "official")


def test_any_folder_is_fine_tuned_from_22k_weights_with_a_new_head(
    command: Command, tmp_path: Path, images: Path, weights_22k: Path
) -> None:
    overrides = ["experiment=finetune_small", f"data.root={images}", f"weights={weights_22k}", *SMALL, "model.img_size=64"]
    outcome = command("train", *overrides, "trainer.max_epochs=2", "global_batch=24", "optimizer.reference_batch=24")
    assert outcome.code == 0, outcome.err
    assert "new (3 classes): the file has 21841 classes, the model 3" in outcome.out
    result = recorded(only_run(tmp_path))
    assert (result["run.updates"], result["run.images"], result["preprocessing.preset"]) == (6, 18, "official")
    assert "metrics.initial.acc1" not in result  # A new head is not evaluated before training.


def test_the_small_recipe_does_not_start_without_weights(command: Command, images: Path) -> None:
    outcome = command("train", "experiment=finetune_small", f"data.root={images}", *SMALL)
    assert (outcome.code, "weights must be given" in outcome.err) == (2, True)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_cifar_recipe_trains_on_other_images_of_its_size(command: Command, tmp_path: Path, name: str) -> None:
    overrides = [f"experiment={name}", "data=synthetic", "data.train_images=128", "data.val_images=20", *SMALL]
    outcome = command("train", *overrides, "model.window_size=4", "global_batch=32", "trainer.max_epochs=2")
    assert outcome.code == 0, outcome.err
    metrics = final_metrics(only_run(tmp_path))
    assert {"val/acc1", "val_ema/acc1"} <= set(metrics)


def test_with_an_ema_the_best_checkpoint_has_the_best_ema_metrics(command: Command, tmp_path: Path) -> None:
    overrides = ["experiment=cifar10", "data=synthetic", "data.train_images=128", "data.val_images=20", *SMALL]
    command("train", *overrides, "model.window_size=4", "global_batch=32", "trainer.max_epochs=4")
    run = only_run(tmp_path)
    lines = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    column = lines[0].index("val_ema/acc1")
    by_epoch = [float(line[column]) for line in lines[1:] if line[column]]
    result = recorded(run)
    assert result["metrics.final_ema.acc1"] == pytest.approx(max(by_epoch), abs=1e-7)
    outcome = command("eval", f"checkpoint={run}", "transfer.ema=true", "out=averaged")
    assert outcome.code == 0, outcome.err
    averaged = final_metrics(tmp_path / "averaged")
    assert averaged["val/acc1"] == result["metrics.final_ema.acc1"]
    assert averaged["val/loss"] == pytest.approx(result["metrics.final_ema.loss"], rel=1e-6)


def test_an_ema_follows_weights_of_low_precision(command: Command) -> None:
    overrides = ["experiment=cifar10", "data=synthetic", "data.train_images=64", "data.val_images=20", *SMALL, "mixing=none"]
    outcome = command("train", *overrides, "global_batch=32", "trainer.max_epochs=1", "precision=bf16-true")
    assert outcome.code == 0, outcome.err
