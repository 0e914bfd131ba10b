"""Loggers: every run writes TensorBoard and CSV files into its directory; `logger=` adds others."""

import logging
import netrc
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Literal

from lightning.pytorch.loggers import Logger

from swin_lab.errors import UserError
from swin_lab.record import Flat
from swin_lab.report import shorter
from swin_lab.run.csv_log import csv_logger_of, is_first_process
from swin_lab.run.failures import CANNOT_WRITE
from swin_lab.run.identity import RunIdentity
from swin_lab.run.instantiate import check_node, first_line, instantiate
from swin_lab.run.targets import resolve
from swin_lab.run.tensorboard_log import RunTensorBoard
from swin_lab.run.wandb_files import logged_numbers
from swin_lab.training import Position
from swin_lab.validation import Text

log = logging.getLogger("swin_lab")

LOGGER_ARGUMENTS = ("run_dir", "run_name", "identity", "rows")
"""Arguments that the run gives to a logger that takes them: its directory, its name, what identifies it, and the rows of
metrics.csv that the processes before have logged and that a resumed run does not log again."""
MLFLOW_STORES = ("sqlite:///", "http://", "https://", "postgresql", "mysql", "mssql", "databricks")
"""Beginnings of the addresses of MLflow's stores; it no longer writes to folders."""


def check_loggers(nodes: dict[str, dict[str, Any]] | None) -> None:
    """Checks the nodes of the `logger` group without building a logger, which may need the run directory or a service.

    Raises:
        UserError: a node makes no logger, a key or value is invalid, or a package, a key or the right to write is missing.
    """
    for name, node in (nodes or {}).items():
        where = f"logger.{name}"
        check_node(where, node or {}, LOGGER_ARGUMENTS, Logger)
        if resolve(where, node) is wandb_logger:
            _check_mode(node.get("mode", "auto"))
        elif resolve(where, node) is mlflow_logger:
            check_mlflow(node.get("tracking_uri", MLFLOW_STORES[0]))


def log_configuration(loggers: Sequence[Logger], values: Flat) -> None:
    """Logs what is known of a run at its start as hyper-parameters: dotted keys with native values.

    Raises:
        UserError: a logger cannot write, or its service cannot be reached.
        OSError: the disk is full or cannot be written.
    """
    for logger in loggers:
        try:
            logger.log_hyperparams(values)
        except Exception as error:  # The client of a service raises anything.
            if isinstance(error, OSError) and error.errno in CANNOT_WRITE:
                raise
            raise UserError(f"logger {type(logger).__name__}: {first_line(error)}") from error


def build_loggers(
    nodes: dict[str, dict[str, Any]] | None, identity: RunIdentity, resumed: Position | None = None
) -> list[Logger]:
    """Builds the two local loggers and those of the `logger` group, which get those of `LOGGER_ARGUMENTS` that they take.

    Args:
        nodes: the `logger` group.
        identity: names the run and its directory.
        resumed: where a resumed run goes on. What its earlier process has logged after that is removed, or not logged again.
    """
    run_dir = identity.run_dir
    csv_logger, rows = csv_logger_of(run_dir, resumed)
    extra = dict(zip(LOGGER_ARGUMENTS, (run_dir, identity.name, identity, rows), strict=True))
    purge_step = None if resumed is None else resumed.updates
    return [
        RunTensorBoard(run_dir, name="", version="", default_hp_metric=False, purge_step=purge_step),
        csv_logger,
        *(instantiate(f"logger.{key}", node, extra, Logger) for key, node in (nodes or {}).items()),
    ]


def wandb_logger(
    project: Text,
    identity: RunIdentity,
    entity: Text | None = None,
    tags: tuple[Text, ...] = (),
    notes: Text | None = None,
    mode: Literal["auto", "online", "offline"] = "auto",
    rows: Sequence[dict[str, str]] = (),
) -> Logger:
    """Builds a Weights & Biases logger that never prompts and uploads no checkpoints.

    Args:
        project: name of the W&B project.
        identity: names the run, and its directory, which gets W&B's files.
        entity: user or team. If None, the default one.
        tags: tags of the run.
        notes: a description of the run. If None, there is none.
        mode: online, offline, or auto: online if there is a key, else offline.
        rows: rows of metrics.csv that the processes before have logged and that this one does not repeat.

    Raises:
        UserError: the mode needs a key, or wandb is not installed.
    """
    try:
        from swin_lab.run.wandb_run import FINISH_S, ContinuedWandbLogger
    except ImportError as error:
        raise UserError("logger=wandb needs the package wandb: pip install wandb") from error
    _check_mode(mode)
    offline = mode == "offline" or os.environ.get("WANDB_MODE") == "offline" or (mode == "auto" and not _has_key())
    if offline and is_first_process():
        log.info(
            "%-10s offline; send the run later with: wandb sync %s/wandb/offline-run-*", "wandb", shorter(identity.run_dir)
        )
    os.environ.setdefault("WANDB_SILENT", "true")
    logger = ContinuedWandbLogger(
        id=identity.id,
        resume="allow",
        project=project,
        entity=entity,
        name=identity.name,
        group=identity.group,
        tags=list(tags),
        notes=notes,
        settings={"finish_timeout": FINISH_S},
        save_dir=identity.run_dir,
        offline=offline,
        log_model=False,
    )
    logger._wandb_init.pop("anonymous", None)  # Lightning passes it, and W&B warns of it.
    logger.rows, logger.known = rows, frozenset(logged_numbers(identity.run_dir))
    return logger


def _check_mode(mode: str) -> None:
    if mode == "online" and not _has_key():
        raise UserError("logger.wandb.mode=online needs a key: wandb login, or the environment variable WANDB_API_KEY")


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def mlflow_logger(
    identity: RunIdentity,
    tracking_uri: Text = "sqlite:///runs/mlflow.db",
    experiment: Text = "swin_lab",
    tags: Mapping[str, Text] | None = None,
    rows: Sequence[dict[str, str]] = (),
) -> Logger:
    """Builds an MLflow logger; its default store is one SQLite file for all runs, which needs no server.

    Args:
        identity: names the run.
        tracking_uri: MLflow's store; the folder of an SQLite file is created.
        experiment: name of the experiment, which has all runs.
        tags: further tags. If None, there are none.
        rows: rows of metrics.csv that the processes before have logged and that this one does not repeat.

    Raises:
        UserError: mlflow is not installed, or the store cannot be one.
    """
    check_mlflow(tracking_uri)
    from swin_lab.run.mlflow_run import ContinuedMlflowLogger

    return ContinuedMlflowLogger(identity, tracking_uri, experiment, tags or {}, rows)


def check_mlflow(tracking_uri: str) -> None:
    """Raises UserError if mlflow is not installed, or if an address is none of a store that it writes to."""
    if sys.modules.get("mlflow", True) is None or find_spec("mlflow") is None:
        raise UserError("logger=mlflow needs the package mlflow: pip install 'swin-lab[mlflow]'")
    if not tracking_uri.startswith(MLFLOW_STORES):
        raise UserError(
            f"logger.mlflow.tracking_uri={tracking_uri} is no store of MLflow; give sqlite:///FILE, or the address of a server "
            "such as http://HOST:PORT"
        )
