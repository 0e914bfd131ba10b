"""A pipeline of stages, each a run that starts from the run before it: SimMIM, many classes, fewer classes, larger images."""

import json
from pathlib import Path

import torch
from conftest import TINY, Command, only_run

STAGES = {
    "masked": ["task=simmim", "task.mask_patch_size=8", "task.norm_target_size=7"],
    "many": ["data.num_classes=12"],
    "few": ["data.img_size=48", "model.img_size=48", "model.window_size=6", "model.pretrained_window_sizes=[4,4]"],
    "large": ["data.img_size=64", "model.img_size=64", "model.window_size=8", "model.pretrained_window_sizes=[4,4]"],
}
"""Name -> overrides of a small version of the commands of docs/pipelines.md."""


def test_every_stage_starts_from_the_weights_of_the_one_before_it(command: Command, tmp_path: Path) -> None:
    """Every stage says what it loads; with a learning rate of 0, the encoder goes through all of them unchanged."""
    before: Path | None = None
    said: dict[str, str] = {}
    for name, overrides in STAGES.items():
        given = [f"weights={before}", "optimizer.lr=0"] if before is not None else []
        words = [*TINY, "model.version=2", "trainer.max_epochs=1", f"out={name}", *overrides, *given]
        outcome = command("train", *words)
        assert outcome.code == 0, outcome.err
        said[name] = outcome.printed
        before = only_run(tmp_path / name)
    assert "3 tensors outside the network (mask_token, decoder)" in said["many"]
    assert "new (12 classes): the file has none" in said["many"]
    assert "6 of 6 classes found by name among 12" in said["few"]
    assert "kept (6 classes)" in said["large"]
    first, last = (
        torch.load(only_run(tmp_path / name) / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("masked", "large")
    )
    encoder = {name.removeprefix("network.encoder."): value for name, value in first.items() if "encoder." in name}
    assert len(encoder) > 20
    assert [name for name, value in encoder.items() if not torch.equal(value, last[f"network.{name}"])] == []
    record = json.loads((only_run(tmp_path / "large") / "results.json").read_text())
    assert "few" in record["config.weights"]
