"""Published top-1 on ImageNet-1k in percent, with one crop of 224 to 384 pixels, and where published weights are."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Contains the published accuracy of a variant."""

    from_1k: float | None = None
    """Trained on ImageNet-1k alone."""
    from_22k: float | None = None
    """Pre-trained on ImageNet-22k, fine-tuned on 1k."""


SWIN_MLP = "https://github.com/SwinTransformer/storage/releases/download/v1.0.5"
"""Folder of the published files of Swin-MLP (README.md of the official code), NAME.pth for a variant of this name."""

TOP1 = {
    # github.com/microsoft/Swin-Transformer, MODELHUB.md at f82860b
    "swin_tiny_patch4_window7_224": Published(81.2, 80.9),
    "swin_small_patch4_window7_224": Published(83.2, 83.2),
    "swin_base_patch4_window7_224": Published(83.5, 85.2),
    "swin_base_patch4_window12_384": Published(84.5, 86.4),
    "swin_large_patch4_window7_224": Published(None, 86.3),
    "swin_large_patch4_window12_384": Published(None, 87.3),
    "swin_tiny_c24_patch4_window8_256": Published(81.6),
    "swin_mlp_tiny_c24_patch4_window8_256": Published(79.4),
    "swin_mlp_tiny_c12_patch4_window8_256": Published(79.6),
    "swin_mlp_tiny_c6_patch4_window8_256": Published(79.7),
    "swin_mlp_base_patch4_window7_224": Published(81.3),
    "swinv2_tiny_window8_256": Published(81.8),
    "swinv2_tiny_window16_256": Published(82.8),
    "swinv2_small_window8_256": Published(83.7),
    "swinv2_small_window16_256": Published(84.1),
    "swinv2_base_window8_256": Published(84.2),
    "swinv2_base_window16_256": Published(84.6),
    "swinv2_base_window12to16_192to256": Published(None, 86.2),
    "swinv2_base_window12to24_192to384": Published(None, 87.1),
    "swinv2_large_window12to16_192to256": Published(None, 86.9),
    "swinv2_large_window12to24_192to384": Published(None, 87.6),
    # timm 1.0.31, results-imagenet.csv
    "swin_s3_tiny_224": Published(82.1),
    "swin_s3_small_224": Published(83.8),
    "swin_s3_base_224": Published(83.9),
}


def published_weights(name: str) -> str:
    """Returns where published weights of a variant are: a model on the Hugging Face hub, or for Swin-MLP a file to download."""
    return f"at {SWIN_MLP}/{name}.pth" if name.startswith("swin_mlp") else f"on the hub, for example timm/{name}.ms_in1k"
