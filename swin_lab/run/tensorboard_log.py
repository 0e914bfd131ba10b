"""TensorBoard's logger: scalars, hyper-parameters beside the final metrics, and figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from swin_lab.record import FINISHED, Flat
from swin_lab.run.dashboards import Shown


class RunTensorBoard(TensorBoardLogger):
    """Creates its folder again if someone has removed it: TensorBoard's writer opens its file for every record.

    The tab of hyper-parameters takes the metrics, `final/*`, from the curves of these names.
    """

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs a record."""
        Path(self.log_dir).mkdir(parents=True, exist_ok=True)
        super().log_metrics(metrics, step)

    @rank_zero_only
    def log_hyperparams(self, params: Any, metrics: dict[str, Any] | None = None, step: int | None = None) -> None:
        """Begins the session of the run in the tab of hyper-parameters, without a metric that has no value yet.

        What names the run, and the overrides, which the configuration contains, would be columns in which all runs differ.
        """
        from torch.utils.tensorboard.summary import hparams

        self.hparams.update(params)  # hparams.yaml
        plain = bool | int | float | str
        chosen = {key: value for key, value in dict(params).items() if key != "overrides" and not key.startswith("run.")}
        values = {key: value if isinstance(value, plain) else str(value) for key, value in chosen.items()}
        _, session_start, _ = hparams(values, {})
        self.experiment._get_file_writer().add_summary(session_start)

    @rank_zero_only
    def show(self, figures: Sequence[Shown], tables: Mapping[str, Mapping[str, Sequence[Any]]], step: int) -> None:
        """Shows the figures as images, and the tables as text."""
        Path(self.log_dir).mkdir(parents=True, exist_ok=True)
        for figure in figures:
            with Image.open(figure.file) as image:
                self.experiment.add_image(figure.tag, np.asarray(image.convert("RGB")), step, dataformats="HWC")
        for tag, columns in tables.items():
            self.experiment.add_text(tag, _markdown(columns), step)

    @rank_zero_only
    def end(self, record: Flat) -> None:
        """Ends the session of the run in the tab of hyper-parameters."""
        from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
        from torch.utils.tensorboard.summary import hparams

        _, _, session_end = hparams({}, {})
        if record["run.state"] != FINISHED:
            content = session_end.value[0].metadata.plugin_data
            data = HParamsPluginData.FromString(content.content)
            data.session_end_info.status = STATUS_FAILURE
            content.content = data.SerializeToString()
        if Path(self.log_dir).is_dir():
            self.experiment._get_file_writer().add_summary(session_end)
            self.experiment.close()


def _markdown(columns: Mapping[str, Sequence[Any]]) -> str:
    rows = [list(columns), ["---"] * len(columns)]
    for row in zip(*columns.values(), strict=True):
        rows.append([f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
