"""Runs of SimMIM: reproducible masks, evaluation, images, and the fine-tuning that starts from them."""

import json
from pathlib import Path

import pytest
import torch
from conftest import TINY, Command, only_run
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from swin_lab import load_model
from swin_lab.weights.layouts import layout_to_write
from swin_lab.weights.save import to_layout

SIMMIM = [*TINY, "task=simmim", "task.mask_patch_size=8", "augment=simmim", "data.num_workers=0", "model.drop_path_rate=0.2"]


@pytest.fixture(scope="module")
def pretrained(run_script: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a pre-training, for tests that only read it."""
    folder = tmp_path_factory.mktemp("simmim")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        outcome = run_script("train", *SIMMIM, "checkpoint.every_n_updates=3")
    assert outcome.code == 0, outcome.err
    assert "val masked loss" in outcome.out
    return only_run(folder).resolve()


def weights(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return state


def assert_same_weights(one: Path, two: Path) -> None:
    expected, actual = weights(one), weights(two)
    assert [name for name in expected if not torch.equal(expected[name], actual[name])] == []


def metrics(folder: Path) -> dict[str, float]:
    record = json.loads((folder / "results.json").read_text())
    return {"loss": record["metrics.final.loss"]}


def test_two_workers_give_the_weights_of_none(command: Command, pretrained: Path, tmp_path: Path) -> None:
    assert command("train", *SIMMIM, "data.num_workers=2").code == 0
    assert_same_weights(pretrained, only_run(tmp_path))


def test_a_run_that_was_stopped_within_an_epoch_continues_to_the_bit(
    command: Command, pretrained: Path, tmp_path: Path
) -> None:
    """It is continued from the checkpoint after three of eight updates, as after a kill."""
    Path("stop_simmim.py").write_text(
        "import os, signal\nfrom lightning import Callback\nclass Stop(Callback):\n"
        "    def on_train_batch_end(self, trainer, *_):\n"
        "        if trainer.global_step == 3: os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    assert command("train", *SIMMIM, "checkpoint.every_n_updates=3", "+callbacks.stop={_target_: stop_simmim.Stop}").code == 75
    run = next(Path("runs/tiny").iterdir())
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3
    outcome = command("train", f"resume={run}")
    assert outcome.code == 0, outcome.err
    assert_same_weights(pretrained, run)
    assert metrics(run) == metrics(pretrained)


def test_eval_py_prints_the_metric_of_the_training(command: Command, pretrained: Path) -> None:
    """It needs no trust, and the batch size does not matter."""
    outcome = command("eval", f"checkpoint={pretrained}", "out=evaluated", "batch=7")
    assert outcome.code == 0, outcome.err
    assert metrics(Path("evaluated")) == pytest.approx(metrics(pretrained), abs=1e-6)
    assert Image.open("evaluated/reconstruction.png").width > 100


def test_the_encoder_embeds_images_and_has_no_classes_to_predict(cli: Command, pretrained: Path) -> None:
    Image.new("RGB", (32, 32), "red").save("red.png")
    outcome = cli("embed", pretrained, "red.png", "-o", "vectors.parquet")
    assert outcome.code == 0, outcome.printed
    refused = cli("predict", pretrained, "red.png")
    assert refused.code == 2
    assert "head" in refused.err


@pytest.mark.slow
@pytest.mark.slow
def test_images_without_labels_are_a_folder_with_one_class(command: Command) -> None:
    Path("images/all").mkdir(parents=True)
    for i in range(20):
        Image.new("RGB", (32, 32), (12 * i, 0, 0)).save(f"images/all/{i}.png")
    words = [word for word in SIMMIM if not word.startswith("data.")]
    words = [word if word != "data=synthetic" else "data=folder" for word in words]
    outcome = command("train", *words, "data.root=images", "data.num_workers=0", "trainer.max_epochs=1", "global_batch=6")
    assert outcome.code == 0, outcome.err
    assert "18 training and 2 validation images" in outcome.printed


def test_a_linear_probe_of_the_encoder_is_a_classifier(cli: Command, pretrained: Path) -> None:
    for split in ("train", "val"):
        for name in ("blue", "red"):
            Path(split, name).mkdir(parents=True)
            for i in range(4):
                Image.new("RGB", (32, 32), name).point(lambda value, i=i: max(0, value - 9 * i)).save(f"{split}/{name}/{i}.png")
    outcome = cli("linear-probe", pretrained, "train", "val", "-o", "probed.safetensors", "--workers", "0")
    assert outcome.code == 0, outcome.printed
    model = load_model("probed.safetensors")
    assert model.class_names == ("blue", "red")
    saved = load_model(pretrained).state_dict()
    assert [name for name, tensor in saved.items() if not torch.equal(model.state_dict()[name], tensor)] == []


def test_a_pre_training_starts_from_the_weights_of_another_one(command: Command, pretrained: Path, tmp_path: Path) -> None:
    outcome = command("train", *SIMMIM, f"weights={pretrained}", "optimizer.lr=0", "trainer.max_epochs=1")
    assert outcome.code == 0, outcome.err
    assert "none in the file or the model" in outcome.out
    name, best = "network.encoder.embed.proj.weight", torch.load(pretrained / "checkpoints" / "best.ckpt", weights_only=True)
    assert torch.equal(weights(only_run(tmp_path))[name], best["state_dict"][name])


def test_every_evaluation_shows_original_masked_and_reconstructed_images(pretrained: Path) -> None:
    figures = sorted(file.name for file in (pretrained / "figures").iterdir())
    assert figures == ["inputs.png", "reconstruction_4.png", "reconstruction_8.png", "reconstruction_final.png"]
    assert Image.open(pretrained / "figures" / "reconstruction_final.png").width > 400
    events = EventAccumulator(str(pretrained)).Reload()
    assert [image.step for image in events.Images("val/reconstruction")] == [4, 8]


def test_masks_are_the_same_for_images_that_stay_on_the_device(command: Command, tmp_path: Path) -> None:
    for place in ("memory", "device"):
        words = [*SIMMIM, "augment=none", "trainer.max_epochs=1", f"data.cache={place}", f"out={place}"]
        assert command("train", *words).code == 0
    assert_same_weights(only_run(tmp_path / "memory"), only_run(tmp_path / "device"))


def test_a_fine_tuning_starts_from_the_run_with_the_usual_report(command: Command, pretrained: Path) -> None:
    outcome = command("train", *TINY, f"weights={pretrained}", "trainer.max_epochs=1", "optimizer.layer_decay=0.8")
    assert outcome.code == 0, outcome.err
    lines = [line.split(maxsplit=1) for line in outcome.out.splitlines() if line]
    texts = dict(line for line in lines if len(line) == 2)
    assert texts["loaded"] == "48 of 48 tensors"
    assert texts["head"] == "new (6 classes): the file has none"
    assert "(mask_token, decoder)" in outcome.out


def test_the_encoder_of_a_run_is_a_model_without_head(pretrained: Path) -> None:
    model = load_model(pretrained)
    expected = weights(pretrained)["network.encoder.norm.weight"]
    assert torch.equal(model.norm.weight, expected)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 16)


@pytest.mark.parametrize("version", [1, 2])
def test_a_fine_tuning_starts_from_a_file_of_the_official_code(command: Command, version: int) -> None:
    """Names as in the published files: `encoder.`, and `rpe_mlp` for V2; windows and images are larger afterwards."""
    smaller = [*SIMMIM, f"model.version={version}", "trainer.max_epochs=1", "out=first"]
    assert command("train", *smaller).code == 0
    model = load_model(only_run(Path("first")))
    own = to_layout(model, layout_to_write("official", version))
    tensors = {f"encoder.{name}".replace("cpb_mlp", "rpe_mlp"): tensor for name, tensor in own.items()}
    tensors |= {"encoder.mask_token": torch.zeros(1, 1, 8), "decoder.0.weight": torch.zeros(192, 16, 1, 1)}
    torch.save({"model": tensors | {"decoder.0.bias": torch.zeros(192)}, "epoch": 799}, "simmim.pth")
    larger = ["model.img_size=40", "model.window_size=5", f"model.version={version}", "transfer.bias_interpolation=geometric"]
    outcome = command("train", *TINY, *larger, "weights=simmim.pth", "trainer.max_epochs=1", "out=second")
    assert outcome.code == 0, outcome.err
    assert "left out   3 tensors outside the network (mask_token, decoder)" in outcome.out
    assert "head       new (6 classes): the file has none" in outcome.out
    assert ("3 tables 7x7 -> 9x9 (geometric)" if version == 1 else "windows 4 -> 5") in outcome.out


def test_the_largest_batch_is_tried_with_masks(command: Command) -> None:
    outcome = command("train", *SIMMIM, "max_device_batch=auto", "trainer.max_epochs=1")
    assert outcome.code == 0, outcome.err
    assert "max_device_batch=auto: 16 of at most 16" in outcome.out


def test_cells_that_do_not_fit_are_refused_with_one_message(command: Command) -> None:
    outcome = command("train", *SIMMIM, "task.mask_patch_size=32")
    assert (outcome.code, "choose one of [4, 8, 16]" in outcome.err) == (2, True)
    assert not Path("runs").exists()


def test_mixing_is_refused(command: Command) -> None:
    outcome = command("train", *SIMMIM, "mixing=imagenet")
    assert (outcome.code, "set mixing=none" in outcome.err) == (2, True)
