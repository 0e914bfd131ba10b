"""The network as in the paper, its hyper-parameters, and its published variants by name."""

from swin_lab.models.backbone import Backbone
from swin_lab.models.config import SwinConfig
from swin_lab.models.cost import count_macs
from swin_lab.models.packing import packed_weights
from swin_lab.models.swin import FeatureInfo, SwinTransformer
from swin_lab.models.zoo import create_model, list_models, model_config

__all__ = [
    "Backbone",
    "FeatureInfo",
    "SwinConfig",
    "SwinTransformer",
    "count_macs",
    "create_model",
    "list_models",
    "model_config",
    "packed_weights",
]
