"""`swin-lab linear-probe`: a head on kept vectors, and a file that every other command reads."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Command, final_metrics
from PIL import Image
from small_classifier import classifier

from swin_lab import load_model, save_weights

COLOURS = {"blue": (20, 20, 230), "green": (20, 230, 20), "red": (230, 20, 20)}


def write_classes(folder: Path, images: int, seed: int, names: tuple[str, ...] = tuple(COLOURS)) -> None:
    """Writes noisy images of one colour per class."""
    random = np.random.default_rng(seed)
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(images):
            noise = random.normal(0, 25, (32, 32, 3))
            Image.fromarray((COLOURS[name] + noise).clip(0, 255).astype(np.uint8)).save(folder / name / f"{i}.png")


@pytest.fixture
def images(tmp_path: Path) -> None:
    save_weights(classifier(("x", "y", "z")), tmp_path / "start.safetensors")
    write_classes(tmp_path / "data" / "train", 8, 0)
    write_classes(tmp_path / "data" / "val", 4, 1)


PROBE = ["linear-probe", "start.safetensors", "data/train", "data/val"]


@pytest.mark.usefixtures("images")
def test_the_file_has_the_backbone_and_the_accuracy_that_was_printed(cli: Command, command: Command, tmp_path: Path) -> None:
    done = cli(*PROBE, "-o", "probed.safetensors", "--workers", "0")
    assert done.code == 0, done.err
    assert "top-1 100.00%" in " ".join(done.out.split())
    start, probed = load_model("start.safetensors"), load_model("probed.safetensors")
    assert probed.class_names == ("blue", "green", "red")
    assert probed.preprocessing == start.preprocessing
    for name, tensor in start.state_dict().items():
        assert torch.equal(probed.state_dict()[name], tensor) != name.startswith("head."), name
    evaluated = command("eval", "checkpoint=probed.safetensors", "data=folder", "data.root=data", "out=evaluated")
    assert evaluated.code == 0, evaluated.err
    assert final_metrics(tmp_path / "evaluated")["val/acc1"] == 1.0
    predicted = cli("predict", "probed.safetensors", "data/val/red/0.png", "-o", "out.json", "--workers", "0")
    assert predicted.code == 0, predicted.err
    assert json.loads(Path("out.json").read_text())[0]["class_1"] == "red"


@pytest.mark.usefixtures("images")
def test_a_second_run_computes_no_vectors_and_other_weights_or_images_do(cli: Command, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    arguments = ["--vectors", "kept", "--workers", "0"]
    first = cli(*PROBE, "-o", "one.safetensors", *arguments)
    assert first.code == 0, first.err
    assert "24 images computed" in first.out
    second = cli(*PROBE, "-o", "two.safetensors", *arguments)
    assert second.out.count(" 0 images computed") == 2
    one, two = (load_model(f"{name}.safetensors").state_dict() for name in ("one", "two"))
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
    other_head = cli("linear-probe", "one.safetensors", *PROBE[2:], "-o", "three.safetensors", *arguments)
    assert other_head.out.count(" 0 images computed") == 2  # The old head does not matter.
    write_classes(tmp_path / "data" / "more", 3, 2)
    more = cli("linear-probe", "start.safetensors", "data/more", "data/val", "-o", "four.safetensors", *arguments)
    assert " 9 images computed" in more.out
    assert len(list((tmp_path / "kept").iterdir())) == 3


def test_two_classes_get_two_logits_with_the_probabilities_of_the_classifier(cli: Command, tmp_path: Path) -> None:
    save_weights(classifier(), tmp_path / "start.safetensors")
    for name, seed in (("train", 0), ("val", 1)):
        write_classes(tmp_path / "data" / name, 4, seed, ("blue", "red"))
    assert cli(*PROBE, "-o", "probed.pth", "--workers", "0").code == 0
    model = load_model("probed.pth")
    assert model.class_names == ("blue", "red")
    assert model.head.weight.shape == (2, 16)
    assert torch.equal(model.head.weight[0], torch.zeros(16))


@pytest.mark.usefixtures("images")
def test_images_without_labels_are_refused_before_anything_is_computed(cli: Command) -> None:
    done = cli("linear-probe", "start.safetensors", "data/train/red/0.png", "data/val", "-o", "probed.pth")
    assert done.code == 2
    assert "1 of 1 images have no label" in done.err
    assert not list(Path().glob("*.parquet*"))
