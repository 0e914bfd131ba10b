"""Converts tensors that other libraries store in another form: pairs of functions, each the inverse of the other.

Every function maps a dict of tensors under native names to a new one; it returns tensors that it does not convert unchanged.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Tensors = dict[str, Tensor]


def keep(tensors: Tensors) -> Tensors:
    """Returns the tensors unchanged, for layouts that store them in the native form."""
    return tensors


def join_query_key_value(tensors: Tensors) -> Tensors:
    """Joins the three linear layers of transformers to `attn.qkv`.

    In V2, where keys have no bias, the biases become `attn.q_bias` and `attn.v_bias`.
    """
    joined: Tensors = {}
    used: set[str] = set()
    for name, tensor in tensors.items():
        block, q, kind = name.partition("attn.q.")
        if q:
            k, v = tensors.get(f"{block}attn.k.{kind}"), tensors.get(f"{block}attn.v.{kind}")
            if k is not None and v is not None and _alike(tensor, k, v):
                joined[f"{block}attn.qkv.{kind}"] = torch.cat([tensor, k, v])
                used |= {f"{block}attn.{letter}.{kind}" for letter in "qkv"}
            elif k is None and v is not None and kind == "bias" and _alike(tensor, v):
                joined[f"{block}attn.q_bias"], joined[f"{block}attn.v_bias"] = tensor, v
                used |= {name, f"{block}attn.v.bias"}
    return joined | {name: tensor for name, tensor in tensors.items() if name not in used}


def _alike(*tensors: Tensor) -> bool:
    return tensors[0].ndim > 0 and len({(tensor.shape, tensor.dtype) for tensor in tensors}) == 1


def split_query_key_value(tensors: Tensors) -> Tensors:
    """Splits `attn.qkv` into three linear layers: the inverse of `join_query_key_value`."""
    split: Tensors = {}
    for name, tensor in tensors.items():
        block, qkv, kind = name.partition("attn.qkv.")
        if qkv:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                split[f"{block}attn.{letter}.{kind}"] = part.contiguous()
        elif name.endswith(("attn.q_bias", "attn.v_bias")):
            split[name.removesuffix("_bias") + ".bias"] = tensor
        else:
            split[name] = tensor
    return split


def unpack_query_value_bias(tensors: Tensors) -> Tensors:
    """Splits the bias of torchvision's V2, whose part for the keys has no effect, into `attn.q_bias` and `attn.v_bias`."""
    unpacked: Tensors = {}
    for name, tensor in tensors.items():
        block, bias, _ = name.partition("attn.qkv.bias")
        if bias and f"{block}attn.logit_scale" in tensors and tensor.ndim == 1 and len(tensor) % 3 == 0:
            q, _, v = tensor.chunk(3)
            unpacked[f"{block}attn.q_bias"], unpacked[f"{block}attn.v_bias"] = q.clone(), v.clone()
        else:
            unpacked[name] = tensor
    return unpacked


def pack_query_value_bias(tensors: Tensors) -> Tensors:
    """Joins `attn.q_bias` and `attn.v_bias` to one bias, with zeros for the keys: the inverse of `unpack_query_value_bias`."""
    packed: Tensors = {}
    for name, tensor in tensors.items():
        block, q_bias, _ = name.partition("attn.q_bias")
        if q_bias:
            packed[f"{block}attn.qkv.bias"] = torch.cat([tensor, torch.zeros_like(tensor), tensors[f"{block}attn.v_bias"]])
        elif not name.endswith("attn.v_bias"):
            packed[name] = tensor
    return packed


# mmpretrain merges with nn.Unfold, which lists for each channel the neighbours (0,0), (0,1), (1,0), (1,1). The native order is
# that of the official code: for each of the neighbours (0,0), (1,0), (0,1), (1,1) the channels. In V2, the norm follows the
# reduction and is not affected.

NEIGHBOURS = [0, 2, 1, 3]
"""Index of each neighbour of one order in the other."""


def undo_unfold_order(tensors: Tensors) -> Tensors:
    """Reorders the inputs of every merging from mmpretrain's order to the native one: (..., C x 4) -> (..., 4 x C)."""
    return _reordered(tensors, lambda x: x.unflatten(-1, (-1, 4))[..., NEIGHBOURS].transpose(-1, -2).flatten(-2))


def merge_in_unfold_order(tensors: Tensors) -> Tensors:
    """Reorders the inputs of every merging to mmpretrain's order: the inverse of `undo_unfold_order`."""
    return _reordered(tensors, lambda x: x.unflatten(-1, (4, -1))[..., NEIGHBOURS, :].transpose(-1, -2).flatten(-2))


def _reordered(tensors: Tensors, order: Callable[[Tensor], Tensor]) -> Tensors:
    reordered: Tensors = {}
    for name, tensor in tensors.items():
        stage, merge, _ = name.partition(".merge.")
        reduction = tensors.get(f"{stage}.merge.reduction.weight")
        inputs = reduction.shape[-1] if merge and reduction is not None and reduction.ndim == 2 else 0
        is_input = inputs > 0 and inputs % 4 == 0 and tensor.ndim > 0 and tensor.shape[-1] == inputs
        reordered[name] = order(tensor) if is_input else tensor
    return reordered
