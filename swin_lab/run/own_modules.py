"""The user's own modules, which a `_target_` may name: those in the current directory and beside the configuration."""

import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

_own_folders: list[str] = []


def allow_imports_from(folders: Iterable[Path]) -> None:
    """Sets the folders of the user's own modules.

    They are searched only for a `_target_` that is in no installed package, so that a module that merely lies in the current
    folder, beside a downloaded checkpoint for example, is never imported.
    """
    _own_folders[:] = map(str, folders)


def search_own_folders(name: str) -> None:
    """Appends the folders of own modules to sys.path if a name is in no installed package; they never hide one."""
    root = name.partition(".")[0]
    if root.isidentifier() and root not in sys.modules and find_spec(root) is None:
        sys.path += [folder for folder in _own_folders if folder not in sys.path]
