"""`resume=`: a stopped run goes on as if nothing had happened, or is refused with a message that says what to do."""

import csv
import json
import os
import random
import re
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, TINY, Command, Outcome, only_run, recorded
from filelock import FileLock
from lightning_utilities.core.apply_func import apply_to_collection

from swin_lab.errors import UserError
from swin_lab.run.directory import LOCK
from swin_lab.run.guard import resume_command
from swin_lab.run.resume import find_resumption
from swin_lab.run.resumed import beginning, check_agreed, check_unchanged
from swin_lab.training.checkpoint_io import LAST, PREVIOUS

RUN = [*TINY, "ema=warm", "model.drop_path_rate=0.3", "trainer.log_every_n_steps=1", "checkpoint.every_n_updates=3"]
STOP = '''
import os, signal
from pathlib import Path
from lightning import Callback

class StopAt(Callback):
    """Sends a signal to this process after an update, once."""

    def __init__(self, update: int, name: str):
        self.update, self.name = update, name

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.update and not Path("stopped").exists():
            Path("stopped").touch()
            os.kill(os.getpid(), getattr(signal, self.name))

class StopBefore(Callback):
    """Sends Ctrl-C in the evaluation before the first update, at which nothing has been saved."""

    def on_sanity_check_start(self, *_):
        os.kill(os.getpid(), signal.SIGINT)
'''


def stopping(update: int, name: str = "SIGTERM") -> list[str]:
    """Overrides of a run that a signal stops after an update, unless there is a file `stopped`."""
    Path("stopper.py").write_text(STOP)
    return [*RUN, f"+callbacks.stop={{_target_: stopper.StopAt, update: {update}, name: {name}}}"]


def contents(run: Path, name: str = LAST) -> dict[str, object]:
    """Returns what must be the same to the bit."""
    loaded = torch.load(run / "checkpoints" / name, weights_only=True)
    keys = ("state_dict", "ema", "optimizer_states", "lr_schedulers", "global_step", "run_state")
    bits = apply_to_collection({key: loaded[key] for key in keys}, torch.Tensor, lambda t: (t.dtype, t.numpy().tobytes()))
    return bits | {"metrics": (run / "metrics.csv").read_bytes()}


def assert_same(one: Path, two: Path) -> None:
    for name in (LAST, "best.ckpt"):
        expected, actual = contents(one, name), contents(two, name)
        assert [key for key in expected if actual[key] != expected[key]] == []


def the_run(name: str) -> Path:
    return next((Path("runs") / name).iterdir())


@pytest.fixture(scope="module")
def unstopped(run_script: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, which nothing stops, for tests that only read it."""
    folder = tmp_path_factory.mktemp("unstopped")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = stopping(5)
        Path("stopped").touch()
        assert run_script("train", *words, "name=unstopped").code == 0
        return the_run("unstopped").resolve()


def stopped(command: Command, update: int = 5, name: str = "SIGTERM") -> tuple[Outcome, Path]:
    outcome = command("train", *stopping(update, name), "name=stopped")
    return outcome, the_run("stopped")


@pytest.fixture
def default_sighup() -> Iterator[None]:
    """SIGHUP as a terminal leaves it, also where nohup has started the tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("default_sighup")
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 75), ("SIGUSR1", 75), ("SIGHUP", 75), ("SIGINT", 130)])
def test_a_run_that_a_signal_has_stopped_is_continued_by_the_command_that_it_prints(
    command: Command, unstopped: Path, name: str, code: int
) -> None:
    """The update is finished and saved: 5 of 8. At the end, everything is the same to the bit."""
    outcome, run = stopped(command, name=name)
    assert outcome.code == code
    assert f"stopped by {name}" in outcome.err
    assert torch.load(run / "checkpoints" / LAST, weights_only=True)["global_step"] == 5
    words = shlex.split(outcome.err.splitlines()[-1].partition("continue with: ")[2])
    assert words[1].endswith("train.py")
    again = command("train", *words[2:])
    assert again.code == 0, again.err
    assert "resume     after 5 updates (epoch 2)" in again.out
    assert_same(unstopped, run)
    assert len(list(run.parent.iterdir())) == 1


def test_auto_starts_a_run_and_continues_the_unfinished_one_and_starts_another_after_its_end(
    command: Command, unstopped: Path
) -> None:
    words = [*stopping(5), "name=stopped", "resume=auto"]
    first = command("train", *words)
    assert (first.code, "no unfinished run" in first.out) == (75, True)
    assert command("train", *words).code == 0
    assert_same(unstopped, the_run("stopped"))
    assert command("train", *words).code == 0
    assert len(list(Path("runs/stopped").iterdir())) == 2


@pytest.mark.parametrize("moment", ["first update", "last update of an epoch", "last update"])
def test_a_run_can_be_stopped_at_the_borders_of_epochs(command: Command, unstopped: Path, moment: str) -> None:
    first, run = stopped(command, update={"first update": 1, "last update of an epoch": 4, "last update": 8}[moment])
    assert first.code == 75
    outcome = command("train", f"resume={run}")
    assert outcome.code == 0, outcome.err
    assert_same(unstopped, run)


def test_the_checkpoint_before_the_first_update_continues_the_run(command: Command, unstopped: Path) -> None:
    _, run = stopped(command, update=1)
    previous = run / "checkpoints" / PREVIOUS
    assert torch.load(previous, weights_only=True)["global_step"] == 0
    previous.replace(run / "checkpoints" / LAST)
    outcome = command("train", f"resume={run}")
    assert outcome.code == 0, outcome.err
    assert_same(unstopped, run)


def test_a_damaged_checkpoint_is_skipped_with_a_warning_for_the_one_before_it(command: Command, unstopped: Path) -> None:
    _, run = stopped(command)
    last = run / "checkpoints" / LAST
    last.write_bytes(last.read_bytes()[:-1000])
    outcome = command("train", f"resume={run}")
    assert outcome.code == 0, outcome.err
    assert f"{LAST} is damaged" in outcome.printed
    assert_same(unstopped, run)
    assert (run / "checkpoints" / f"damaged_{LAST}").is_file()  # not kept as the one before the last


def test_permitted_changes_of_the_optimizer_take_effect(command: Command) -> None:
    _, run = stopped(command)
    changes = ["optimizer.lr=1e-9", "optimizer.weight_decay=0.7", "optimizer.betas=[0.5,0.6]", "resume_with=[optimizer]"]
    outcome = command("train", f"resume={run}", *changes)
    assert outcome.code == 0, outcome.err
    with (run / "metrics.csv").open(newline="") as file:
        rates = {int(row["step"]): float(row["train/lr"]) for row in csv.DictReader(file) if row["train/lr"]}
    assert [step for step, rate in rates.items() if rate < 1e-8] == [5, 6, 7]
    groups = torch.load(run / "checkpoints" / LAST, weights_only=True)["optimizer_states"][0]["param_groups"]
    assert {group["betas"] for group in groups} == {(0.5, 0.6)}
    assert {group["weight_decay"] for group in groups} == {0.7, 0.0}


def test_a_run_whose_best_checkpoint_was_removed_ends_with_a_warning(command: Command) -> None:
    _, run = stopped(command, update=7)
    (run / "checkpoints" / "best.ckpt").unlink()
    outcome = command("train", f"resume={run}")
    assert outcome.code == 0, outcome.err
    assert "best.ckpt is gone; the best evaluation from here on replaces it" in outcome.printed
    assert (run / "checkpoints" / "best.ckpt").is_file()


def test_a_signal_before_the_first_update_stops_the_run_without_a_trace(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from swin_lab.run import fit

    built = fit.built

    def interrupted(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return built(*arguments)

    monkeypatch.setattr(fit, "built", interrupted)
    outcome = command("train", *RUN)
    assert outcome.code == 75
    assert outcome.err.splitlines()[-2:] == [
        "stopped by SIGTERM before the first update",
        f"start it again with: python {shlex.join([str(ROOT / 'train.py'), *RUN])}",
    ]
    assert not Path("runs").exists()


def test_ctrl_c_in_the_evaluation_before_the_first_update_stops_the_run(command: Command, trained: Path) -> None:
    Path("stopper.py").write_text(STOP)
    outcome = command("train", *RUN, f"weights={trained}", "name=stopped", "+callbacks.stop._target_=stopper.StopBefore")
    assert outcome.code == 130, outcome.err
    assert outcome.err.splitlines()[-2] == "stopped by SIGINT before the first update"
    assert json.loads((the_run("stopped") / "results.json").read_text())["run.state"] == "interrupted"


def test_a_process_that_finds_another_checkpoint_than_the_first_one_is_refused(command: Command) -> None:
    """Machines whose folder `out` is not shared."""
    _, run = stopped(command)
    found = find_resumption(str(run), run.parent)
    assert found is not None
    check_agreed(found.position, beginning(found.position))
    check_agreed(None, beginning(None))
    with pytest.raises(UserError, match=r"would begin with a new run, the first one with update 5 .*\n.*share"):
        check_agreed(None, beginning(found.position))
    with pytest.raises(UserError, match=r"would begin with update 5 .*, the first one with a new run"):
        check_agreed(found.position, beginning(None))


@pytest.mark.parametrize(
    ("variables", "command_line"),
    [
        ({}, "python train.py resume=runs/x"),
        ({"TORCHELASTIC_RUN_ID": "none"}, "torchrun ... train.py resume=runs/x"),
        ({"SLURM_NTASKS": "8"}, "srun ... python train.py resume=runs/x"),
    ],
)
def test_the_printed_command_names_what_has_started_the_processes(
    variables: dict[str, str], command_line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert resume_command(["python", "train.py"], Path("runs/x").absolute()) == command_line


def test_a_file_that_ends_anywhere_is_never_taken(command: Command) -> None:
    _, run = stopped(command)
    last, previous = (run / "checkpoints" / name for name in (LAST, PREVIOUS))
    whole = last.read_bytes()
    before = torch.load(previous, weights_only=True)["global_step"]
    chance = random.Random(0)
    for length in [0, 1, len(whole) - 1, *(chance.randrange(len(whole)) for _ in range(47))]:
        last.write_bytes(whole[:length])
        found = find_resumption(str(run), run.parent)
        assert found is not None
        assert (found.file.name, found.position.updates) == (PREVIOUS, before)


def test_without_a_whole_checkpoint_the_run_is_refused(command: Command) -> None:
    _, run = stopped(command)
    for name in (LAST, PREVIOUS):
        (run / "checkpoints" / name).write_bytes(b"nothing")
    outcome = command("train", f"resume={run}")
    assert (outcome.code, "is damaged" in outcome.err, "Start a new run without resume" in outcome.err) == (2, True, True)


def test_a_directory_that_another_process_uses_is_refused(command: Command) -> None:
    _, run = stopped(command)
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    with FileLock(run / LOCK):
        outcome = command("train", f"resume={run}")
    assert outcome.code == 2
    assert "another process trains in" in outcome.err
    assert {file: file.read_bytes() for file in before} == before


def test_a_run_that_another_process_has_continued_before_the_lock_is_refused(command: Command) -> None:
    _, run = stopped(command)
    found = find_resumption(str(run), run.parent)
    assert found is not None
    assert check_unchanged(found) == found.position
    (run / "checkpoints" / PREVIOUS).replace(found.file)  # The other process has saved another place.
    with pytest.raises(UserError, match="meanwhile"):
        check_unchanged(found)


def test_what_changes_the_results_is_refused_unless_it_is_named(command: Command) -> None:
    _, run = stopped(command)
    refused = command("train", f"resume={run}", "optimizer.lr=1e-4", "global_batch=8")
    assert refused.code == 2
    assert "optimizer.lr: 0.003 -> 0.0001" in refused.err
    assert "resume_with=[" in refused.err
    assert command("train", f"resume={run}", "optimizer.lr=1e-4", "resume_with=[optimizr.lr]").code == 2
    outcome = command("train", f"resume={run}", "optimizer.lr=1e-4", "resume_with=[optimizer.lr]")
    assert outcome.code == 0, outcome.err
    assert "optimizer.lr" in outcome.out


def test_the_keys_that_a_refusal_names_are_accepted(command: Command) -> None:
    """Also those of an entry of a list that the resumed run has and this one has not."""
    _, run = stopped(command)
    changes = ["data.size_by_epoch=[[0,24],[1,32]]"]
    refused = command("train", f"resume={run}", *changes)
    named = re.search(r"'(resume_with=\[.*?\])'", refused.err)
    assert named is not None
    assert command("train", f"resume={run}", *changes, named[1]).code == 0


def test_what_does_not_change_the_results_may_change(command: Command, unstopped: Path) -> None:
    _, run = stopped(command)
    outcome = command("train", f"resume={run}", "data.num_workers=1", "checkpoint.every_n_updates=null")
    assert outcome.code == 0, outcome.err
    assert "data.num_workers" in outcome.out
    assert_same(unstopped, run)


def test_a_finished_run_goes_on_with_more_epochs_and_keeps_its_results(command: Command, tmp_path: Path) -> None:
    assert command("train", *RUN).code == 0
    run = only_run(tmp_path)
    refused = command("train", f"resume={run}")
    assert (refused.code, "give a larger trainer.max_epochs" in refused.err) == (2, True)
    outcome = command("train", f"resume={run}", "trainer.max_epochs=3")
    assert outcome.code == 0, outcome.err
    results = [json.loads((run / name).read_text()) for name in ("results_1.json", "results.json")]
    assert [result["run.epochs"] for result in results] == [2, 3]
    assert outcome.out.count("val loss") == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [("runs/missing", "does not exist"), (".", "is no run directory"), ("''", "must be a string that is not empty")],
)
def test_what_is_no_run_is_refused(command: Command, value: str, message: str) -> None:
    outcome = command("train", *RUN, f"resume={value}")
    assert (outcome.code, message in outcome.err) == (2, True), outcome.err
    assert not Path("runs").exists()


def test_a_run_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{}")
    with pytest.raises(UserError, match="before its first one"):
        find_resumption(str(tmp_path), tmp_path)


def steps_in_tensorboard(folder: Path) -> list[int]:
    """Returns the steps of the training loss, in the order in which they were written.

    TensorBoard orders files of the same second and process by a number without leading zeros: 10 before 9.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    steps = []
    for file in sorted(folder.glob("events.out.tfevents.*"), key=lambda file: file.stat().st_mtime_ns):
        events = EventAccumulator(str(file))
        events.Reload()
        if "train/loss" in events.Tags()["scalars"]:
            steps += [event.step for event in events.Scalars("train/loss")]
    return steps


def test_tensorboard_shows_no_step_twice_and_none_is_missing(command: Command, unstopped: Path) -> None:
    _, run = stopped(command)
    assert command("train", f"resume={run}").code == 0
    assert steps_in_tensorboard(unstopped) == steps_in_tensorboard(run) == list(range(8))


def test_records_after_the_checkpoint_are_logged_once(command: Command, unstopped: Path) -> None:
    """A killed process has logged more than its last checkpoint contains, and its last line is cut off."""
    _, run = stopped(command)
    (run / "checkpoints" / PREVIOUS).replace(run / "checkpoints" / LAST)  # of update 4
    with (run / "metrics.csv").open("a") as file:
        file.write("0.1,0.2")
    assert command("train", f"resume={run}").code == 0
    assert_same(unstopped, run)


def test_a_wandb_run_goes_on_under_its_identifier(command: Command) -> None:
    pytest.importorskip("wandb")
    words = [*stopping(5), "logger=wandb", "logger.wandb.mode=offline", "name=stopped"]
    assert command("train", *words).code == 75
    run = the_run("stopped")
    assert command("train", f"resume={run}").code == 0
    identifier = recorded(run)["run.id"]
    folders = [folder.name for folder in (run / "wandb").glob("offline-run-*")]
    assert len(folders) == 2
    # W&B appends -1 where the second start is in the same second as the first.
    assert all(re.fullmatch(rf"offline-run-\d{{8}}_\d{{6}}-{identifier}(-1)?", folder) for folder in folders), folders


def test_a_run_directory_that_vanishes_is_written_again(command: Command, tmp_path: Path) -> None:
    (tmp_path / "vanish.py").write_text(
        "import shutil\nfrom lightning import Callback\n\nclass Vanish(Callback):\n"
        "    def on_train_batch_end(self, trainer, *_):\n"
        "        if trainer.global_step == 2:\n            shutil.rmtree(trainer.log_dir)\n"
    )
    outcome = command("train", *RUN, "+callbacks.vanish._target_=vanish.Vanish")
    assert outcome.code == 0, outcome.err
    run = only_run(tmp_path)
    assert torch.load(run / "checkpoints" / LAST, weights_only=True)["global_step"] == 8
    assert "trainer.max_epochs=2" in (run / "overrides.txt").read_text()
    assert "epoch   2/2" in (run / "run.log").read_text()
    assert command("train", f"resume={run}", "trainer.max_epochs=3").code == 0
    with (run / "metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file) if row["val/acc1"]] == ["3", "7", "11"]


@pytest.mark.slow
def test_a_run_on_two_processes_of_which_one_gets_a_signal_is_continued_by_one_process(
    process: Command, tmp_path: Path
) -> None:
    os.chdir(tmp_path)
    ddp = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
    outcome = process("train", *stopping(5), *ddp, "name=stopped", "model.drop_path_rate=0.0")
    assert outcome.code == 75, outcome.err
    run = the_run("stopped")
    assert torch.load(run / "checkpoints" / LAST, weights_only=True)["global_step"] == 5
    again = process("train", f"resume={run}", "trainer=default", "trainer.accelerator=cpu")
    assert again.code == 0, again.err
    assert recorded(run)["run.updates"] == 8
