"""Composition of the same configurations once, for all tests of a process."""

import copy
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

COMPOSED: dict[object, Any] = {}
"""What Hydra has parsed and composed before, for all tests of a process."""


@contextmanager
def composed_from_memory(arguments: Sequence[str]) -> Iterator[None]:
    """Parses and composes the same choices of the package's own files once: a quarter of the time of a tiny run.

    A command that names folders of configurations, or keys of Hydra, composes as usual.
    """
    from hydra._internal import config_loader_impl
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.config_repository import CachingConfigRepository
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import DictConfig

    list_defaults, deepcopy = config_loader_impl.create_defaults_list, DictConfig.__deepcopy__
    parse, compose = OverridesParser.parse_rule, ConfigLoaderImpl._compose_config_from_defaults_list
    repository = CachingConfigRepository.__init__

    def parse_once(self: Any, text: str, rule: str) -> Any:
        if (text, rule) not in COMPOSED:
            COMPOSED[text, rule] = parse(self, text, rule)
        return copy.copy(COMPOSED[text, rule])

    def list_once(repo: Any, config_name: Any, overrides_list: list[Any], prepend_hydra: bool, skip_missing: bool) -> Any:
        rest = [one for one in overrides_list if isinstance(one.value(), dict) or not repo.group_exists(one.key_or_group)]
        of_groups = [one for one in overrides_list if one not in rest]
        key = (config_name, *(one.input_line for one in of_groups))
        if key not in COMPOSED:
            COMPOSED[key] = list_defaults(repo, config_name, of_groups, prepend_hydra, skip_missing)
        return replace(COMPOSED[key], config_overrides=rest)

    def compose_once(self: Any, defaults: Any, repo: Any) -> Any:
        key = tuple((entry.config_path, entry.package, entry.primary) for entry in defaults)
        if key not in COMPOSED:
            shared, repo.cache = repo.cache, {}  # Composition changes the first file that it has read.
            COMPOSED[key] = pickle.dumps(compose(self, defaults, repo))
            repo.cache = shared
        return pickle.loads(COMPOSED[key])

    def copy_by_pickling(self: DictConfig, memo: Any) -> DictConfig:
        copied = pickle.loads(pickle.dumps(self)) if self._get_parent() is None else deepcopy(self, memo)
        assert isinstance(copied, DictConfig)
        return copied

    def one_repository(self: Any, delegate: Any) -> None:
        repository(self, delegate)
        self.cache = COMPOSED.setdefault("files", {})

    with pytest.MonkeyPatch.context() as patch:
        if not any(word.startswith("--") or "hydra" in word for word in arguments):
            patch.setattr(OverridesParser, "parse_rule", parse_once)
            patch.setattr(DictConfig, "__deepcopy__", copy_by_pickling)  # Hydra copies whole configurations several times.
            patch.setattr(config_loader_impl, "create_defaults_list", list_once)
            patch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", compose_once)
            patch.setattr(CachingConfigRepository, "__init__", one_repository)
        yield
