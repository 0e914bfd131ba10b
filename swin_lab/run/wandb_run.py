"""A W&B logger that continues the run of an earlier process."""

from collections.abc import Mapping, Sequence
from typing import Any

import wandb
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from swin_lab.record import FINISHED, Flat
from swin_lab.run.csv_log import Rows
from swin_lab.run.dashboards import Shown

STEP = "trainer/global_step"
"""The x axis of every chart."""
FINISH_S = 60.0
"""Seconds that a run waits at its end for W&B to send what is left."""


class ContinuedWandbLogger(WandbLogger):
    """Continues the W&B run of an earlier process, and logs each record once, whatever that process has lost.

    W&B numbers records, and drops those whose number is not greater than the last one. Here row n of metrics.csv has the number
    2 n + 1, in whatever process it is logged, and figures have the even numbers: 0, and at the end 2 n of the n rows before.
    """

    rows: Rows = ()
    """The rows of metrics.csv that an earlier process has logged and that this one does not repeat."""
    known: frozenset[int] = frozenset()
    """Numbers of the records in W&B's offline files."""
    row: int = 0
    """Number of rows of metrics.csv so far."""

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Shows the record's constants as columns, and the best value of the monitored metric in the summary."""
        super().log_hyperparams(params)
        values = dict(params)
        for prefix in ("val", "val_ema") if values.get("derived.monitor_weights") == "ema" else ("val",):
            if "derived.monitor" in values:
                name = f"{prefix}/{values['derived.monitor']}"
                self.experiment.define_metric(name, step_metric=STEP, summary=f"{values['derived.monitor_mode']},last")

        if self.experiment.resumed:  # online: the service knows its last number
            self.known |= frozenset(range(self.experiment.step))
        for row in self.rows:
            values = {name: float(value) for name, value in row.items() if value and name != "step"}
            self.log_metrics(values, int(row["step"]))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs a record unless the run contains it."""
        self._log(metrics, step, 2 * self.row + 1)
        self.row += 1

    def _log(self, values: Mapping[str, Any], step: int | None, number: int) -> None:
        if number not in self.known:
            self.experiment.log({**values, STEP: step or 0}, step=number)

    def show(self, figures: Sequence[Shown], tables: Mapping[str, Mapping[str, Sequence[Any]]], step: int) -> None:
        """Shows figures and tables; an image of a gallery is one image with its caption."""
        values: dict[str, Any] = {figure.tag: _images(figure) for figure in figures}
        for tag, columns in tables.items():
            values[tag] = wandb.Table(columns=list(columns), data=[list(row) for row in zip(*columns.values(), strict=True)])
        self._log(values, step, 2 * self.row)

    def end(self, record: Flat) -> None:
        """Shows the metrics of the record in the summary, and ends the run."""
        if self._experiment is None:
            return
        groups = ("metrics.", "run.")
        self.experiment.summary.update({key: value for key, value in record.items() if key.startswith(groups)})
        self.experiment.finish(exit_code=0 if record["run.state"] == FINISHED else 1)
        self._experiment = None


def _images(figure: Shown) -> Any:
    if not figure.images:
        return wandb.Image(str(figure.file))
    return [wandb.Image(image, caption=caption or None) for image, caption in zip(figure.images, figure.captions, strict=True)]
