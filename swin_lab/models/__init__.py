"""The network, and its published variants by name."""

from swin_lab.models.swin import SwinTransformer
from swin_lab.models.zoo import create_model, list_models, model_config

__all__ = ["SwinTransformer", "create_model", "list_models", "model_config"]
