"""Train, evaluate and use Swin Transformers.

The names below are loaded when they are first used, so that commands that need no network respond immediately.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swin_lab.data.transforms import image_transform
    from swin_lab.inference import Prediction, Predictor
    from swin_lab.models import Backbone, SwinConfig, SwinTransformer, create_model, list_models, packed_weights
    from swin_lab.weights import load_model, save_weights

__version__ = "0.1.0"
__all__ = [
    "Backbone",
    "Prediction",
    "Predictor",
    "SwinConfig",
    "SwinTransformer",
    "__version__",
    "create_model",
    "image_transform",
    "list_models",
    "load_model",
    "packed_weights",
    "save_weights",
]

_MODULES = {
    "Prediction": "swin_lab.inference",
    "Predictor": "swin_lab.inference",
    "image_transform": "swin_lab.data.transforms",
    "load_model": "swin_lab.weights",
    "save_weights": "swin_lab.weights",
}
"""Name -> module, for names that are not in swin_lab.models."""


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module(_MODULES.get(name, "swin_lab.models")), name)
    raise AttributeError(f"module 'swin_lab' has no attribute {name!r}")
