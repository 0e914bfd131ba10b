"""The record of a run: flat, typed, whole at any time, and the same class for every reader."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, Command, Outcome, only_run, recorded
from filelock import FileLock

from swin_lab.errors import UserError
from swin_lab.record import LOCK, find_records, flat, is_finished, read_record, state_of

STOP = """
import json, os, signal
from pathlib import Path
from lightning import Callback

class Stop(Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step in (1, 6):
            found = json.loads(next(Path("runs/tiny").glob("*/results.json")).read_text())
            Path(f"{trainer.global_step}.json").write_text(json.dumps(found))
        if trainer.global_step == 6 and not Path("stopped").exists():
            Path("stopped").touch()
            os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.fixture(scope="module")
def stopped(run_script: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """A run with a moving average that a signal stops in its second epoch: its folder, its record, and that after a resume."""
    folder = tmp_path_factory.mktemp("stopped")
    (folder / "record_stopper.py").write_text(STOP)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = [*TINY, "ema=warm", "callbacks=none", "+callbacks.stop._target_=record_stopper.Stop"]
        assert run_script("train", *words).code == 75
        run = only_run(folder)
        before = recorded(run)
        assert run_script("train", *words, "resume=auto").code == 0
    return folder, before, recorded(run)


def test_the_record_is_flat_and_native(tiny_training: tuple[Path, Outcome]) -> None:
    record = recorded(only_run(tiny_training[0]))
    scalars = (bool, int, float, str, type(None))
    assert all(isinstance(value, scalars) or all(isinstance(entry, scalars) for entry in value) for value in record.values())
    assert (record["config.optimizer.lr"], record["config.model.qkv_bias"], record["config.ema"]) == (0.003, True, None)
    assert record["overrides"] == TINY
    assert (record["derived.updates"], record["derived.parameter_groups"]) == (8, 2)
    assert record["derived.gmacs"] > 0
    assert all(record[f"versions.{name}"] for name in ("torch", "lightning", "timm"))


def test_every_key_is_documented(stopped: tuple[Path, dict[str, Any], dict[str, Any]]) -> None:
    text = (Path(__file__).parent.parent / "docs" / "record.md").read_text()
    groups = ("config.", "preprocessing.", "formats.", "versions.", "metrics.")
    missing = [key for key in stopped[2] if not key.startswith(groups) and f"`{key}`" not in text]
    assert missing == []


def test_a_run_that_goes_on_has_a_record(stopped: tuple[Path, dict[str, Any], dict[str, Any]]) -> None:
    first, second = (json.loads((stopped[0] / f"{update}.json").read_text()) for update in (1, 6))
    assert (first["run.state"], first["run.updates"]) == ("running", 0)
    assert "metrics.last.acc1" not in first
    assert (second["metrics.last.epoch"], second["run.epochs"]) == (1, 1)
    assert {"metrics.last.acc1", "metrics.last_ema.acc1", "metrics.best_ema.acc1"} <= set(second)


def test_a_stopped_run_is_interrupted_and_the_resumed_one_is_the_same(
    stopped: tuple[Path, dict[str, Any], dict[str, Any]],
) -> None:
    _, before, after = stopped
    assert (before["run.state"], before["run.reason"], before["run.attempts"]) == ("interrupted", "SIGTERM", 1)
    assert (after["run.state"], after["run.reason"], after["run.attempts"]) == ("finished", None, 2)
    assert before["run.id"] == after["run.id"]
    assert before["run.started"] == after["run.started"]
    assert before["run.wall_seconds"] < after["run.wall_seconds"]
    assert (before["run.updates"], after["run.updates"], after["run.epochs"]) == (6, 8, 2)


def test_the_best_weights_are_those_of_the_monitored_metric(stopped: tuple[Path, dict[str, Any], dict[str, Any]]) -> None:
    record = stopped[2]
    assert (record["derived.monitor"], record["derived.monitor_weights"]) == ("acc1", "ema")
    for weights in ("", "_ema"):
        assert record[f"metrics.best{weights}.loss"] == pytest.approx(record[f"metrics.final{weights}.loss"], rel=1e-5)
        assert record[f"metrics.best{weights}.epoch"] == record[f"metrics.final{weights}.epoch"]
    assert record["metrics.best_ema.acc1"] >= record["metrics.last_ema.acc1"]
    assert record["metrics.final.of"] == "best"


def test_a_killed_run_has_crashed_and_one_whose_lock_is_held_runs(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"version": 1, "run.state": "running"}))
    assert state_of(tmp_path) == "crashed"
    with FileLock(tmp_path / LOCK):
        assert state_of(tmp_path) == "running"
    assert state_of(tmp_path) == "crashed"
    assert not is_finished(tmp_path)
    assert state_of(tmp_path / "missing") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged"),
        ("{}", "is no record of a run"),
        ("[]", "is no record of a run"),
        ('{"version": 2}', "has the format 2, and this swin_lab reads 1"),
        (None, "cannot be read: No such file or directory; give the directory of a run"),
    ],
)
def test_a_file_that_is_no_record_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "results.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_record(tmp_path)


def test_a_moved_run_names_the_directory_where_it_is(trained: Path) -> None:
    moved = trained.rename(trained.parent / "moved")
    assert read_record(moved)["run.directory"] == str(moved)
    assert list(find_records(moved.parent.parent)) == [moved]


def test_numbers_that_json_lacks_and_nested_lists_have_a_place() -> None:
    nested = {"a": float("inf"), "b": [{"c": 1}, {"c": 2}], "d": (1, 2), "e": Path("x")}
    assert flat(nested) == {"a": "inf", "b.0.c": 1, "b.1.c": 2, "d": [1, 2], "e": "x"}
