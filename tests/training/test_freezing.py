"""Training a part of the network: which parameters are trained, from which epoch, on every process."""

from pathlib import Path

import pytest
import torch
from conftest import TINY, Command, only_run

from swin_lab import SwinConfig, SwinTransformer, save_weights
from swin_lab.errors import UserError
from swin_lab.training import Freezing

NETWORK = {"img_size": 32, "embed_dim": 8, "depths": (1, 2), "num_heads": (1, 2), "window_size": 4, "num_classes": 6}
"""The model of TINY in conftest.py."""


@pytest.fixture
def start(tmp_path: Path) -> dict[str, torch.Tensor]:
    """Writes start.safetensors; returns its weights under the names of a checkpoint."""
    model = SwinTransformer(SwinConfig(**NETWORK))
    save_weights(model, tmp_path / "start.safetensors")
    return {f"network.{key}": tensor for key, tensor in model.state_dict().items()}


def weights(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return torch.load(only_run(folder) / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {key.removeprefix("network.") for key, tensor in before.items() if not torch.equal(tensor, after[key])}


def test_with_head_only_only_the_head_changes(command: Command, start: dict, tmp_path: Path) -> None:
    outcome = command("train", *TINY, "weights=start.safetensors", "callbacks=head_only")
    assert outcome.code == 0, outcome.err
    assert changed(start, weights(tmp_path)) == {"head.weight", "head.bias"}
    assert "all but the head: 102 trainable parameters" in outcome.printed


def test_the_first_stages_can_be_frozen(command: Command, start: dict, tmp_path: Path) -> None:
    command("train", *TINY, "weights=start.safetensors", "callbacks=head_only", "callbacks.freezing.stages=1")
    learned = changed(start, weights(tmp_path))
    assert not {key for key in learned if key.startswith(("embed.", "stages.0."))}
    assert {"stages.1.merge.reduction.weight", "norm.weight", "head.weight"} <= learned


def test_the_backbone_is_frozen_until_its_epoch_and_then_unfrozen(command: Command, start: dict, tmp_path: Path) -> None:
    overrides = [*TINY, "weights=start.safetensors", "callbacks=unfreeze", "callbacks.freezing.epochs=2"]
    command("train", *overrides, "trainer.max_epochs=2", "out=two")
    outcome = command("train", *overrides, "trainer.max_epochs=3", "out=three")
    assert changed(start, weights(tmp_path / "two")) == {"head.weight", "head.bias"}
    assert changed(start, weights(tmp_path / "three")) == {key.removeprefix("network.") for key in start}
    assert "unfrozen   the whole network is trained from epoch 3" in outcome.printed


def test_a_run_that_is_resumed_within_an_epoch_after_unfreezing_has_the_bits_of_one_that_was_not_interrupted(
    command: Command, start: dict, tmp_path: Path
) -> None:
    """It is stopped at update 6 of 8, in the second epoch; the first one trains the head alone."""
    Path("stop_unfrozen.py").write_text(
        "import os, signal\nfrom lightning import Callback\nclass Stop(Callback):\n"
        "    def on_train_batch_end(self, trainer, *_):\n"
        "        if trainer.global_step == 6: os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    words = [
        *TINY,
        "weights=start.safetensors",
        "callbacks=unfreeze",
        "callbacks.freezing.epochs=1",
        "model.drop_path_rate=0.2",
    ]
    assert command("train", *words, "out=whole").code == 0
    assert command("train", *words, "out=parts", "+callbacks.stop={_target_: stop_unfrozen.Stop}").code == 75
    outcome = command("train", f"resume={only_run(tmp_path / 'parts')}")
    assert outcome.code == 0, outcome.err
    assert changed(weights(tmp_path / "whole"), weights(tmp_path / "parts")) == set()


def test_drop_path_is_disabled_in_frozen_layers(command: Command, start: dict, tmp_path: Path) -> None:
    """With drop path, the frozen backbone would give the head random inputs: two rates must train the same head."""
    overrides = [*TINY, "weights=start.safetensors", "callbacks=head_only"]
    command("train", *overrides, "model.drop_path_rate=0.9", "out=dropped")
    command("train", *overrides, "model.drop_path_rate=0", "out=without")
    heads = [weights(tmp_path / name)["network.head.weight"] for name in ("dropped", "without")]
    assert torch.equal(*heads)


@pytest.mark.slow
def test_two_processes_exchange_all_gradients_after_unfreezing(process: Command, start: dict, tmp_path: Path) -> None:
    """Two processes see the images that one sees, so that both runs end with the same weights up to rounding."""
    overrides = [*TINY, "weights=start.safetensors", "callbacks=unfreeze", "callbacks.freezing.epochs=1", "data.num_workers=0"]
    for name, devices in (("one", ["trainer.devices=1"]), ("two", ["trainer=ddp", "trainer.devices=2"])):
        outcome = process("train", *overrides, *devices, "trainer.accelerator=cpu", "augment=none", f"out={name}")
        assert outcome.code == 0, outcome.err
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert changed(start, two) == {key.removeprefix("network.") for key in start}
    for key in start:
        torch.testing.assert_close(one[key], two[key], atol=1e-4, rtol=0)


@pytest.mark.parametrize("value", [0, -1, 1.5, "two", True])
@pytest.mark.parametrize("name", ["stages", "epochs"])
def test_invalid_numbers_are_refused(name: str, value: object) -> None:
    with pytest.raises(UserError, match=f"callbacks.freezing.{name}={str(value).lower()}"):
        Freezing(**{name: value})


def test_more_stages_than_there_are_cannot_be_frozen(command: Command, start: dict) -> None:
    outcome = command("train", *TINY, "callbacks=head_only", "callbacks.freezing.stages=3")
    assert outcome.code == 2
    assert "3 stages cannot be frozen; the model has 2" in outcome.err


def test_random_weights_are_frozen_only_for_a_trial(command: Command) -> None:
    words = [*TINY, "callbacks=unfreeze", "callbacks.freezing.epochs=1"]
    outcome = command("train", *words)
    assert outcome.code == 2
    assert "they are random here; add weights=FILE" in outcome.err
    assert not Path("runs").exists()
    assert command("train", *words, "transfer.required=false").code == 0


def test_a_network_without_stages_is_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    text = "_target_: timm.create_model\nmodel_name: test_vit\nimg_size: 32\nnum_classes: null\n"
    (tmp_path / "mine" / "model" / "vit.yaml").write_text(text)
    overrides = [entry for entry in TINY if not entry.startswith("model")]
    outcome = command("train", "--config-dir", str(tmp_path / "mine"), *overrides, "model=vit", "callbacks=head_only")
    assert outcome.code == 2
    assert "a VisionTransformer has no method freeze_stages" in outcome.err
