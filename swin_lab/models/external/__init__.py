"""Models of other libraries, to be trained and evaluated like a Swin Transformer.

Every adapter is a module that maps images (B, in_channels, H, W) to logits (B, num_classes), and has three attributes:
`img_size` (H, W), `in_channels`, and `preprocessing`, the evaluation that its library defines for the model. The preprocessing
is None if `swin_lab.preprocessing.Preprocessing` cannot express it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swin_lab.models.external.timm_model import TimmModel
    from swin_lab.models.external.torchvision_model import TorchvisionModel
    from swin_lab.models.external.transformers_model import TransformersModel

__all__ = ["TimmModel", "TorchvisionModel", "TransformersModel"]

_MODULES = {"TimmModel": "timm_model", "TorchvisionModel": "torchvision_model", "TransformersModel": "transformers_model"}


def __getattr__(name: str) -> object:
    """Imports an adapter, and with it its library, when it is first used (PEP 562): timm takes most of a second."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
