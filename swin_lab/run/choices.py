"""The groups of the configuration, the choices of a group, and the keys of a choice, as the files in conf/ define them.

A choice whose name begins with "_" is a base that other choices include; it cannot be chosen.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from swin_lab.errors import UserError, did_you_mean
from swin_lab.paths import CONF

NOT_CHOSEN = ("hydra",)
NODES = ("task", "model", "data", "augment", "mixing", "optimizer", "schedule", "ema", "trainer")
"""Groups whose choice is one node; the keys of `callbacks` and `logger` are names of nodes."""


def groups(config_dirs: Sequence[Path] = ()) -> list[str]:
    """Returns the groups of conf/ and of further configuration directories."""
    found = {path.name for folder in (CONF, *config_dirs) for path in folder.glob("*/") if any(path.glob("*.yaml"))}
    return sorted(found - set(NOT_CHOSEN))


def choices(group: str, config_dirs: Sequence[Path] = ()) -> list[str]:
    """Returns the choices of a group."""
    found = {file.stem for folder in (CONF, *config_dirs) for file in (folder / group).glob("*.yaml")}
    return sorted(name for name in found if not name.startswith("_"))


def check_choices(chosen: Mapping[str, str | Sequence[str] | None], config_dirs: Sequence[Path] = ()) -> None:
    """Raises UserError if a choice is only a base of other choices."""
    for group, choice in chosen.items():
        for name in [choice] if isinstance(choice, str) else choice or ():
            if name.startswith("_"):
                nearest = did_you_mean(name, choices(group, config_dirs))
                raise UserError(f"{group}={name} is only a base of other choices{nearest}")


def files_of(group: str, choice: str, config_dirs: Sequence[Path] = ()) -> list[Path]:
    """Returns the file of a choice after those of the choices that it includes; [] if there is none."""
    file = next((path for folder in (CONF, *config_dirs) if (path := folder / group / f"{choice}.yaml").is_file()), None)
    if file is None:
        return []
    included = _load(file).get("defaults", [])
    names = [name for name in included if isinstance(name, str) and name not in ("_self_", choice)]
    return [*(base for name in names for base in files_of(group, name, config_dirs)), file]


def keys_of(group: str, choice: str, config_dirs: Sequence[Path] = ()) -> set[str]:
    """Returns the keys of a choice, with those of the choices that it includes."""
    return {str(key) for file in files_of(group, choice, config_dirs) for key in _load(file)} - {"defaults"}


def _load(file: Path) -> dict[str, Any]:
    loaded = OmegaConf.to_container(OmegaConf.load(file))
    return {str(key): value for key, value in loaded.items()} if isinstance(loaded, dict) else {}


def typed_keys(overrides: Iterable[str]) -> set[str]:
    """Returns the keys that overrides name: "+model.depths=[2]" -> "model.depths"; of a mapping, also those inside it."""
    found: set[str] = set()
    for override in overrides:
        key, _, value = re.sub(r"@[^=]*", "", override.lstrip("+~"), count=1).partition("=")
        found |= {key, *(f"{key}.{inner}" for inner in re.findall(r"[{,]\s*(\w+)\s*:", value))}
    return found


def leftovers(
    config: Mapping[str, Any], chosen: Mapping[str, Any], overrides: Sequence[str], config_dirs: Sequence[Path]
) -> list[str]:
    """Returns the keys that an experiment has set for another choice of a group than the one that is chosen in the end.

    An example: experiment=swin_tiny_patch4_window7_224 sets schedule.cosine_after_warmup, and schedule=step does not take it.
    A key that is typed on the command line is no leftover, nor is one that no choice of the group has. A group that is chosen
    as none has leftovers only if that choice is typed: a key of a file without a choice is a mistake.

    Args:
        config: a composed configuration, plain Python.
        chosen: the choice of every group.
        overrides: overrides on the command line.
        config_dirs: directories with further configuration files.
    """
    typed, found = typed_keys(overrides), []
    nodes = {group: config[group] for group in chosen if group in NODES and isinstance(config.get(group), dict)}
    for group, node in nodes.items():
        choice = chosen[group]
        if not isinstance(choice, str) or ("_target_" not in node and group not in typed):
            continue
        added = {key for key in set(node) - keys_of(group, choice, config_dirs) if not _is_typed(f"{group}.{key}", typed)}
        if added:
            others = set().union(*(keys_of(group, other, config_dirs) for other in choices(group, config_dirs)))
            found += [f"{group}.{key}" for key in node if key in added & others and not _takes(group, node, key)]
    return found


def _is_typed(name: str, typed: set[str]) -> bool:
    """Returns whether a key, or one below it, is typed."""
    return any(key == name or key.startswith(f"{name}.") for key in typed)


def _takes(group: str, node: dict[str, Any], key: str) -> bool:
    """Returns whether the class that a node names takes a key."""
    if key == "_target_" or "_target_" not in node:
        return key == "_target_"
    from swin_lab.run.components import accepts  # imports torch

    return accepts(group, node, key)
