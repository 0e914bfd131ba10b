"""Turns errors of Hydra and OmegaConf into short messages: what is wrong and the closest valid name."""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException
from yaml import MarkedYAMLError

from swin_lab.errors import UserError, did_you_mean, explain_path
from swin_lab.paths import CONF
from swin_lab.run.choices import choices, groups, keys_of, typed_keys


def explain(error: Exception, job: str, overrides: Sequence[str], config_dirs: Sequence[Path]) -> str:
    """Returns a message of one to three lines for a mistake on the command line or in a configuration file.

    Args:
        error: an exception of Hydra, OmegaConf or this project, or a ValueError of Hydra.
        job: name of the primary configuration, "train" or "eval".
        overrides: the overrides on the command line; they decide which keys exist.
        config_dirs: directories with further configuration files.
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        return f"{group}={choice} is unknown{did_you_mean(choice, choices(group, config_dirs) or error.options)}"
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem_mark.name}, line {error.problem_mark.line + 1}: {error.problem or error.context}"
    if isinstance(error, OverrideParseException):
        return _explain_unparsed(str(error.override), job)
    if isinstance(error, RecursionError):
        return "a configuration file includes itself, or is nested too deeply"
    text = str(error) or type(error).__name__
    if isinstance(error, InterpolationResolutionError) and error.full_key:
        return f"{error.full_key}: {text.splitlines()[0][:1].lower()}{text.splitlines()[0][1:]}"
    if sweep := re.search(r"Ambiguous value for argument '(.*)'", text):
        key, _, value = sweep[1].partition("=")
        return f"{sweep[1]}: write a list as {key}=[{value}]; -m starts one run for each value"
    if "Config group override" in text:
        return _without_choice(overrides, config_dirs) or f"{shlex.join(overrides)}: {text}"
    if deleted := re.search(r"Could not delete from config. '([^']+)'", text):
        return f"~{deleted[1]}: there is no such key, or it is null and cannot be deleted; leave it out"
    unknown_key = re.search(r"Could not override '([^']+)'", text) or re.search(r"is not in struct\s+full_key: (\S+)", text)
    if unknown_key:
        return _explain_unknown_key(unknown_key.group(1).split("@")[0], job, overrides, config_dirs)
    return "\n".join(text.splitlines()[:2])


def message_of(error: Exception, job: str, overrides: Sequence[str], config_dirs: Sequence[Path]) -> str:
    """Returns the message for a user's mistake, as `explain` does; raises an error of the system that has another cause."""
    if not isinstance(error, OSError) or isinstance(error, HydraException):
        return explain(error, job, overrides, config_dirs)
    message = explain_path(error)
    if message is None:
        raise error
    return message


def search_path(config_dirs: Sequence[Path]) -> list[str]:
    """Returns the override by which Hydra's compose function finds configuration files in further directories."""
    return [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in config_dirs)}]"] if config_dirs else []


def _explain_unparsed(override: str, job: str) -> str:
    if "=" not in override:
        path = f"; did you mean checkpoint={override}?" if job == "eval" and Path(override).exists() else ""
        return f"{override} is not KEY=VALUE{path}"
    return f"{override} cannot be parsed as KEY=VALUE; values with spaces, '=', ',' or symbols need quotes: 'KEY=\"VALUE\"'"


def _without_choice(overrides: Sequence[str], config_dirs: Sequence[Path]) -> str | None:
    """Returns the message for the first override that gives a group something else than the name of a choice."""
    for override in overrides:
        key, _, value = override.partition("=")
        group = key.lstrip("+")
        if not group:
            return f"{override} has no key; give KEY=VALUE"
        if group in groups(config_dirs) and re.fullmatch(r"null|true|false|[-+.\d].*|\{.*|", value, re.IGNORECASE):
            return f"{group}={value} is not a choice{did_you_mean(value, choices(group, config_dirs))}"
    return None


def _explain_unknown_key(key: str, job: str, overrides: Sequence[str], config_dirs: Sequence[Path]) -> str:
    if job == "eval" and key.startswith("data."):
        return f"no data is chosen; give data=..., or +{key}=... to change what the checkpoint was trained with"
    others = [override for override in overrides if typed_keys([override]) != {key}]
    known = list(_known_keys(job, [*search_path(config_dirs), *others]))
    group = key.partition(".")[0]
    if any(override.startswith(f"~{group}") for override in overrides) and group != key:
        return f"{key} is given, but ~{group} removes {group}"
    if key in known and group != key:
        return f"unknown key {key}: it is not a key of the choices that are given"
    if key in known:
        inner = next((name for name in known if name.startswith(f"{key}.")), f"{key}.KEY")
        return f"{key} cannot be chosen here; set its keys, for example {inner}=..."
    name = key[len(group) + 1 :].partition(".")[0]
    having = [choice for choice in choices(group, config_dirs) if name and name in keys_of(group, choice, config_dirs)]
    if having and not any(known_key.startswith(f"{group}.{name}") for known_key in known):
        return f"unknown key {key}; {group}={having[0]} has it"
    return f"unknown key {key}{_nearest_key(key, known)}"


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
        except (HydraException, OmegaConfBaseException, ValueError):
            composed = compose(config_name=job)
    yield from _dotted(composed, "")


def _dotted(config: DictConfig, prefix: str) -> Iterator[str]:
    """Yields the dotted names of all keys."""
    for key in map(str, config):
        yield f"{prefix}{key}"
        child = config._get_node(key)
        if isinstance(child, DictConfig) and not child._is_missing() and not child._is_none():
            yield from _dotted(child, f"{prefix}{key}.")
