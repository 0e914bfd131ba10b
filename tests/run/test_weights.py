"""Weights of any origin in train.py and eval.py."""

from pathlib import Path

import pytest
import torch
from conftest import TINY, Command, final_metrics, only_run, recorded

from swin_lab import SwinConfig, SwinTransformer, load_model, save_weights

NETWORK = {"img_size": 32, "embed_dim": 8, "depths": (1, 2), "num_heads": (1, 2), "window_size": 4, "num_classes": 6}
"""The model of TINY in conftest.py."""
SYNTHETIC = ["data=synthetic", "data.num_classes=6", "data.train_images=64", "data.val_images=30"]


@pytest.fixture
def official(tmp_path: Path) -> SwinTransformer:
    """Writes a file of the official layout, which contains no class names; returns the network in it."""
    torch.manual_seed(1)
    model = SwinTransformer(SwinConfig(**NETWORK)).eval()
    save_weights(model, tmp_path / "official.pth", "official")
    return model


def first_weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_training_starts_from_the_weights_of_an_official_file(
    command: Command, official: SwinTransformer, tmp_path: Path
) -> None:
    outcome = command("train", *TINY, "weights=official.pth", "trainer.max_epochs=1", "optimizer.lr=0")
    assert outcome.code == 0, outcome.err
    trained = first_weights(only_run(tmp_path))
    for key, tensor in official.state_dict().items():
        assert torch.equal(trained[f"network.{key}"], tensor), key


def test_training_prints_the_report_of_the_loaded_weights(command: Command, official: SwinTransformer) -> None:
    printed = command("train", *TINY, "weights=official.pth", "trainer.max_epochs=1").printed
    assert f"loaded     {len(official.state_dict())} of {len(official.state_dict())} tensors" in printed
    assert "head       kept (6 classes)" in printed


def test_a_new_head_for_new_classes_keeps_the_rest(command: Command, official: SwinTransformer, tmp_path: Path) -> None:
    outcome = command("train", *TINY, "data.num_classes=4", "weights=official.pth", "trainer.max_epochs=1", "optimizer.lr=0")
    assert "head       new (4 classes): the file has 6 classes, the model 4" in outcome.printed
    trained = first_weights(only_run(tmp_path))
    assert trained["network.head.weight"].shape == (4, 16)
    assert torch.equal(trained["network.norm.weight"], official.norm.weight)


def test_larger_windows_resize_the_tables(command: Command, official: SwinTransformer) -> None:
    outcome = command(
        "train", *TINY, "weights=official.pth", "model.img_size=64", "model.window_size=8", "trainer.max_epochs=1"
    )
    assert outcome.code == 0, outcome.err
    assert "3 tables 7x7 -> 15x15 (bicubic)" in outcome.printed


def test_pretrained_windows_of_v2_come_from_the_weights_and_are_in_the_checkpoint(command: Command, tmp_path: Path) -> None:
    save_weights(SwinTransformer(SwinConfig(version=2, **NETWORK)), tmp_path / "v2.safetensors", "timm")
    overrides = [*TINY, "model.version=2", "model.img_size=64", "model.window_size=8", "trainer.max_epochs=1"]
    assert command("train", *overrides, "weights=v2.safetensors").code == 0
    assert load_model(only_run(tmp_path)).config.pretrained_windows == ((4, 4), (4, 4))


def test_weights_of_another_network_are_refused_before_data_is_read(command: Command, official: SwinTransformer) -> None:
    overrides = [entry for entry in TINY if not entry.startswith("data")]
    outcome = command("train", *overrides, "weights=official.pth", "model.depths=[2,2]", "data=folder", "data.root=nowhere")
    assert outcome.code == 2
    assert "depths is [1, 2] in the file and [2, 2] in the model" in outcome.err
    assert not Path("runs").exists()


def test_weights_for_a_custom_model_are_refused(command: Command, official: SwinTransformer, tmp_path: Path) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    text = "_target_: timm.create_model\nmodel_name: test_vit\nimg_size: 32\nnum_classes: null\n"
    (tmp_path / "mine" / "model" / "vit.yaml").write_text(text)
    overrides = [entry for entry in TINY if not entry.startswith("model")]
    outcome = command("train", "--config-dir", str(tmp_path / "mine"), *overrides, "model=vit", "weights=official.pth")
    assert outcome.code == 2
    assert "timm.create_model" in outcome.err


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("transfer.haed=keep", "did you mean transfer.head?"),
        ("transfer.head=kep", "did you mean keep?"),
        ("transfer.bias_interpolation=cubic", "did you mean bicubic?"),
        ("weights=none.pth", "does not exist"),
        ("transfer.ema=true", "EMA weights"),
    ],
)
def test_wrong_transfers_are_refused(command: Command, official: SwinTransformer, override: str, part: str) -> None:
    outcome = command("train", *TINY, "weights=official.pth", override)
    assert outcome.code == 2
    assert part in outcome.err


def test_an_official_file_is_evaluated_on_the_given_data(command: Command, official: SwinTransformer, tmp_path: Path) -> None:
    outcome = command("eval", "checkpoint=official.pth", *SYNTHETIC, "out=here")
    assert outcome.code == 0, outcome.err
    assert "head       kept (6 classes)" in outcome.printed
    assert recorded(tmp_path / "here")["run.images"] == 30


def test_an_official_file_without_data_is_refused(command: Command, official: SwinTransformer) -> None:
    outcome = command("eval", "checkpoint=official.pth")
    assert outcome.code == 2
    assert "does not name its data" in outcome.err


def test_random_heads_are_not_evaluated(command: Command, official: SwinTransformer, tmp_path: Path) -> None:
    outcome = command("eval", "checkpoint=official.pth", *SYNTHETIC, "data.num_classes=4", "out=here")
    assert outcome.code == 2
    assert "new (4 classes)" in outcome.err
    assert not (tmp_path / "here").exists()


def test_run_export_and_converted_file_have_the_same_metrics(command: Command, tmp_path: Path) -> None:
    command("train", *TINY)
    run = only_run(tmp_path)
    model = load_model(run)
    save_weights(model, tmp_path / "export.safetensors")
    save_weights(model, tmp_path / "converted.safetensors", "timm")
    found = []
    for source, data in ((run, []), ("export.safetensors", SYNTHETIC), ("converted.safetensors", SYNTHETIC)):
        outcome = command("eval", f"checkpoint={source}", *data, f"out=of_{Path(source).stem}")
        assert outcome.code == 0, outcome.err
        found.append(final_metrics(tmp_path / f"of_{Path(source).stem}"))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("preset", [[], ["preset=official"]], ids=["own", "official"])
def test_a_saved_new_model_is_evaluated(command: Command, tmp_path: Path, suffix: str, preset: list[str]) -> None:
    save_weights(SwinTransformer(SwinConfig(**NETWORK)), tmp_path / f"bare{suffix}")
    outcome = command("eval", f"checkpoint=bare{suffix}", *SYNTHETIC, *preset, "out=here", "trainer.accelerator=cpu")
    assert outcome.code == 0, outcome.err


def test_a_file_without_any_network_and_without_data_is_refused_for_the_network(command: Command, tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "a.pth")
    assert "contains no tensors by name, but epoch" in command("eval", "checkpoint=a.pth").err


def test_a_wrong_window_is_named_as_it_was_given(command: Command, official: SwinTransformer) -> None:
    outcome = command("eval", "checkpoint=official.pth", *SYNTHETIC, "transfer.window_size=abc")
    assert outcome.code == 2
    assert "transfer.window_size=abc must be" in outcome.err


@pytest.mark.parametrize("strict", ["true", "false"])
@pytest.mark.parametrize("value", [float("nan"), 1e300])
def test_weights_that_are_not_finite_are_not_evaluated(command: Command, tmp_path: Path, value: float, strict: str) -> None:
    state = SwinTransformer(SwinConfig(**NETWORK)).state_dict()
    state["norm.bias"] = state["norm.bias"].double() + value
    torch.save({"model": state}, tmp_path / "a.pth")
    outcome = command("eval", "checkpoint=a.pth", *SYNTHETIC, f"transfer.strict={strict}", "trainer.accelerator=cpu")
    assert outcome.code == 2
    assert "norm.bias" in outcome.err


def test_outputs_that_overflow_end_an_evaluation(command: Command, tmp_path: Path) -> None:
    model = SwinTransformer(SwinConfig(**NETWORK))
    with torch.no_grad():
        model.head.weight.fill_(3e38)
        model.norm.weight.fill_(3e38)
    save_weights(model, tmp_path / "a.pth")
    outcome = command("eval", "checkpoint=a.pth", *SYNTHETIC, "trainer.accelerator=cpu")
    assert outcome.code == 2
    assert "NaN or infinite" in outcome.err


def test_a_fine_tuning_whose_weights_are_not_required_trains_without_them(command: Command) -> None:
    recipe = ["transfer.head=map22k", "trainer.max_epochs=1"]
    assert command("train", *TINY, *recipe, "transfer.required=false").code == 0
    outcome = command("train", *TINY, *recipe)
    assert (outcome.code, "transfer.head=map22k has no effect without weights" in outcome.err) == (2, True)
