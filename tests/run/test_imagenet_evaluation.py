"""Evaluations on ImageNet: subsets of the classes, ReaL labels, mirrored images, and the evaluation before training."""

import re
from pathlib import Path

import pytest
import torch
from conftest import TINY, Command, final_metrics, only_run, recorded
from PIL import Image
from timm.data.imagenet_info import ImageNetInfo

from swin_lab import SwinConfig, SwinTransformer, load_model, save_weights
from swin_lab.data import Folder
from swin_lab.data.decoding import decode
from swin_lab.data.transforms import eval_transform
from swin_lab.tasks.reassessed import reassessed_labels
from swin_lab.training import DataDescription

IDS = list(ImageNetInfo("imagenet-1k").label_names())
SHAPE = {"img_size": 32, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), "window_size": 4}
CHOSEN = [3, 250, 999, 17]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = SwinTransformer(SwinConfig(**SHAPE, num_classes=1000))
    torch.nn.init.normal_(model.head.weight)
    return save_weights(model, tmp_path / "thousand.pth", "official")


@pytest.fixture
def subset(tmp_path: Path) -> Path:
    """Writes four classes of ImageNet-1k without train/ and val/, as ImageNet-A is published."""
    generator = torch.Generator().manual_seed(0)
    for c in CHOSEN:
        (tmp_path / "subset" / IDS[c]).mkdir(parents=True)
        for i in range(3):
            pixels = torch.randint(0, 256, (40, 36, 3), generator=generator, dtype=torch.uint8)
            name = f"ILSVRC2012_val_{c * 10 + i + 1:08d}.JPEG"
            Image.fromarray(pixels.numpy()).save(tmp_path / "subset" / IDS[c] / name)
    return tmp_path / "subset"


def evaluated(command: Command, *arguments: str) -> dict:
    outcome = command("eval", *arguments, "out=here")
    assert outcome.code == 0, outcome.err
    return recorded(Path("here"))


def logits_of(weights: Path, folder: Path, flip: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes logits (12, 4) of the subset's classes with the network alone; returns them and the labels."""
    model = load_model(weights).eval()
    source = Folder(str(folder), val_only=True)
    prepare = eval_transform(model.preprocessing)
    images = torch.stack([prepare(decode(source.val.encoded(i))) for i in range(12)])
    with torch.no_grad():
        logits = model(images)
        logits = (logits + model(images.flip(-1))) / 2 if flip else logits
    return logits[:, [IDS.index(name) for name in source.class_names]], torch.as_tensor(source.val.labels)


def test_a_subset_of_the_classes_is_evaluated_with_their_logits_only(command: Command, weights: Path, subset: Path) -> None:
    result = evaluated(command, f"checkpoint={weights}", "data=folder", f"data.root={subset}", "data.val_only=true")
    logits, labels = logits_of(weights, subset)
    assert result["run.images"] == 12
    assert result["metrics.final.acc1"] == pytest.approx((logits.argmax(1) == labels).float().mean().item(), abs=1e-7)
    assert result["metrics.final.loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)


def test_a_subset_of_a_run_s_classes_is_found_by_name(command: Command, tmp_path: Path, subset: Path) -> None:
    trained = tmp_path / "all"
    for c in [*CHOSEN, 5, 6]:
        (trained / IDS[c]).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (32, 32), (i * 40, c % 255, 0)).save(trained / IDS[c] / f"{i}.png")
    own = [argument for argument in TINY if not argument.startswith("data")]
    outcome = command("train", *own, "data=folder", f"data.root={trained}", "data.val_fraction=0.25", "global_batch=4")
    assert outcome.code == 0, outcome.err
    run = only_run(tmp_path)
    result = evaluated(command, f"checkpoint={run}", "data=folder", f"data.root={subset}", "data.val_only=true")
    assert result["data.classes"] == 4


def test_logits_of_mirrored_images_are_averaged(command: Command, weights: Path, subset: Path) -> None:
    data = ["data=folder", f"data.root={subset}", "data.val_only=true"]
    result = evaluated(command, f"checkpoint={weights}", *data, "task.flip=true")
    logits, labels = logits_of(weights, subset, flip=True)
    assert result["metrics.final.loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert result["config.task.flip"] is True


def test_real_labels_of_a_subset_are_refused(command: Command, weights: Path, subset: Path) -> None:
    outcome = command(
        "eval", f"checkpoint={weights}", "data=folder", f"data.root={subset}", "data.val_only=true", "task.real_labels=true"
    )
    assert outcome.code == 2
    assert "task.real_labels=true needs the 1000 classes of ImageNet-1k; the data has 4" in outcome.err


def test_real_top_1_counts_any_valid_class_and_leaves_unlabelled_images_out(
    command: Command, weights: Path, tmp_path: Path
) -> None:
    """The data has a thousand folders of one image each, with the file names of the validation set."""
    val = tmp_path / "val"
    generator = torch.Generator().manual_seed(3)
    for c, name in enumerate(IDS):
        (val / name).mkdir(parents=True)
        pixels = torch.randint(0, 256, (8, 8, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(val / name / f"ILSVRC2012_val_{50 * c + 1:08d}.JPEG")
    result = evaluated(
        command, f"checkpoint={weights}", "data=folder", f"data.root={tmp_path}", "data.val_only=true", "task.real_labels=true"
    )
    model = load_model(weights).eval()
    source = Folder(str(tmp_path), val_only=True)
    prepare = eval_transform(model.preprocessing)
    with torch.no_grad():
        best = model(torch.stack([prepare(decode(source.val.encoded(i))) for i in range(1000)])).topk(5).indices
    description = DataDescription(class_names=tuple(IDS), num_val_images=1000, val_image_name=source.val.name)
    valid_labels = reassessed_labels(description)
    counted = (valid_labels >= 0).any(dim=1)
    pairs = list(zip(best, valid_labels, strict=True))
    right = [[bool(set(row[:k].tolist()) & set(known.tolist())) for row, known in pairs] for k in (1, 5)]
    assert 800 < counted.sum() < 1000
    for name, hits in zip(("val/real_acc1", "val/real_acc5"), right, strict=True):
        expected = torch.tensor(hits)[counted].float().mean().item()
        assert final_metrics(result)[name] == pytest.approx(expected, abs=1e-6)
    assert result["metrics.final.real_acc5"] != result["metrics.final.acc5"]


def test_weights_of_the_same_classes_are_evaluated_before_training(command: Command, tmp_path: Path) -> None:
    command("train", *TINY, "name=first", "trainer.max_epochs=3")
    first = only_run(tmp_path)
    outcome = command("train", *TINY, f"weights={first}", "name=second", "trainer.max_epochs=1")
    logged = re.search(r"initial    top-1 ([\d.]+)%", outcome.out)
    expected = final_metrics(first)["val/acc1"]
    assert logged is not None
    assert float(logged[1]) == pytest.approx(expected * 100, abs=0.005)
    second = next((tmp_path / "runs" / "second").glob("*/results.json"))
    assert recorded(second.parent)["metrics.initial.acc1"] == expected


def test_weights_with_an_accuracy_near_chance_give_a_warning(command: Command, tmp_path: Path) -> None:
    torch.manual_seed(1)
    save_weights(SwinTransformer(SwinConfig(**SHAPE | {"depths": (1, 2)}, num_classes=6)), tmp_path / "random.pth", "official")
    printed = command("train", *TINY, "data.val_images=600", "weights=random.pth", "trainer.max_epochs=1").out
    assert "near chance (16.67%)" in printed


def test_data_for_evaluation_only_cannot_be_trained_on(command: Command, subset: Path) -> None:
    own = [argument for argument in TINY if not argument.startswith("data")]
    data = ["data=folder", f"data.root={subset}", "data.val_only=true", "data.mean=[0.5,0.5,0.5]", "data.std=[0.2,0.2,0.2]"]
    outcome = command("train", *own, *data)
    assert (outcome.code, "leaves no training images" in outcome.err) == (2, True)


@pytest.mark.parametrize("more", [["transfer.evaluate_first=false"], ["data.num_classes=4"]], ids=["disabled", "new head"])
def test_without_known_classes_or_if_disabled_there_is_no_initial_evaluation(
    command: Command, tmp_path: Path, more: list[str]
) -> None:
    torch.manual_seed(1)
    save_weights(SwinTransformer(SwinConfig(**SHAPE | {"depths": (1, 2)}, num_classes=6)), tmp_path / "random.pth", "official")
    outcome = command("train", *TINY, "weights=random.pth", "trainer.max_epochs=1", *more)
    assert (outcome.code, "initial  " in outcome.out) == (0, False)
