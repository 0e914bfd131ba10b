"""Models of other libraries, to be trained and evaluated like a Swin Transformer.

Every adapter is a module that maps images (B, in_channels, H, W) to logits (B, num_classes), and has three attributes:
`img_size` (H, W), `in_channels`, and `preprocessing`, the evaluation that its library defines for the model. The preprocessing
is None where `swin_lab.preprocessing.Preprocessing` cannot express it.
"""

from swin_lab.models.external.timm_model import TimmModel
from swin_lab.models.external.torchvision_model import TorchvisionModel
from swin_lab.models.external.transformers_model import TransformersModel

__all__ = ["TimmModel", "TorchvisionModel", "TransformersModel"]
