"""Training a part of the network: what learns, from when on, and on every process."""

from pathlib import Path

import pytest
import torch
from conftest import TINY, Command, only_run

from swin_lab import SwinTransformer, save_weights
from swin_lab.errors import UserError
from swin_lab.training import Freezing

NETWORK = {"img_size": 32, "embed_dim": 8, "depths": (1, 2), "num_heads": (1, 2), "window_size": 4, "num_classes": 6}
"""The model of conftest's TINY."""


@pytest.fixture
def start(tmp_path: Path) -> dict[str, torch.Tensor]:
    """The weights of start.safetensors."""
    model = SwinTransformer(**NETWORK)
    save_weights(model, tmp_path / "start.safetensors")
    return {f"network.{key}": tensor for key, tensor in model.state_dict().items()}


def weights(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return torch.load(only_run(folder) / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {key.removeprefix("network.") for key, tensor in before.items() if not torch.equal(tensor, after[key])}


def test_with_head_only_nothing_but_the_head_changes(command: Command, start: dict, tmp_path: Path) -> None:
    outcome = command("train", *TINY, "weights=start.safetensors", "callbacks=head_only")
    assert outcome.code == 0, outcome.err
    assert changed(start, weights(tmp_path)) == {"head.weight", "head.bias"}
    assert "all but the head: 102 parameters learn" in outcome.said


def test_the_first_stages_alone_can_be_frozen(command: Command, start: dict, tmp_path: Path) -> None:
    command("train", *TINY, "weights=start.safetensors", "callbacks=head_only", "callbacks.freezing.stages=1")
    learned = changed(start, weights(tmp_path))
    assert not {key for key in learned if key.startswith(("embed.", "stages.0."))}
    assert {"stages.1.merge.reduction.weight", "norm.weight", "head.weight"} <= learned


def test_until_its_epoch_the_body_is_frozen_and_then_all_of_it_learns(command: Command, start: dict, tmp_path: Path) -> None:
    typed = [*TINY, "weights=start.safetensors", "callbacks=unfreeze", "callbacks.freezing.epochs=2"]
    command("train", *typed, "trainer.max_epochs=2", "out=two")
    outcome = command("train", *typed, "trainer.max_epochs=3", "out=three")
    assert changed(start, weights(tmp_path / "two")) == {"head.weight", "head.bias"}
    assert changed(start, weights(tmp_path / "three")) == {key.removeprefix("network.") for key in start}
    assert "thawed     the whole network learns from epoch 3 on" in outcome.said


def test_drop_path_rests_where_the_network_is_frozen(command: Command, start: dict, tmp_path: Path) -> None:
    """With it the frozen body would give the head other inputs: two rates of it train the same head."""
    typed = [*TINY, "weights=start.safetensors", "callbacks=head_only"]
    command("train", *typed, "model.drop_path_rate=0.9", "out=dropped")
    command("train", *typed, "model.drop_path_rate=0", "out=whole")
    heads = [weights(tmp_path / name)["network.head.weight"] for name in ("dropped", "whole")]
    assert torch.equal(*heads)


@pytest.mark.slow
def test_two_processes_go_on_exchanging_gradients_after_the_thaw(process: Command, start: dict, tmp_path: Path) -> None:
    """Two processes see the images that one sees, so that both runs end with the same weights up to rounding."""
    typed = [*TINY, "weights=start.safetensors", "callbacks=unfreeze", "callbacks.freezing.epochs=1", "data.num_workers=0"]
    for name, devices in (("one", ["trainer.devices=1"]), ("two", ["trainer=ddp", "trainer.devices=2"])):
        outcome = process("train", *typed, *devices, "trainer.accelerator=cpu", "augment=none", f"out={name}")
        assert outcome.code == 0, outcome.err
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert changed(start, two) == {key.removeprefix("network.") for key in start}
    for key in start:
        torch.testing.assert_close(one[key], two[key], atol=1e-4, rtol=0)


@pytest.mark.parametrize("value", [0, -1, 1.5, "two", True])
@pytest.mark.parametrize("name", ["stages", "epochs"])
def test_numbers_that_cannot_be_are_refused(name: str, value: object) -> None:
    with pytest.raises(UserError, match=f"callbacks.freezing.{name}={value}"):
        Freezing(**{name: value})


def test_more_stages_than_there_are_cannot_be_frozen(command: Command, start: dict) -> None:
    outcome = command("train", *TINY, "callbacks=head_only", "callbacks.freezing.stages=3")
    assert outcome.code == 2
    assert "3 stages cannot be frozen; the model has 2" in outcome.err


def test_a_network_without_stages_is_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    text = "_target_: timm.create_model\nmodel_name: test_vit\nimg_size: 32\nnum_classes: null\n"
    (tmp_path / "mine" / "model" / "vit.yaml").write_text(text)
    typed = [entry for entry in TINY if not entry.startswith("model")]
    outcome = command("train", "--config-dir", str(tmp_path / "mine"), *typed, "model=vit", "callbacks=head_only")
    assert outcome.code == 2
    assert "no stages to freeze" in outcome.err
