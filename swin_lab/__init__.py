"""Train, evaluate and use Swin Transformers.

The names below are loaded when they are first used, so that commands that need no network answer at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swin_lab.models import SwinTransformer, create_model, list_models

__version__ = "0.1.0"
__all__ = ["SwinTransformer", "__version__", "create_model", "list_models"]


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module("swin_lab.models"), name)
    raise AttributeError(f"module 'swin_lab' has no attribute {name!r}")
