"""What TensorBoard, W&B and MLflow show of a run that was stopped, lost its newest checkpoint, and was resumed."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import TINY, Command, Outcome, only_run, recorded
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from wandb_files import OfflineRun, read_offline

from swin_lab.run.identity import identify
from swin_lab.training.checkpoint_io import LAST, PREVIOUS

STOP = """
import os, signal
from pathlib import Path
from lightning import Callback

class Stop(Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 5 and not Path("stopped").exists():
            Path("stopped").touch()
            os.kill(os.getpid(), signal.SIGTERM)
"""
RUN = [*TINY, "trainer.log_every_n_steps=1", "checkpoint.every_n_updates=1", "+callbacks.stop._target_=dashboard_stopper.Stop"]


@dataclass
class Resumed:
    """A run of 8 updates in two processes, of which the second one repeats an update: its directory, and its outcomes."""

    run: Path
    outcomes: list[Outcome]

    def events(self) -> list[EventAccumulator]:
        files = sorted(self.run.glob("events.out.tfevents.*"), key=lambda file: file.stat().st_mtime_ns)
        found = [EventAccumulator(str(file), size_guidance={"images": 0, "tensors": 0}) for file in files]
        return [events.Reload() for events in found]

    def wandb(self) -> list[OfflineRun]:
        files = sorted((self.run / "wandb").glob("offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime_ns)
        return [read_offline(file) for file in files]


def stopped_and_resumed(run_script: Command, folder: Path, *words: str) -> Resumed:
    (folder / "dashboard_stopper.py").write_text(STOP)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        first = run_script("train", *RUN, *words)
        assert first.code == 75, first.err
        run = only_run(folder)
        (run / "checkpoints" / PREVIOUS).replace(run / "checkpoints" / LAST)  # A kill would have left that of update 4.
        second = run_script("train", *RUN, *words, "resume=auto")
        assert second.code == 0, second.err
    if "logger=wandb" in words:
        import wandb

        wandb.teardown()  # It waits until W&B's own process has written everything; wandb.finish() does not.
    return Resumed(run, [first, second])


@pytest.fixture(scope="module")
def resumed(run_script: Command, tmp_path_factory: pytest.TempPathFactory) -> Resumed:
    pytest.importorskip("wandb")
    words = ["logger=wandb", "logger.wandb.mode=offline", "logger.wandb.notes=a try", "logger.wandb.tags=[first,second]"]
    return stopped_and_resumed(run_script, tmp_path_factory.mktemp("dashboards"), *words)


def test_wandb_has_one_run_with_every_record_once(resumed: Resumed) -> None:
    files, record = resumed.wandb(), recorded(resumed.run)
    assert [file.id for file in files] == 2 * [record["run.id"]]
    history = [row for file in files for row in file.history]
    seen = Counter(
        (key, row["trainer/global_step"]) for row in history for key in row if key.startswith(("train/", "val/", "final/"))
    )
    assert [entry for entry, times in seen.items() if times > 1] == []
    assert sorted(step for key, step in seen if key == "train/loss") == list(range(8))
    assert sorted(step for key, step in seen if key == "val/acc1") == [3, 7]
    numbers = [row["_step"] for row in history]
    assert numbers == sorted(set(numbers))


def test_wandb_shows_the_record_as_typed_columns(resumed: Resumed) -> None:
    record = recorded(resumed.run)
    file = resumed.wandb()[-1]
    groups = ("config.", "derived.", "git.", "versions.", "hardware.", "data.", "overrides")
    expected = {key: value for key, value in record.items() if key.startswith(groups)}
    assert {key: file.config.get(key, "missing") for key in expected} == expected
    assert type(file.config["config.optimizer.lr"]) is float
    assert (file.name, file.notes, sorted(file.tags)) == (record["run.name"], "a try", ["first", "second"])
    assert file.axes["*"] == "trainer/global_step"
    assert file.summary["metrics.final.acc1"] == record["metrics.final.acc1"]
    assert file.summary["val/acc1"]["max"] == pytest.approx(record["metrics.best.acc1"])


def test_wandb_shows_images_and_tables_and_how_the_run_has_ended(resumed: Resumed) -> None:
    first, second = resumed.wandb()
    assert (first.exit_code, second.exit_code) == (1, 0)
    keys = {key for row in first.history for key in row}
    assert "inputs/filenames" in keys
    last = second.history[-1]
    assert last["final/confusion/_type"] == "image-file"
    assert last["final/per_class/_type"] == "table-file"
    assert len(last["final/predictions/captions"]) == last["final/predictions/count"] == 16
    (folder,) = {
        folder for folder in (resumed.run / "wandb").glob("offline-run-*") if (folder / "files/media/images/final").is_dir()
    }
    assert len(list((folder / "files/media/images/final").glob("*.png"))) >= 17
    assert f"wandb sync {resumed.outcomes[0].out.split('wandb sync ')[1].split()[0]}" in resumed.outcomes[1].printed


def test_tensorboard_shows_images_and_every_scalar_once(resumed: Resumed) -> None:
    images: list[str] = []
    scalars: Counter[tuple[str, int]] = Counter()
    for events in resumed.events():
        images += [tag for tag in events.Tags()["images"] for _ in events.Images(tag)]
        tags = set(events.Tags()["scalars"]) - {"epoch"}  # Lightning adds it to every record.
        scalars.update((tag, entry.step) for tag in tags for entry in events.Scalars(tag))
    assert sorted(images) == ["final/confusion", "final/mistakes", "final/predictions", "inputs"]
    assert {step for tag, step in scalars if tag == "train/lr"} == set(range(8))
    # The second process writes update 4 again; TensorBoard drops the first one, because the file says where it restarts.
    assert {entry for entry, times in scalars.items() if times > 1} <= {(tag, 4) for tag, _ in scalars}


def test_the_tab_of_hyper_parameters_has_types_and_final_metrics(resumed: Resumed) -> None:
    record, sessions, tags = recorded(resumed.run), [], set()
    for events in resumed.events():
        tags |= set(events.Tags()["scalars"])
        for content in events.summary_metadata.values():
            if content.plugin_data.plugin_name == "hparams":
                sessions.append(HParamsPluginData.FromString(content.plugin_data.content))
    starts = [session.session_start_info for session in sessions if session.HasField("session_start_info")]
    ends = [session.session_end_info.status for session in sessions if session.HasField("session_end_info")]
    assert starts[0].hparams["config.optimizer.lr"].number_value == record["config.optimizer.lr"]
    assert starts[0].hparams["derived.parameters"].number_value == record["derived.parameters"]
    assert ends == [2, 1]  # STATUS_FAILURE, STATUS_SUCCESS
    assert {"final/acc1", "final/acc5", "final/loss"} <= tags


def test_the_predictions_are_those_of_the_reported_weights(resumed: Resumed) -> None:
    record = recorded(resumed.run)
    assert (record["predictions.file"], record["predictions.weights"]) == ("predictions.parquet", "raw")
    table = pq.read_table(resumed.run / "predictions.parquet")
    columns = {name: np.array(table[name].to_pylist()) for name in table.column_names if name != "path"}
    assert columns["index"].tolist() == list(range(30))
    assert columns["classes"].shape == columns["probabilities"].shape == (30, 5)
    assert np.mean(columns["classes"][:, 0] == columns["label"]) == pytest.approx(record["metrics.final.acc1"])
    assert -np.log(columns["label_probability"]).mean() == pytest.approx(record["metrics.final.loss"], rel=1e-5)
    assert np.all(np.diff(columns["probabilities"], axis=1) <= 0)
    metadata = json.loads(table.schema.metadata[b"swin_lab"])
    assert metadata["data_fingerprint"] == record["data.val_fingerprint"]
    assert (metadata["version"], len(metadata["class_names"]), metadata["weights"]) == (1, 6, "raw")


def test_an_evaluation_writes_the_same_predictions(command: Command, trained: Path, tmp_path: Path) -> None:
    assert command("eval", f"checkpoint={trained}", "out=here").code == 0
    assert pq.read_table("here/predictions.parquet").equals(pq.read_table(trained / "predictions.parquet"))
    assert recorded(Path("here"))["predictions.file"] == "predictions.parquet"
    assert command("eval", f"checkpoint={trained}", "out=without", "save_predictions=false").code == 0
    assert not Path("without/predictions.parquet").exists()


def test_runs_of_a_sweep_have_its_group_and_are_named_by_what_differs(tmp_path: Path) -> None:
    sweep = tmp_path / "sweeps" / "now"
    run = sweep / "3" / "time"
    run.mkdir(parents=True)
    (sweep / "sweep.json").write_text(json.dumps({"job": "train", "overrides": ["ema=warm", "optimizer.lr=1e-3,1e-2"]}))
    (sweep / "3" / "overrides.txt").write_text("ema=warm\noptimizer.lr=1e-2\n")
    identity = identify(run, "3")
    assert (identity.name, identity.group) == ("optimizer.lr=1e-2", "now")
    assert identity.sweep is not None
    assert (identity.sweep.job, identity.sweep.differs) == (3, ("optimizer.lr=1e-2",))
    outside = identify(tmp_path / "digits" / "time", "digits")
    assert (outside.name, outside.group, outside.sweep) == ("digits/time", None, None)


def test_a_dashboard_that_fails_does_not_end_the_run(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from swin_lab.run.tensorboard_log import RunTensorBoard

    def fail(*_: Any) -> None:
        raise RuntimeError("the service is down")

    monkeypatch.setattr(RunTensorBoard, "show", fail)
    monkeypatch.setattr(RunTensorBoard, "end", fail)
    outcome = command("train", *TINY, "trainer.max_epochs=1")
    assert outcome.code == 0, outcome.err
    assert "logger RunTensorBoard: the service is down" in outcome.printed
    assert recorded(only_run(tmp_path))["run.state"] == "finished"


@pytest.mark.slow
def test_mlflow_has_one_run_with_every_record_once(run_script: Command, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    resumed = stopped_and_resumed(run_script, tmp_path, "logger=mlflow")
    record = recorded(resumed.run)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    (experiment,) = (found for found in client.search_experiments() if found.name == "swin_lab")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.info.run_name) == ("FINISHED", record["run.name"])
    assert run.data.tags["swin_lab.id"] == record["run.id"]
    assert run.data.params["config.optimizer.lr"] == "0.003"
    assert run.data.params["derived.parameters"] == str(record["derived.parameters"])
    assert run.data.metrics["metrics.best.acc1"] == record["metrics.best.acc1"]
    steps = [entry.step for entry in client.get_metric_history(run.info.run_id, "train/loss")]
    assert sorted(steps) == list(range(8))
    assert {Path(file.path).name for file in client.list_artifacts(run.info.run_id, "figures")} >= {
        "inputs.png",
        "mistakes.png",
    }


@pytest.mark.slow
def test_jobs_of_a_sweep_are_one_group_of_wandb(tmp_path: Path, process: Callable[..., Outcome]) -> None:
    pytest.importorskip("wandb")
    words = [entry for entry in TINY if not entry.startswith(("name", "optimizer.lr"))]
    done = process("train", "-m", *words, "trainer.max_epochs=1", "optimizer.lr=1e-3,3e-3", "logger=wandb")
    assert done.code == 0, done.printed
    files = [read_offline(file) for file in _wandb_files(tmp_path)]
    (sweep,) = (tmp_path / "runs" / "sweeps").iterdir()
    assert {file.group for file in files} == {sweep.name}
    assert {file.name for file in files} == {"optimizer.lr=0.001", "optimizer.lr=0.003"}
    assert len({file.id for file in files}) == 2


def _wandb_files(folder: Path) -> Iterator[Path]:
    return folder.rglob("wandb/offline-run-*/*.wandb")


def test_a_record_that_a_killed_process_has_not_written_is_logged_by_the_next_one(resumed: Resumed, tmp_path: Path) -> None:
    from swin_lab.run.wandb_files import logged_numbers, offline_files

    whole = logged_numbers(resumed.run)
    file = offline_files(resumed.run)[0]
    cut = tmp_path / "wandb" / "offline-run-1" / file.name
    cut.parent.mkdir(parents=True)
    cut.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert logged_numbers(tmp_path) < whole
    assert {0, 1, 3, 5} <= whole
