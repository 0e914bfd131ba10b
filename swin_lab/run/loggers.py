"""Where metrics go: TensorBoard and CSV in the run directory always, others by `logger=`."""

import logging
import netrc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from swin_lab.errors import UserError
from swin_lab.run.build import make, parameters_of

log = logging.getLogger("swin_lab")


def make_loggers(nodes: dict[str, dict[str, Any]], run_dir: Path, name: str) -> list[Logger]:
    """The two local loggers and those of the `logger` group; a target that takes `run_dir` or `name` is given them."""
    loggers: list[Logger] = [
        TensorBoardLogger(run_dir, name="", version="", default_hp_metric=False),
        CSVLogger(run_dir, name="", version=""),
    ]
    for key, node in (nodes or {}).items():
        takes = parameters_of(f"logger.{key}", node.get("_target_"))
        extra = {name: value for name, value in {"run_dir": run_dir, "run_name": name}.items() if name in takes}
        loggers.append(make(f"logger.{key}", node, extra))
    return loggers


def wandb_logger(
    project: str, run_dir: Path, run_name: str, entity: str | None = None, tags: Sequence[str] = (), mode: str = "auto"
) -> Logger:
    """Weights & Biases without surprises: no prompt, no upload of checkpoints.

    Args:
        project: name of the W&B project.
        run_dir: where W&B keeps its files.
        run_name: shown for the run.
        entity: user or team; None for the default one.
        tags: of the run.
        mode: online, offline, or auto: online if there is a key, else offline.

    Raises:
        UserError: the mode has another name, or wandb is not installed.
    """
    if mode not in ("auto", "online", "offline"):
        raise UserError(f"logger.wandb.mode={mode} is unknown; choose auto, online or offline")
    try:
        from lightning.pytorch.loggers import WandbLogger
    except ImportError as error:
        raise UserError("logger=wandb needs the package wandb: pip install wandb") from error
    if mode == "online" and not _has_key():
        raise UserError("logger.wandb.mode=online needs a key: wandb login, or the environment variable WANDB_API_KEY")
    offline = mode == "offline" or os.environ.get("WANDB_MODE") == "offline" or (mode == "auto" and not _has_key())
    if offline:
        log.info("wandb: offline; send the run later with: wandb sync %s/wandb/offline-run-*", run_dir)
    os.environ.setdefault("WANDB_SILENT", "true")
    made: Logger = WandbLogger(
        project=project,
        entity=entity,
        name=f"{run_name}/{run_dir.name}",
        tags=list(tags),
        save_dir=run_dir,
        offline=offline,
        log_model=False,
    )
    return made


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def close(loggers: Sequence[Logger]) -> None:
    """Ends a W&B run, if there is one, so that the next run of a sweep starts its own."""
    if "wandb" in sys.modules and any(type(logger).__name__ == "WandbLogger" for logger in loggers):
        import wandb

        wandb.finish()


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys with native values, the same for every logger, so that tables of runs compare by column."""
    out: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out
