"""A run with Swin-MLP, from training to prediction."""

import json

from conftest import TINY, Command

MLP = [*TINY, "model.token_mixer=mlp"]


def test_a_run_trains_evaluates_and_starts_another_one(command: Command, tmp_path):
    trained = command("train", *MLP)
    assert trained.code == 0, trained.err
    (run,) = (tmp_path / "runs" / "tiny").iterdir()
    results = json.loads((run / "results.json").read_text())
    assert results["derived.attention"] is None
    assert not [line for line in trained.out.splitlines() if line.startswith("attention")]
    evaluated = command("eval", f"checkpoint={run}", "trainer.accelerator=cpu")
    assert evaluated.code == 0, evaluated.err
    tuned = command("train", *MLP, f"weights={run}", "name=tuned", "model.drop_path_rate=0.1")
    assert tuned.code == 0, tuned.err
    refused = command("train", *MLP, f"weights={run}", "model.window_size=2")
    assert refused.code == 2
    assert "the weights of a Swin-MLP cannot be resized" in " ".join(refused.err.split())


def test_keys_of_attention_are_refused_before_data_is_read(command: Command):
    for override in ("model.attention_backend=sdpa", "model.qkv_bias=false"):
        outcome = command("train", *MLP, "data.train_images=0", override)
        assert outcome.code == 2
        assert f"{override.removeprefix('model.')} has no effect with token_mixer=mlp" in outcome.err
