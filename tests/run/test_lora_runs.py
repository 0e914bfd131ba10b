"""Runs with adapters: training, resume, evaluation, export, and what is refused before anything is read."""

from pathlib import Path

import pytest
import torch
from conftest import TINY, Command, final_metrics, only_run, recorded, same

from swin_lab import SwinConfig, SwinTransformer, load_model, save_weights

pytest.importorskip("peft", reason="peft (the extra lora) is not installed")

NETWORK = {"img_size": 32, "embed_dim": 8, "depths": (1, 2), "num_heads": (1, 2), "window_size": 4, "num_classes": 6}
"""The model of TINY in conftest.py."""
LORA = [*TINY, "weights=start.safetensors", "model.lora.rank=4", "optimizer.lr=3e-2"]


@pytest.fixture
def start(tmp_path: Path) -> SwinTransformer:
    """Writes start.safetensors."""
    torch.manual_seed(0)
    model = SwinTransformer(SwinConfig(**NETWORK)).eval()
    save_weights(model, tmp_path / "start.safetensors")
    return model


def checkpoint(run: Path, name: str = "last") -> dict:
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)


def test_only_adapters_and_head_change_and_the_checkpoint_reads_as_an_ordinary_network(
    command: Command, start: SwinTransformer, tmp_path: Path
) -> None:
    outcome = command("train", *LORA, "ema=warm")
    assert outcome.code == 0, outcome.err
    assert "rank 4, alpha 8, on qkv, proj of every block; 1,062 parameters are trained (10.9%)" in outcome.printed
    run = only_run(tmp_path)
    content = checkpoint(run, "best")
    for name, tensor in start.state_dict().items():
        stem, _, end = name.rpartition(".")
        adapted = stem.endswith(("attn.qkv", "attn.proj"))
        stored = content["state_dict"][f"network.{stem}.base_layer.{end}" if adapted else f"network.{name}"]
        assert torch.equal(stored, tensor) != name.startswith("head."), name
    optimizer = content["optimizer_states"][0]
    assert len(optimizer["state"]) == 2 * 2 * 3 + 2  # moments of adapters and head only

    for ema in (False, True):
        model = load_model(run, ema=ema)
        assert model.state_dict().keys() == start.state_dict().keys()
        assert not torch.equal(model.stages[0].blocks[0].attn.qkv.weight, start.stages[0].blocks[0].attn.qkv.weight)
        evaluated = command("eval", f"checkpoint={run}", f"transfer.ema={str(ema).lower()}", f"out=eval_{ema}")
        assert evaluated.code == 0, evaluated.err
        prefix = "val_ema" if ema else "val"
        assert final_metrics(tmp_path / f"eval_{ema}")["val/loss"] == final_metrics(run)[f"{prefix}/loss"]
    assert load_model(content).state_dict().keys() == start.state_dict().keys()


def test_a_resumed_run_has_the_bits_of_one_that_was_not_interrupted(
    command: Command, start: SwinTransformer, tmp_path: Path
) -> None:
    more = ["model.lora.dropout=0.3", "model.lora.norms=true", "model.drop_path_rate=0.1", "ema=warm"]
    for epochs in (1, 2):
        assert command("train", *LORA, *more, "schedule=constant", f"trainer.max_epochs={epochs}", f"out=out{epochs}").code == 0
    resumed = command("train", f"resume={only_run(tmp_path / 'out1')}", "trainer.max_epochs=2")
    assert resumed.code == 0, resumed.err
    one, two = (checkpoint(only_run(tmp_path / name)) for name in ("out2", "out1"))
    assert all(same(one[key], two[key]) for key in ("state_dict", "ema", "optimizer_states"))


def test_convert_export_and_a_further_training_take_the_sums(
    command: Command, cli: Command, start: SwinTransformer, tmp_path: Path
) -> None:
    assert command("train", *LORA, "trainer.max_epochs=1").code == 0
    run = only_run(tmp_path)
    trained = load_model(run).state_dict()
    adapted = [name for name in trained if name.endswith("attn.qkv.weight")]
    assert adapted
    assert not any(torch.equal(trained[name], start.state_dict()[name]) for name in adapted)
    for layout, out in (("timm", "timm.safetensors"), ("official", "official.pth"), ("huggingface", "folder")):
        converted = cli("convert", run, out, "--layout", layout, "--verify")
        assert converted.code == 0, converted.err
        assert "adapters added to the weights: rank 4, alpha 8" in " ".join(converted.printed.split())
        assert all(torch.equal(trained[name], value) for name, value in load_model(out).state_dict().items())
    exported = cli("export", run, "merged.pt2")
    assert exported.code == 0, exported.err
    again = command("train", *TINY, f"weights={run}", "trainer.max_epochs=1", "out=again")
    assert again.code == 0, again.err
    assert "loaded     50 of 50 tensors" in again.printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.lora.rank=0"], "model.lora.rank=0 must be a positive integer or null\n"),
        (["model.lora.rank=9"], "model.lora.rank=9 is larger than the smallest adapted layer, of 8 channels"),
        (["model.lora.rank=4"], "model.lora.rank=4 trains adapters of weights that stay as they are; add weights=FILE"),
        (["model.lora.alpha=4"], "model.lora.alpha=4.0 has no effect without adapters; add model.lora.rank=8"),
        (["model.lora=4"], "model.lora=4 must be a mapping of settings"),
        (["model.lora.rank=4", "model.lora.layers=[head]"], "model.lora.layers=[head] must be a list of some of qkv"),
        (["model.lora.rank=4", "task=simmim", "transfer.required=false"], "is for fine-tuning on classes, not for SimMIM"),
    ],
)
def test_what_makes_no_sense_is_refused(command: Command, words: list[str], message: str) -> None:
    outcome = command("train", *TINY, *words)
    assert outcome.code == 2
    assert message in outcome.err
    assert not Path("runs").exists()


@pytest.mark.slow
@pytest.mark.slow
def test_adapters_of_other_models_are_refused(command: Command) -> None:
    others = [word for word in TINY if not word.startswith("model")]
    outcome = command("train", *others, "model=timm", "model.name=resnet10t", "model.lora.rank=4")
    assert outcome.code == 2
    assert "model.lora.rank=4 is for swin_lab.models.SwinTransformer; the model is a swin_lab.models.external" in outcome.err


def test_several_labels_are_learned_by_adapters_and_evaluated_with_their_sums(
    command: Command, start: SwinTransformer, tmp_path: Path
) -> None:
    outcome = command("train", *LORA, "task=multilabel", "data.several_labels=true", "transfer.head=reinit")
    assert outcome.code == 0, outcome.err
    run = only_run(tmp_path)
    assert torch.equal(checkpoint(run)["state_dict"]["network.embed.proj.weight"], start.embed.proj.weight)
    assert len(load_model(run).thresholds or ()) == 6
    evaluated = command("eval", f"checkpoint={run}", "out=evaluated")
    assert evaluated.code == 0, evaluated.err
    for name in ("map", "f1_tuned", "loss"):
        metric = f"metrics.final.{name}"
        assert recorded(tmp_path / "evaluated")[metric] == pytest.approx(recorded(run)[metric], abs=1e-6)


def test_a_student_with_adapters_learns_from_a_teacher(command: Command, start: SwinTransformer, tmp_path: Path) -> None:
    distillation = ["task=distillation", "task.teacher=start.safetensors", "task.features=0.1", "task.share=0.5"]
    outcome = command("train", *LORA, *distillation)
    assert outcome.code == 0, outcome.err
    run = only_run(tmp_path)
    trained = load_model(run).state_dict()
    assert trained.keys() == start.state_dict().keys()
    changed = {name for name, tensor in start.state_dict().items() if not torch.equal(trained[name], tensor)}
    assert changed == {
        name for name in trained if name.endswith(("qkv.weight", "attn.proj.weight")) or name.startswith("head.")
    }
    evaluated = command("eval", f"checkpoint={run}", "out=evaluated")
    assert evaluated.code == 0, evaluated.err
    assert final_metrics(tmp_path / "evaluated")["val/loss"] == pytest.approx(final_metrics(run)["val/loss"], abs=1e-6)


def test_without_peft_training_is_refused_and_evaluation_works(
    command: Command, start: SwinTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("train", *LORA, "trainer.max_epochs=1").code == 0
    monkeypatch.setattr("swin_lab.models.lora.find_spec", lambda name: None)
    refused = command("train", *LORA, "out=other")
    assert refused.code == 2
    assert "model.lora needs the package peft: pip install 'swin-lab[lora]'" in refused.err
    assert command("eval", f"checkpoint={only_run(tmp_path)}").code == 0


@pytest.mark.parametrize("stages", ["null", "2"])
def test_adapters_that_would_never_be_trained_are_refused(command: Command, start: SwinTransformer, stages: str) -> None:
    outcome = command("train", *LORA, "callbacks=head_only", f"callbacks.freezing.stages={stages}")
    assert outcome.code == 2
    assert "callbacks.freezing keeps the adapters of model.lora.rank=4 at their start" in outcome.err
    assert not Path("runs").exists()


def test_the_head_can_be_trained_alone_first(command: Command, start: SwinTransformer, tmp_path: Path) -> None:
    overrides = [*LORA, "callbacks=unfreeze", "callbacks.freezing.epochs=1"]
    outcome = command("train", *overrides)
    assert outcome.code == 0, outcome.err
    assert "unfrozen   14 tensors are trained from epoch 2" in outcome.printed
    last = checkpoint(only_run(tmp_path))["state_dict"]
    assert torch.equal(last["network.embed.proj.weight"], start.embed.proj.weight)
    assert last["network.stages.0.blocks.0.attn.qkv.lora_B.default.weight"].abs().max() > 0


def test_layer_decay_takes_adapters_and_eval_py_repeats_the_loss_of_a_run_in_bfloat16(
    command: Command, start: SwinTransformer, tmp_path: Path
) -> None:
    outcome = command("train", *LORA, "optimizer.layer_decay=0.8", "precision=bf16-mixed", "trainer.max_epochs=1")
    assert outcome.code == 0, outcome.err
    record = recorded(only_run(tmp_path))
    evaluated = command("eval", f"checkpoint={only_run(tmp_path)}", "out=evaluated")
    assert evaluated.code == 0, evaluated.err
    assert recorded(tmp_path / "evaluated")["metrics.final.loss"] == record["metrics.final.loss"]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_train_the_adapters_of_one(
    command: Command, process: Command, start: SwinTransformer, tmp_path: Path, strategy: str
) -> None:
    steady = [*LORA, "model.drop_path_rate=0.0", "augment=none", "ema=warm", "data.num_workers=0", "trainer.max_epochs=1"]
    assert command("train", *steady, "out=one").code == 0
    outcome = process("train", *steady, f"trainer={strategy}", "trainer.devices=2", "out=two")
    assert outcome.code == 0, outcome.err
    one, two = (checkpoint(only_run(tmp_path / name)) for name in ("one", "two"))
    for key in ("state_dict", "ema", "optimizer_states"):
        torch.testing.assert_close(two[key], one[key], rtol=0, atol=1e-5)
