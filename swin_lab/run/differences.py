"""The differences of a recipe from a published one."""

from collections.abc import Sequence
from typing import Any

from swin_lab.record import flat
from swin_lab.run.recipe import Recipe, derived_values

IGNORED_KEYS = (
    "name",
    "out",
    "weights",
    "max_device_batch",
    "compile",
    "compile_mode",
    "data.root",
    "data.layout",
    "data.num_workers",
    "data.cache_mib",
    "data.in_memory",
    "model.activation_checkpointing",
    "model.attention_backend",
    "task.mixing",  # the same values as mixing.*
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.accelerator",
    "trainer.strategy",
    "trainer.log_every_n_steps",
    "trainer.profiler",
    "logger",
    "search",
    "sweep",
)
"""Keys, and prefixes of keys, that affect where and how a run is computed, but not its result."""


def differences(recipe: Recipe, published: Recipe, unspecified: Sequence[str] = ()) -> list[tuple[str, Any, Any]]:
    """Returns every value, given or derived, in which a recipe differs from a published one.

    Args:
        recipe: the recipe.
        published: the published recipe.
        unspecified: keys, and prefixes of keys, that the published recipe does not specify.

    Returns:
        (name, value of the published recipe, value of the recipe), with None if one of them has no such value.
    """
    given = differing(flat(dict(published.config)), flat(dict(recipe.config)))
    return [row for row in given if not has_prefix(row[0], (*IGNORED_KEYS, *unspecified))] + differing(
        derived_values(published), derived_values(recipe)
    )


def differing(published: dict[str, Any], given: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Returns the keys whose values differ, with both values."""
    old, new = ({key: value for key, value in values.items() if value != {}} for values in (published, given))
    return [(name, old.get(name), new.get(name)) for name in old | new if old.get(name) != new.get(name)]


def has_prefix(key: str, prefixes: Sequence[str]) -> bool:
    """Returns whether a dotted key is one of the prefixes, or below one."""
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)
