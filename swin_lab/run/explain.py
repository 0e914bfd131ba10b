"""Hydra's errors in the words of this project: what is wrong, the nearest right name, one to three lines."""

import re
from collections.abc import Iterator

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from swin_lab.errors import UserError, did_you_mean
from swin_lab.paths import CONF


def explain(error: Exception, job: str, arguments: list[str]) -> str:
    """A message for a mistake on the command line or in a configuration file.

    Args:
        error: what Hydra, OmegaConf or this project raised.
        job: name of the top configuration.
        arguments: the command line, to find keys that would have been right.
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        options = [option for option in error.options if not option.startswith("_")]
        return f"{group}={choice} is unknown{did_you_mean(choice, options)}"
    if isinstance(error, OverrideParseException):
        return f"{error.override} cannot be read as key=value; values with '=', ',' or spaces need quotes: 'key=\"value\"'"
    text = str(error)
    wrong_key = re.search(r"Could not override '([^']+)'", text) or re.search(r"is not in struct\s+full_key: (\S+)", text)
    if wrong_key:
        key = wrong_key.group(1).split("@")[0]
        if job == "eval" and key.startswith("data."):
            return f"no data is chosen; give data=..., or +{key}=... to change what the checkpoint was trained with"
        known = list(_known_keys(job, [argument for argument in arguments if not _names(argument, key)]))
        return f"unknown key {key}{_nearest_key(key, known)}"
    return "\n".join(text.splitlines()[:2])


def _names(argument: str, key: str) -> bool:
    return argument.lstrip("+~").split("=")[0].split("@")[0] == key


def _nearest_key(key: str, known: list[str]) -> str:
    """Looks first for the same last part elsewhere (max_epochs -> trainer.max_epochs), then for a similar spelling."""
    same_end = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    if same_end:
        return f"; did you mean {same_end[0]}?"
    parent = key.rpartition(".")[0]
    siblings = [name for name in known if name.rpartition(".")[0] == parent]
    if parent in known and not siblings:
        return f": no {parent} is chosen; {parent}=... chooses one, see --help"
    if parent and not siblings:
        return f": there is no {parent}{did_you_mean(parent, {name.rpartition('.')[0] for name in known} - {''})}"
    return did_you_mean(key, siblings)


def _known_keys(job: str, right_arguments: list[str]) -> Iterator[str]:
    """Keys of the configuration that the other arguments compose; none if these are wrong as well."""
    overrides = [argument for argument in right_arguments if not argument.startswith("-")]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            composed = compose(config_name=job, overrides=overrides)
        except (HydraException, OmegaConfBaseException):
            composed = compose(config_name=job)
    yield from _dotted(composed, "")


def _dotted(config: DictConfig, prefix: str) -> Iterator[str]:
    for key in map(str, config):
        yield f"{prefix}{key}"
        if isinstance(config._get_node(key), DictConfig):
            child = config._get_node(key)
            assert isinstance(child, DictConfig)
            if not child._is_missing() and not child._is_none():
                yield from _dotted(child, f"{prefix}{key}.")
