"""Composition of a configuration outside a run, as train.py and eval.py would compose it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from swin_lab.errors import UserError
from swin_lab.paths import CONF
from swin_lab.run.arguments import search_path
from swin_lab.run.explain import explain

MISSING = "???"
"""OmegaConf's mark of a required value that was not given."""


def composed(overrides: Sequence[str], job: str = "train", config_dir: Path | None = None) -> dict[str, Any]:
    """Returns the configuration of `python train.py ...`, plain Python with interpolations resolved.

    Args:
        overrides: overrides of train.py or eval.py.
        job: "train" or "eval".
        config_dir: a directory with further configuration files, as given to `--config-dir`.

    Returns:
        The configuration; required values that were not given are MISSING.

    Raises:
        UserError: the overrides do not compose.
    """
    further = [] if config_dir is None else [config_dir.absolute()]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose(config_name=job, overrides=[*search_path(further), *overrides])
        container: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, job, [*(f"--config-dir={folder}" for folder in further), *overrides])) from error
    return container
