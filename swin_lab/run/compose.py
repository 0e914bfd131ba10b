"""Composition of a configuration outside a run, as train.py and eval.py would compose it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from swin_lab.errors import UserError
from swin_lab.paths import CONF
from swin_lab.run.choices import check_choices, leftovers
from swin_lab.run.explain import explain, search_path

WITHOUT_KEYS = ("experiment", "debug")
"""Groups whose files set the keys of other groups."""

MISSING = "???"
"""OmegaConf's mark of a required value that was not given."""


def error_of_missing(keys: Sequence[str], comments: Mapping[str, str]) -> UserError:
    """Returns the error that says of required values that they were not given.

    Args:
        keys: full names of their keys.
        comments: full name of a key -> what its value is, as far as it is known.
    """
    return UserError("\n".join(f"{key} must be given: {comments.get(key, f'{key}=VALUE')}" for key in keys))


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
    try:
        return compose_with_choices(job, overrides, [] if config_dir is None else [config_dir.absolute()])[0]
    except UserError as error:
        if config_dir is None and isinstance(error.__cause__, MissingConfigException):
            raise UserError(f"{error}\nA configuration outside the package is found with --config-dir DIR") from error
        raise


def compose_with_choices(
    job: str, overrides: Sequence[str], config_dirs: Sequence[Path]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the configuration, as `composed` does, and the choice of every group.

    Raises:
        UserError: the overrides do not compose.
    """
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            both = compose(config_name=job, overrides=[*search_path(config_dirs), *overrides], return_hydra_config=True)
        chosen = dict(both.hydra.runtime.choices)
        return resolved(both, chosen, overrides, config_dirs)[0], chosen
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(explain(error, job, overrides, config_dirs)) from error


def resolved(
    config: DictConfig, chosen: dict[str, Any], overrides: Sequence[str], config_dirs: Sequence[Path]
) -> tuple[dict[str, Any], list[str]]:
    """Resolves a composed configuration.

    Args:
        config: with or without Hydra's own part.
        chosen: the choice of every group.
        overrides: overrides on the command line.
        config_dirs: directories with further configuration files.

    Returns:
        Plain Python without Hydra's part and without leftovers of an experiment, and the full names of these leftovers.

    Raises:
        UserError: a choice is only a base of other choices.
        OmegaConfBaseException: an interpolation refers to nothing.
    """
    check_choices(chosen, config_dirs)
    for group in WITHOUT_KEYS:
        if config.get(group):
            key = next(iter(config[group]))
            raise UserError(f"{group}.{key} is not a key; the first line of the {group} file must be: # @package _global_")
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key not in ("hydra", *WITHOUT_KEYS)])
    unused = leftovers(OmegaConf.to_container(own), chosen, overrides, config_dirs)  # type: ignore[arg-type]
    OmegaConf.set_struct(own, False)
    for name in unused:  # before interpolations copy them
        group, key = name.split(".")
        own[group].pop(key)
    plain: dict[str, Any] = OmegaConf.to_container(own, resolve=True)  # type: ignore[assignment]
    return plain, unused
