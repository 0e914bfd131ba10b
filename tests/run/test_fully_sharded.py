"""`trainer=fsdp` on two processes of the CPU: the same numbers as one process, and files that every other strategy reads."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, Command, final_metrics, gradient_norms, only_run, recorded

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="PyTorch has no gloo, which connects CPU processes"),
]

STEADY = [*TINY, "model.drop_path_rate=0.0", "augment=none", "data.val_images=33", "ema=warm", "data.num_workers=0"]
STEADY += ["trainer.gradient_clip_val=0.05", "trainer.log_every_n_steps=1"]  # Every gradient is larger.
FSDP = ["trainer=fsdp", "trainer.devices=2"]
ALONE = ["trainer=default", "trainer.devices=1", "trainer.accelerator=cpu"]
LONGER = ["trainer.max_epochs=3", "resume_with=[trainer]"]


def read(run: Path) -> dict[str, Any]:
    loaded = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return {key: loaded[key] for key in ("state_dict", "ema", "optimizer_states")}


def assert_close(one: Path, two: Path) -> None:
    """Weights, their average, moments and losses differ by 1e-5 at most, and norms of gradients by 1e-4 of their size."""
    assert gradient_norms(two) == pytest.approx(gradient_norms(one), rel=1e-4)
    assert min(gradient_norms(one)) > 0.05
    torch.testing.assert_close(read(two), read(one), rtol=0, atol=1e-5)
    losses = [final_metrics(run)["val/loss"] for run in (one, two)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_two_processes_with_sharded_weights_train_like_one_and_exchange_checkpoints_with_it(
    process: Command, command: Command, tmp_path: Path
) -> None:
    assert command("train", *STEADY, "out=one").code == 0
    outcome = process("train", *STEADY, *FSDP, "out=sharded")
    assert outcome.code == 0, outcome.err
    one, sharded = (only_run(tmp_path / name) for name in ("one", "sharded"))
    assert_close(one, sharded)

    evaluated = command("eval", f"checkpoint={sharded}", *ALONE, "out=evaluated")
    assert evaluated.code == 0, evaluated.err
    result, trained = (recorded(run) for run in (tmp_path / "evaluated", sharded))
    assert result["run.images"] == trained["run.images"] == 33
    assert result["metrics.final.loss"] == pytest.approx(trained["metrics.final.loss"], rel=1e-6)

    plain, from_sharded, from_one = (tmp_path / name for name in ("plain", "from_sharded", "from_one"))
    for source, copy in ((one, plain), (sharded, from_sharded), (one, from_one)):
        shutil.copytree(source, copy)
    assert command("train", f"resume={plain}", *LONGER).code == 0
    resumed = command("train", f"resume={from_sharded}", *LONGER, *ALONE)
    assert resumed.code == 0, resumed.err
    resumed = process("train", f"resume={from_one}", *LONGER, *FSDP)
    assert resumed.code == 0, resumed.err
    assert_close(plain, from_sharded)
    assert_close(plain, from_one)


def test_an_evaluation_with_sharded_weights_is_that_of_one_process(command: Command, process: Command, tmp_path: Path) -> None:
    assert command("train", *STEADY, "out=one").code == 0
    run = only_run(tmp_path / "one")
    outcome = process("eval", f"checkpoint={run}", *FSDP, "batch=8", "trainer.accelerator=cpu", "out=evaluated")
    assert outcome.code == 0, outcome.err
    result, trained = (recorded(folder) for folder in (tmp_path / "evaluated", run))
    assert result["run.images"] == 33
    assert result["metrics.final.loss"] == pytest.approx(trained["metrics.final.loss"], rel=1e-6)


def test_compiled_blocks_and_activation_checkpointing_with_sharded_weights_train_like_plain_ones(
    process: Command, tmp_path: Path
) -> None:
    kinds = {"plain": [], "compiled": ["compile=blocks"], "checkpointed": ["model.activation_checkpointing=true"]}
    for name, words in kinds.items():
        outcome = process("train", *STEADY, *FSDP, *words, f"out={name}")
        assert outcome.code == 0, outcome.err
    for name in ("compiled", "checkpointed"):
        assert_close(only_run(tmp_path / "plain"), only_run(tmp_path / name))


def test_sharded_weights_train_in_bfloat16_with_weights_and_average_in_float32(process: Command, tmp_path: Path) -> None:
    outcome = process("train", *STEADY, *FSDP, "precision=bf16-mixed", "out=mixed")
    assert outcome.code == 0, outcome.err
    content = read(only_run(tmp_path / "mixed"))
    assert {tensor.dtype for key in ("state_dict", "ema") for tensor in content[key].values()} == {torch.float32}
