"""Adapters in a checkpoint that someone else has written: what is damaged is named, and nothing is allocated for it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from swin_lab import SwinConfig, SwinTransformer, load_model
from swin_lab.errors import UserError
from swin_lab.metadata import METADATA_KEY, Metadata

NETWORK = {"img_size": 32, "embed_dim": 8, "depths": (1,), "num_heads": (1,), "window_size": 4, "num_classes": 6}
LAYER = "network.stages.0.blocks.0.attn.qkv"


def content(lora: object = None, **changes: Any) -> dict[str, Any]:
    """The contents of a checkpoint with one adapter of rank 2, made without peft."""
    torch.manual_seed(0)
    network = SwinTransformer(SwinConfig(**NETWORK))
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    for end in ("weight", "bias"):
        tensors[f"{LAYER}.base_layer.{end}"] = tensors.pop(f"{LAYER}.{end}")
    tensors[f"{LAYER}.lora_A.default.weight"] = torch.randn(2, 8)
    tensors[f"{LAYER}.lora_B.default.weight"] = torch.randn(24, 2)
    for name, tensor in changes.items():
        if tensor is None:
            del tensors[f"{LAYER}.{name}.default.weight"]
        else:
            tensors[f"{LAYER}.{name}.default.weight"] = tensor
    settings = {"rank": 2, "alpha": 6.0, "layers": ["qkv"]} if lora is None else lora
    node = {"_target_": "swin_lab.models.SwinTransformer", **network.config.as_dict(), "lora": settings}
    return {"state_dict": tensors, METADATA_KEY: Metadata(model=node).as_dict()}


def test_an_adapter_is_added_with_alpha_by_rank_without_peft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    given = content()
    torch.save(given, tmp_path / "run.ckpt")
    state = given["state_dict"]
    a_RI, b_OR = (state[f"{LAYER}.{name}.default.weight"] for name in ("lora_A", "lora_B"))
    model = load_model(tmp_path / "run.ckpt")
    expected_OI = state[f"{LAYER}.base_layer.weight"] + 3 * (b_OR @ a_RI)
    torch.testing.assert_close(model.stages[0].blocks[0].attn.qkv.weight, expected_OI, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"lora": 3}, "metadata.model.lora=3 must be a mapping"),
        ({"lora": {"rank": None}}, "metadata.model.lora has no rank"),
        ({"lora": {"rank": -1}}, "model.lora.rank=-1 must be a positive integer"),
        ({"lora": {"rank": 2, "alpha": 1e300}}, "model.lora.alpha"),
        ({"lora": {"rank": 2, "other": 1}}, "is damaged: .*other"),
        ({"lora_A": None}, "the adapter of network.stages.0.blocks.0.attn.qkv is not complete"),
        ({"lora_A": torch.randn(2, 9)}, r"shapes \[2, 9\] and \[24, 2\], which do not fit rank 2 and a weight of \[24, 8\]"),
        ({"lora_B": torch.randn(10**6, 2)}, r"shapes \[2, 8\] and \[1000000, 2\]"),
        ({"lora_A": torch.full((2, 8), float("nan"))}, "contains 16 values that are NaN or infinite"),
        ({"lora_A": torch.ones(2, 8, dtype=torch.int64)}, "has dtype int64"),
        ({"lora_A": torch.ones(2, 8).to_sparse()}, "is sparse"),
    ],
)
def test_damaged_adapters_are_refused(arguments: dict[str, Any], words: str, tmp_path: Path) -> None:
    torch.save(content(**arguments), tmp_path / "run.ckpt")
    with pytest.raises(UserError, match=words):
        load_model(tmp_path / "run.ckpt")
