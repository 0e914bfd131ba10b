"""MLflow: runs in a local SQLite store, which needs no server, and which `mlflow ui` shows in a browser."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from filelock import FileLock
from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities import rank_zero_only

from swin_lab.record import FINISHED, Flat
from swin_lab.run.csv_log import Rows, is_first_process
from swin_lab.run.dashboards import Shown
from swin_lab.run.identity import RunIdentity

log = logging.getLogger("swin_lab")

SQLITE = "sqlite:///"
ID_TAG, SWEEP_TAG = "swin_lab.id", "sweep"
"""Tags of a run: its identifier, by which a resumed one is found, and its sweep."""
STATES = {FINISHED: "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
"""State in the record -> MLflow's."""
MAX_CHARACTERS = 500
"""Length of a parameter's value at most; MLflow refuses 6,000."""


class ContinuedMlflowLogger(MLFlowLogger):
    """Continues the MLflow run of an earlier process, and leaves out the records that it contains already.

    Args:
        identity: names the run.
        tracking_uri: MLflow's store.
        experiment: name of the experiment, which has all runs.
        tags: further tags.
        rows: rows of metrics.csv that the processes before have logged and that this one does not repeat.
    """

    def __init__(self, identity: RunIdentity, tracking_uri: str, experiment: str, tags: Mapping[str, str], rows: Rows) -> None:
        sweep = {} if identity.group is None else {SWEEP_TAG: identity.group}
        self._store = Path(tracking_uri.removeprefix(SQLITE)).absolute() if tracking_uri.startswith(SQLITE) else None
        if self._store is not None:
            self._store.parent.mkdir(parents=True, exist_ok=True)
            tracking_uri = f"{SQLITE}{self._store}"
        for name in ("mlflow", "alembic"):  # They report every step in which they create the store.
            logging.getLogger(name).setLevel(logging.WARNING)
        if is_first_process():
            log.info("%-10s mlflow ui --backend-store-uri %s", "mlflow", tracking_uri)
        super().__init__(
            experiment_name=experiment,
            run_name=identity.name,
            tracking_uri=tracking_uri,
            tags={**tags, **sweep, ID_TAG: identity.id},
            artifact_location=None if self._store is None else (self._store.parent / "mlflow_artifacts").as_uri(),
            synchronous=False,
        )
        self._last_steps: dict[str, int] = {}
        self._rows = rows

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Lets one job of a sweep after the other begin its run: the first one creates the store."""
        if self._store is None:
            yield
        else:
            with FileLock(f"{self._store}.lock"):
                yield

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Begins the run, or continues that of an earlier process, whose parameters MLflow does not change."""
        with self._locked():
            self._find_run()
            client = self.experiment
        known = client.get_run(self.run_id).data
        new = {key: str(value)[:MAX_CHARACTERS] for key, value in dict(params).items() if key not in known.params}
        for start in range(0, len(new), 100):  # MLflow takes 100 at once.
            entries = list(new.items())[start : start + 100]
            client.log_batch(self.run_id, params=[mlflow.entities.Param(*entry) for entry in entries])
        for name in known.metrics:
            self._last_steps[name] = max(entry.step for entry in client.get_metric_history(self.run_id, name))
        client.update_run(self.run_id, status="RUNNING")
        for row in self._rows:  # A killed process has not stored its last ones.
            self.log_metrics({name: float(text) for name, text in row.items() if text and name != "step"}, int(row["step"]))

    def _find_run(self) -> None:
        assert self.tags is not None
        experiment = self._mlflow_client.get_experiment_by_name(self._experiment_name)
        if experiment is None:
            return
        wanted = f"tags.`{ID_TAG}` = '{self.tags[ID_TAG]}'"
        found = self._mlflow_client.search_runs([experiment.experiment_id], wanted, max_results=1)
        self._run_id = found[0].info.run_id if found else None

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs those values of a record that the run does not contain."""
        new = {name: value for name, value in metrics.items() if (step or 0) > self._last_steps.get(name, -1)}
        if new:
            super().log_metrics(new, step)

    @rank_zero_only
    def show(self, figures: Sequence[Shown], tables: Mapping[str, Mapping[str, Sequence[Any]]], step: int) -> None:
        """Stores figures and tables as artifacts of the run."""
        for figure in figures:
            self.experiment.log_artifact(self.run_id, str(figure.file), "figures")
        for tag, columns in tables.items():
            self.experiment.log_dict(self.run_id, {key: list(values) for key, values in columns.items()}, f"{tag}.json")

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """Does nothing: Lightning ends a run after its training, which the final evaluation follows."""

    @rank_zero_only
    def end(self, record: Flat) -> None:
        """Ends the run."""
        if not self._initialized:
            return
        mlflow.flush_async_logging()
        for key in ("run.state", "run.reason"):
            self.experiment.set_tag(self.run_id, key, record[key])
        numbers = {key: value for key, value in record.items() if key.startswith("metrics.") and isinstance(value, float)}
        entries = [mlflow.entities.Metric(key, value, 0, record["run.updates"]) for key, value in numbers.items()]
        self.experiment.log_batch(self.run_id, metrics=entries)
        self.experiment.set_terminated(self.run_id, STATES[record["run.state"]])
