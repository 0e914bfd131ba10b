"""Train, evaluate and use Swin Transformers.

The names below are loaded when they are first used, so that commands that need no network respond immediately.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swin_lab.models import Backbone, SwinConfig, SwinTransformer, create_model, list_models
    from swin_lab.weights import load_model, save_weights

__version__ = "0.1.0"
__all__ = [
    "Backbone",
    "SwinConfig",
    "SwinTransformer",
    "__version__",
    "create_model",
    "list_models",
    "load_model",
    "save_weights",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        module = "swin_lab.weights" if name in ("load_model", "save_weights") else "swin_lab.models"
        return getattr(import_module(module), name)
    raise AttributeError(f"module 'swin_lab' has no attribute {name!r}")
