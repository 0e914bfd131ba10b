"""The same network, with the same weights, built by other libraries."""

import importlib.util
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from swin_lab.errors import UserError, did_you_mean
from swin_lab.models import SwinTransformer
from swin_lab.weights.layouts import layout_to_write
from swin_lab.weights.reference_models import build_reference_model
from swin_lab.weights.save import inexpressible, to_layout

PACKAGES = {"timm": "timm", "timm-fused": "timm", "torchvision": "torchvision", "transformers": "transformers"}
"""Peer -> the package that it belongs to."""
LAYOUTS = {"timm": "timm", "timm-fused": "timm", "torchvision": "torchvision", "transformers": "huggingface"}
OFFICIAL = "official"
OFFICIAL_CLASSES = {
    ("attention", 1): ("models/swin_transformer.py", "SwinTransformer"),
    ("attention", 2): ("models/swin_transformer_v2.py", "SwinTransformerV2"),
    ("mlp", 1): ("models/swin_mlp.py", "SwinMLP"),
}
"""Kind and version of the network -> file and class of the official code, github.com/microsoft/Swin-Transformer."""
FIRST_FILE = "models/swin_transformer.py"
"""The file by which a checkout of the official code is recognised."""
DERIVED = ("relative_position_index", "relative_coords_table", "attn_mask")
"""Buffers of the official code that it computes itself."""


class LeftOutError(Exception):
    """Says why a library does not take part in a comparison."""


@dataclass(frozen=True)
class PeerChoice:
    """Names the peers of a comparison."""

    names: tuple[str, ...]
    official: Path | None = None
    """Checkout of the official code. If None, it does not take part."""


def choose_peers(text: str) -> PeerChoice:
    """Reads a comma-separated list of peers; `official=DIR` names the checkout of the official code.

    Args:
        text: all (without the official code), none, or some of `PACKAGES` and official=DIR.

    Raises:
        UserError: a peer is unknown, or the folder is no checkout of the official code.
    """
    names: dict[str, None] = {}
    official = None
    for word in text.split(","):
        name, has_folder, folder = word.strip().partition("=")
        if name == "all" and not has_folder:
            names |= dict.fromkeys(PACKAGES)
        elif name == OFFICIAL:
            official = _official_checkout(folder)
        elif name in PACKAGES and not has_folder:
            names[name] = None
        elif name != "none" or text != "none":
            known = [*PACKAGES, "all", "none", "official=DIR"]
            raise UserError(f"--peers={text}: {word!r} is unknown{did_you_mean(name, known)}")
    return PeerChoice((*names, *([OFFICIAL] if official else [])), official)


def build_peer(name: str, ours: SwinTransformer, choice: PeerChoice) -> tuple[nn.Module, str]:
    """Builds a peer's network with our weights, which it must take strictly, and our rate of drop path.

    Returns:
        The network, and its library with its version.

    Raises:
        LeftOutError: the library is not installed or has no such network.
    """
    if name == OFFICIAL:
        assert choice.official is not None
        return _official_model(ours, choice.official), OFFICIAL
    if importlib.util.find_spec(PACKAGES[name]) is None:
        raise LeftOutError(f"{PACKAGES[name]} is not installed")
    if (why := inexpressible(ours.config, LAYOUTS[name])) is not None:
        raise LeftOutError(why)
    library = f"{PACKAGES[name]} {version(PACKAGES[name])}"
    if name == "timm-fused":
        return _with_fused_attention(lambda: build_reference_model(ours, "timm")), f"{library}, TIMM_FUSED_ATTN=2"
    network = build_reference_model(ours, LAYOUTS[name])
    attention = getattr(getattr(network, "config", None), "_attn_implementation", None)
    return network, library if attention is None else f"{library}, {attention} attention"


def _with_fused_attention(build: Callable[[], nn.Module]) -> nn.Module:
    """Builds a model of timm as if the environment variable TIMM_FUSED_ATTN were 2, and restores timm's setting."""
    from timm.layers.config import set_fused_attn, use_fused_attn

    before = use_fused_attn(), use_fused_attn(experimental=True)
    set_fused_attn(True, experimental=True)
    try:
        network = build()
    finally:
        set_fused_attn(*before)
    if not any(getattr(module, "fused_attn", False) for module in network.modules()):
        raise LeftOutError("timm has no fused attention for this version of the network")
    return network


def _official_checkout(folder: str) -> Path:
    if not folder:
        raise UserError("--peers: the official code needs its folder: official=DIR, a checkout of microsoft/Swin-Transformer")
    root = Path(folder).expanduser().absolute()
    if not (root / FIRST_FILE).is_file():
        raise UserError(
            f"--peers: official={folder} is no checkout of the official code: it has no {FIRST_FILE}\n"
            "Clone github.com/microsoft/Swin-Transformer"
        )
    return root


def _official_model(ours: SwinTransformer, root: Path) -> nn.Module:
    """Builds the official model with our weights."""
    config = ours.config
    if (why := inexpressible(config, OFFICIAL)) is not None:
        raise LeftOutError(why)
    same = ["patch_size", "num_classes", "embed_dim", "depths", "num_heads", "mlp_ratio", "drop_path_rate"]
    same += ["qkv_bias"] if config.token_mixer == "attention" else []
    arguments: dict[str, Any] = {key: getattr(config, key) for key in same}
    arguments |= {"img_size": config.image_size, "in_chans": config.in_channels}
    arguments |= {"window_size": max(max(window) for window in config.windows)}
    if config.version == 2:
        scaled = config.pretrained_windows != config.windows
        pretrained = [max(window) if scaled else 0 for window in config.pretrained_windows]
        arguments["pretrained_window_sizes"] = pretrained
    file, name = OFFICIAL_CLASSES[config.token_mixer, config.version]
    network: nn.Module = getattr(_imported(root / file), name)(**arguments)
    tensors = to_layout(ours, layout_to_write(OFFICIAL, config.version))
    own = {name: tensor for name, tensor in tensors.items() if not name.endswith(DERIVED)}
    missing, unexpected = network.load_state_dict(own, strict=False)
    if unexpected or (missing := [name for name in missing if not name.endswith(DERIVED)]):
        raise UserError(f"the official code in {root} has other parameters: {', '.join([*missing, *unexpected][:3])}")
    return network


def _imported(file: Path) -> ModuleType:
    """Imports a file of the official code by its path, which it does with a message and an addition to sys.path."""
    spec = importlib.util.spec_from_file_location(f"official_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    try:
        with redirect_stdout(StringIO()):
            spec.loader.exec_module(module)
    finally:
        sys.path[:] = path
    return module
