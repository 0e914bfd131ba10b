"""`on_nonfinite`: what a run says about an update whose loss or gradient is NaN or infinite, its dump, and its replay."""

import csv
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, Command, Outcome, recorded, same

from swin_lab.commands.replay import PrecisionName
from swin_lab.run.dump import read_dump
from swin_lab.run.trainer import PRECISIONS

RUN = [*TINY, "ema=warm", "mixing=imagenet", "model.drop_path_rate=0.3", "trainer.log_every_n_steps=1", "data.num_workers=0"]
SPOIL = '''
import torch
from lightning import Callback

class Spoil(Callback):
    """Spoils an image, or the gradient, of an update."""

    def __init__(self, update: int, what: str = "image"):
        self.update, self.what = update, what

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step + 1 == self.update and self.what == "image":
            batch[0][3] = torch.nan

    def on_after_backward(self, trainer, module):
        if trainer.global_step + 1 == self.update and self.what == "gradient":
            next(module.parameters()).grad.view(-1)[0] = torch.inf
'''


def spoiled(command: Command, *arguments: str, update: int = 6, what: str = "image") -> tuple[Outcome, Path]:
    Path("spoil.py").write_text(SPOIL)
    outcome = command("train", *RUN, f"+callbacks.spoil={{_target_: spoil.Spoil, update: {update}, what: {what}}}", *arguments)
    return outcome, sorted(Path("runs/tiny").iterdir())[-1]


def last(run: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return loaded


def test_a_run_ends_with_the_images_the_last_good_checkpoint_and_the_command_that_shows_the_reason(
    command: Command, cli: Command
) -> None:
    outcome, run = spoiled(command)
    lines = outcome.err.splitlines()
    assert (outcome.code, len(lines)) == (2, 3), outcome.printed
    assert re.match(
        r"error: the training loss is NaN or infinite at update 6 \(epoch 2\); images: synthetic train\[\d+\], ", lines[0]
    )
    assert lines[0].endswith(" and 12 more")
    assert lines[1] == (
        f"swin-lab replay {run}/nonfinite_6.pt shows where; the last good checkpoint is {run}/checkpoints/last.ckpt"
    )
    assert "on_nonfinite=skip" in lines[2]
    assert last(run)["global_step"] == 4
    named = lines[0].partition("images: ")[2].partition(",")[0]
    shown = cli(*lines[1].split()[1:3])
    assert shown.code == 0, shown.err
    assert "the first NaN or infinite one is that of embed.proj (Conv2d), whose input is already" in shown.out
    assert "loss       nan" in shown.out
    assert named in shown.out


def test_a_replay_computes_the_same_loss_with_mixing_and_drop_path(command: Command, cli: Command) -> None:
    """To the last of 6 digits. The gradient of the run was spoiled after its backward pass, so that the replay's is finite."""
    outcome, run = spoiled(command, what="gradient")
    assert "the gradient norm is NaN or infinite and the loss is finite at update 6" in outcome.err
    with (run / "metrics.csv").open() as file:
        losses = {row["step"]: row["train/loss"] for row in csv.DictReader(file) if row.get("train/loss")}
    shown = cli("replay", run / "nonfinite_6.pt")
    assert f"loss       {float(losses['5']):.6g}" in shown.out
    assert "0 of 50 parameters have a gradient that is NaN or infinite" in shown.out


def test_a_stopped_run_goes_on_with_skip_and_is_the_same_as_one_that_has_skipped_from_the_beginning(command: Command) -> None:
    first, run = spoiled(command)
    assert first.code == 2
    again, _ = spoiled(command, "on_nonfinite=skip", f"resume={run}")
    assert again.code == 0, again.err
    assert "the training loss is NaN or infinite at update 6 (epoch 2) and is skipped" in again.out
    assert "nonfinite_6.pt; images: synthetic train[" in again.out
    assert recorded(run)["run.skipped_updates"] == 1
    assert "1 updates with a loss or gradient" in again.out
    other, whole = spoiled(command, "on_nonfinite=skip")
    assert (other.code, whole != run) == (0, True)
    keys = ("state_dict", "ema", "optimizer_states", "run_state")
    assert all(same(last(run)[key], last(whole)[key]) for key in keys)


def test_the_count_goes_on_in_a_resumed_run_and_the_limit_ends_it(command: Command) -> None:
    words = ["on_nonfinite=skip", "nonfinite_limit=1"]
    first, run = spoiled(command, *words, update=2)
    assert first.code == 0, first.err
    outcome, _ = spoiled(command, *words, f"resume={run}", "trainer.max_epochs=3", "resume_with=[callbacks]", update=10)
    assert outcome.code == 2
    assert "at update 10 (epoch 3) after 1 skipped updates; images: " in outcome.err


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    """Keeps the contents of a dump by its name."""
    return {}


@pytest.fixture
def dump(command: Command, contents: dict[str, bytes]) -> Path:
    """A dump, from one run for all tests."""
    name = "nonfinite_6.pt"
    if name not in contents:
        contents[name] = (spoiled(command)[1] / name).read_bytes()
    Path(name).write_bytes(contents[name])
    return Path(name).absolute()


def changed(dump: Path, path: str, value: object) -> None:
    content = torch.load(dump, weights_only=True)
    *keys, name = path.split(".")
    place = content
    for key in keys:
        place = place[int(key) if key.isdigit() else key]
    place[name] = value
    torch.save(content, dump)


def test_weights_that_an_update_before_has_spoiled_are_named(cli: Command, dump: Path) -> None:
    content = torch.load(dump, weights_only=True)
    content["state_dict"]["network.head.bias"][1] = torch.inf
    torch.save(content, dump)
    shown = cli("replay", dump)
    assert shown.code == 0, shown.err
    assert "1 of 50 tensors were bad before the update: head.bias contains 1 values that are NaN or infinite" in shown.out


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("nonfinite.format", 2, "its format is 2"),
        ("nonfinite.update", -1, "is damaged"),
        ("nonfinite.scale", float("nan"), "is damaged"),
        ("nonfinite.precision", "fp8", "precision=fp8 is unknown"),
        ("nonfinite", [1], "is damaged"),
        ("nonfinite_batches", [], "nonfinite_batches is empty"),
        ("nonfinite_batches", 3, "is damaged"),
        ("nonfinite_batches.0.seed", "x", "is damaged"),
        ("nonfinite_batches.0.seed", 2**70, "is damaged"),
        ("nonfinite_batches.0.names", ["\x1b[2J"], "without control characters"),
        ("nonfinite_batches.0.tensors", [torch.zeros(2)], "must be a list of tensors"),
        ("nonfinite_batches.0.tensors", [torch.zeros(2, 3), torch.zeros(2)], r"images of shape [2, 3]"),
        ("nonfinite_batches.0.tensors", [torch.zeros(2, 3, 32, 32), torch.full((2,), 99)], "does not fit its network"),
        (
            "nonfinite_batches.0.tensors",
            [torch.zeros(2, 5, 32, 32), torch.zeros(2, dtype=torch.long)],
            "they must be (batch, 3",
        ),
        ("swin_lab.model._target_", "os.system", "add --trust"),
    ],
)
def test_a_damaged_or_hostile_dump_is_refused(cli: Command, dump: Path, path: str, value: object, message: str) -> None:
    changed(dump, path, value)
    outcome = cli("replay", dump)
    assert (outcome.code, "Traceback" in outcome.printed) == (2, False)
    assert message in outcome.err


def test_a_file_that_is_no_dump_is_refused(command: Command, cli: Command, dump: Path) -> None:
    run = spoiled(command)[1]
    Path("half.pt").write_bytes(dump.read_bytes()[:5000])
    for file in (run / "checkpoints" / "last.ckpt", run, run / "config.yaml", "missing.pt", "half.pt", "a" * 5000):
        outcome = cli("replay", file)
        assert outcome.code == 2
        assert outcome.err.startswith("error: ")


def test_a_dump_contains_what_the_task_got(dump: Path) -> None:
    _, facts, (batch,) = read_dump(str(dump))
    assert (facts.update, facts.epoch, facts.precision, facts.processes) == (6, 2, "32-true", 1)
    images, labels, indices = batch.tensors
    assert images.flatten(1).isfinite().all(1).logical_not().nonzero().flatten().tolist() == [3]
    assert len(labels) == len(indices) == 16
    assert batch.names == tuple(f"synthetic train[{index}]" for index in indices.tolist())


def test_the_command_lists_all_precisions() -> None:
    assert set(PrecisionName.__args__) == set(PRECISIONS.values())
