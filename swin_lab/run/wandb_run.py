"""A W&B logger that continues the run of an earlier process."""

from collections.abc import Mapping, Sequence
from typing import Any

import wandb
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from swin_lab.record import FINISHED, Flat
from swin_lab.run.dashboards import Shown

STEP = "trainer/global_step"
"""The x axis of every chart."""
EXTRA_RECORDS = 2
"""Records of a process at most besides those of metrics.csv: one before the first update, and one at the end."""
FINISH_S = 60.0
"""Seconds that a run waits at its end for W&B to send what is left."""


class ContinuedWandbLogger(WandbLogger):
    """Leaves out the records that the W&B run contains already: a resumed run repeats those that follow its checkpoint.

    W&B numbers records, and drops those whose number is not greater than the last one. An offline run does not know the last
    one, so that the number is given here; the updates are on the axis `trainer/global_step`.
    """

    replayed: int = 0
    """Number of records that are left out."""
    number: int = 0
    """Number of the next record."""
    continued: bool = False
    """Whether an earlier process has begun the run."""

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Shows the record's constants as columns, and the best value of the monitored metric in the summary."""
        super().log_hyperparams(params)
        values = dict(params)
        for prefix in ("val", "val_ema") if values.get("derived.monitor_weights") == "ema" else ("val",):
            if "derived.monitor" in values:
                name = f"{prefix}/{values['derived.monitor']}"
                self.experiment.define_metric(name, step_metric=STEP, summary=f"{values['derived.monitor_mode']},last")

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs a record unless the run contains it."""
        if self.replayed > 0:
            self.replayed -= 1
        else:
            self._log(metrics, step)

    def _log(self, values: Mapping[str, Any], step: int | None) -> None:
        self.experiment.log({**values, STEP: step or 0}, step=self.number)
        self.number += 1

    def show(self, figures: Sequence[Shown], tables: Mapping[str, Mapping[str, Sequence[Any]]], step: int) -> None:
        """Shows figures and tables; an image of a gallery is one image with its caption."""
        if self.continued and step == 0:
            return
        values: dict[str, Any] = {figure.tag: _images(figure) for figure in figures}
        for tag, columns in tables.items():
            values[tag] = wandb.Table(columns=list(columns), data=[list(row) for row in zip(*columns.values(), strict=True)])
        self._log(values, step)

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
