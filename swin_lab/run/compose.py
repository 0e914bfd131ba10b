"""Configurations outside a run: what a command line would train with."""

from collections.abc import Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from swin_lab.errors import UserError
from swin_lab.paths import CONF
from swin_lab.run.explain import explain

MISSING = "???"
"""What stands for a value that must be given and was not."""


def composed(overrides: Sequence[str], job: str = "train") -> dict[str, Any]:
    """The configuration of `python train.py ...`, plain Python with interpolations resolved; missing values are MISSING.

    Args:
        overrides: as typed.
        job: "train" or "eval".

    Raises:
        UserError: they do not compose.
    """
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose(config_name=job, overrides=list(overrides))
        container: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, job, list(overrides))) from error
    return container
