"""A W&B logger that continues the run of an earlier process."""

from collections.abc import Mapping

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only


class ContinuedWandbLogger(WandbLogger):
    """Leaves out the records that the W&B run contains already: a resumed run repeats those that follow its checkpoint."""

    replayed: int = 0
    """Number of records that are left out."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs a record unless the run contains it."""
        if self.replayed > 0:
            self.replayed -= 1
        else:
            super().log_metrics(metrics, step)
