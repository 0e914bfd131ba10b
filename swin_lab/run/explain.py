"""Turns errors of Hydra and OmegaConf into short messages: what is wrong and the closest valid name."""

import re
from collections.abc import Iterator, Sequence

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from swin_lab.errors import UserError, did_you_mean
from swin_lab.paths import CONF
from swin_lab.run.arguments import config_dirs, overrides_in, search_path


def explain(error: Exception, job: str, arguments: Sequence[str]) -> str:
    """Returns a message of one to three lines for a mistake on the command line or in a configuration file.

    Args:
        error: an exception of Hydra, OmegaConf or this project.
        job: name of the primary configuration, "train" or "eval".
        arguments: the command line; it decides which keys exist.
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        options = [option for option in error.options if not option.startswith("_")]
        return f"{group}={choice} is unknown{did_you_mean(choice, options)}"
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem_mark.name}, line {error.problem_mark.line + 1}: {error.problem}"
    if isinstance(error, OverrideParseException):
        return f"{error.override} cannot be parsed as key=value; values with '=', ',' or spaces need quotes: 'key=\"value\"'"
    text = str(error)
    unknown_key = re.search(r"Could not override '([^']+)'", text) or re.search(r"is not in struct\s+full_key: (\S+)", text)
    if unknown_key:
        return _explain_unknown_key(unknown_key.group(1).split("@")[0], job, arguments)
    return "\n".join(text.splitlines()[:2])


def _explain_unknown_key(key: str, job: str, arguments: Sequence[str]) -> str:
    if job == "eval" and key.startswith("data."):
        return f"no data is chosen; give data=..., or +{key}=... to change what the checkpoint was trained with"
    others = [override for override in overrides_in(arguments) if not _sets(override, key)]
    known = list(_known_keys(job, [*search_path(config_dirs(arguments)), *others]))
    return f"unknown key {key}{_nearest_key(key, known)}"


def _sets(override: str, key: str) -> bool:
    return override.lstrip("+~").split("=")[0].split("@")[0] == key


def _nearest_key(key: str, known: list[str]) -> str:
    """Suggests a key whose last part is the same (max_epochs -> trainer.max_epochs), else one with a similar spelling."""
    same_end = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    if same_end:
        return f"; did you mean {same_end[0]}?"
    parent = key.rpartition(".")[0]
    siblings = [name for name in known if name.rpartition(".")[0] == parent]
    if parent in known and not siblings:
        return f": no {parent} is chosen; {parent}=... chooses one, see --help"
    if parent and not siblings:
        return f": {parent} does not exist{did_you_mean(parent, {name.rpartition('.')[0] for name in known} - {''})}"
    hint = f"\n+{key}=... passes a further argument to the optimizer" if parent == "optimizer" else ""
    return did_you_mean(key, siblings) + hint


def _known_keys(job: str, overrides: list[str]) -> Iterator[str]:
    """Yields the keys of the configuration that these overrides compose, or of the default one if they are wrong, too."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            composed = compose(config_name=job, overrides=overrides)
        except (HydraException, OmegaConfBaseException):
            composed = compose(config_name=job)
    yield from _dotted(composed, "")


def _dotted(config: DictConfig, prefix: str) -> Iterator[str]:
    """Yields the dotted names of all keys."""
    for key in map(str, config):
        yield f"{prefix}{key}"
        child = config._get_node(key)
        if isinstance(child, DictConfig) and not child._is_missing() and not child._is_none():
            yield from _dotted(child, f"{prefix}{key}.")
