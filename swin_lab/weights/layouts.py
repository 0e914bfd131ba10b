"""Key tables: how every library names the tensors of a Swin Transformer. They are read in both directions.

A row pairs a native name with the name in another library. `{s}` stands for the index of a stage, `{b}` for that of a block,
`{l}` for that of the last stage; `{2s+1}` is computed from the index. A name matches a row if it equals the row's name, or
continues it with a dot (`.weight`).

References, each read at the given release: github.com/microsoft/Swin-Transformer at f82860b; timm 1.0.31; torchvision 0.29;
transformers 5.23; mmpretrain 1.2.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from swin_lab.weights.packing import (
    Tensors,
    join_query_key_value,
    keep,
    merge_in_unfold_order,
    pack_query_value_bias,
    split_query_key_value,
    undo_unfold_order,
    unpack_query_value_bias,
)

DERIVED = ("attn.relative_position_index", "attn.relative_coords_table", "attn.k_bias", "attn_mask")
"""Suffixes of native names of tensors that follow from the geometry; files may contain them, native models do not."""

BLOCK = {
    part: part
    for part in (
        *("norm1", "norm2", "mlp.fc1", "mlp.fc2", "attn.qkv", "attn.proj", "attn.relative_position_bias_table"),
        *("attn.q_bias", "attn.v_bias", "attn.logit_scale", "attn.cpb_mlp", *DERIVED),
    )
}
"""Native name of each part of a block -> its name in the official code, which is the same."""


def _rows(
    stem: tuple[str, str], merge: str, block: str, parts: dict[str, str], norm: str, head: str
) -> tuple[tuple[str, str], ...]:
    """Returns (native name, library's name) for every part of a network; `head` is outside the layout's root."""
    return (
        ("embed.proj", stem[0]),
        ("embed.norm", stem[1]),
        ("stages.{s}.merge.norm", f"{merge}.norm"),
        ("stages.{s}.merge.reduction", f"{merge}.reduction"),
        *((f"stages.{{s}}.blocks.{{b}}.{native}", f"{block}.{foreign}") for native, foreign in parts.items()),
        ("norm", norm),
        ("head", head),
    )


WINDOW_MLP = ("weight", "bias")
"""Tensors of the layer that Swin-MLP has instead of attention; no other library has a Swin-MLP."""

NATIVE = (
    *_rows(("embed.proj", "embed.norm"), "stages.{s}.merge", "stages.{s}.blocks.{b}", BLOCK, "norm", "head"),
    *((f"stages.{{s}}.blocks.{{b}}.attn.{kind}",) * 2 for kind in WINDOW_MLP),
)

OFFICIAL = (
    *_rows(
        ("patch_embed.proj", "patch_embed.norm"),
        "layers.{s-1}.downsample",
        "layers.{s}.blocks.{b}",
        BLOCK,
        "norm",
        "head",
    ),
    ("stages.{s}.blocks.{b}.attn.cpb_mlp", "layers.{s}.blocks.{b}.attn.rpe_mlp"),  # the name before the release of V2
    *((f"stages.{{s}}.blocks.{{b}}.attn.{kind}", f"layers.{{s}}.blocks.{{b}}.spatial_mlp.{kind}") for kind in WINDOW_MLP),
)

TIMM = (
    *_rows(
        ("patch_embed.proj", "patch_embed.norm"),
        "layers.{s}.downsample",
        "layers.{s}.blocks.{b}",
        BLOCK,
        "norm",
        "head.fc",
    ),
    ("head", "head"),  # the name in development releases of 0.8 and 0.9
)

TORCHVISION = _rows(
    ("features.0.0", "features.0.2"),
    "features.{2s}",
    "features.{2s+1}.{b}",
    BLOCK | {"mlp.fc1": "mlp.0", "mlp.fc2": "mlp.3"},
    "norm",
    "head",
)

_TRANSFORMERS_PARTS = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
    "attn.q": "attention.self.query",
    "attn.k": "attention.self.key",
    "attn.v": "attention.self.value",
    "attn.proj": "attention.output.dense",
    "attn.relative_position_bias_table": "attention.self.relative_position_bias_table",
    "attn.logit_scale": "attention.self.logit_scale",
    "attn.cpb_mlp": "attention.self.continuous_position_bias_mlp",
    "attn.relative_position_index": "attention.self.relative_position_index",
    "attn.relative_coords_table": "attention.self.relative_coords_table",
}
"""The layout's packing joins `attn.q`, `attn.k` and `attn.v` to `attn.qkv`."""

_TRANSFORMERS_STEM = ("embeddings.patch_embeddings.projection", "embeddings.norm")
_TRANSFORMERS_STAGES = ("encoder.layers.{s-1}.downsample", "encoder.layers.{s}.blocks.{b}")

HUGGINGFACE = _rows(_TRANSFORMERS_STEM, *_TRANSFORMERS_STAGES, _TRANSFORMERS_PARTS, "layernorm", "classifier")

HUGGINGFACE_5 = _rows(
    _TRANSFORMERS_STEM,
    *_TRANSFORMERS_STAGES,
    _TRANSFORMERS_PARTS
    | {
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
        "attn.q": "attention.q_proj",
        "attn.k": "attention.k_proj",
        "attn.v": "attention.v_proj",
        "attn.proj": "attention.o_proj",
        "attn.relative_position_bias_table": "attention.relative_position_bias.relative_position_bias_table",
    },
    "layernorm",
    "classifier",
)
"""Names in the state_dict since transformers 5; its `save_pretrained` still writes the names above."""

_MMPRETRAIN_PARTS = {native: foreign.replace("attn.", "attn.w_msa.") for native, foreign in BLOCK.items()} | {
    "mlp.fc1": "ffn.layers.0.0",
    "mlp.fc2": "ffn.layers.1",
}


def _mmpretrain(merge: str) -> tuple[tuple[str, str], ...]:
    stem = ("patch_embed.projection", "patch_embed.norm")
    return _rows(stem, merge, "stages.{s}.blocks.{b}", _MMPRETRAIN_PARTS, "norm{l}", "head.fc")


@dataclass(frozen=True)
class Layout:
    """Contains the names and the packing of tensors in one library."""

    name: str
    """Name in `--layout`."""
    label: str
    """Name in messages and reports."""
    rows: tuple[tuple[str, str], ...]
    """(native name, library's name); of rows with the same native name the first one is written, all are read."""
    versions: tuple[int, ...] = (1, 2)
    root: str = ""
    """Prefix of every name except the head's; files of a backbone without head do not have it."""
    read: Callable[[Tensors], Tensors] = keep
    """Converts tensors to the native form, after renaming."""
    write: Callable[[Tensors], Tensors] = keep
    """Converts tensors from the native form, before renaming."""

    def to_native(self, name: str, with_root: bool = True) -> str | None:
        """Returns the native name for one of the library's. If no row matches, returns None."""
        root = self.root if with_root else ""
        for native, foreign in self.rows:
            parsed = _parse((root if native != "head" else "") + foreign, name)
            if parsed is not None:
                return _fill(native, *parsed)
        return None

    def to_library(self, name: str, last_stage: int) -> str:
        """Returns the library's name for a native one; raises KeyError if there is none."""
        for native, foreign in self.rows:
            parsed = _parse(native, name)
            if parsed is not None:
                return (self.root if native != "head" else "") + _fill(foreign, parsed[0] | {"l": last_stage}, parsed[1])
        raise KeyError(name)


LAYOUTS = (
    Layout("swin_lab", "swin_lab", NATIVE),
    Layout("official", "official (microsoft/Swin-Transformer, timm before 0.9)", OFFICIAL),
    Layout("timm", "timm", TIMM),
    Layout("torchvision", "torchvision", TORCHVISION, read=unpack_query_value_bias, write=pack_query_value_bias),
    Layout(
        "huggingface",
        "transformers",
        HUGGINGFACE,
        (1,),
        "swin.",
        read=join_query_key_value,
        write=split_query_key_value,
    ),
    Layout(
        "huggingface",
        "transformers",
        HUGGINGFACE,
        (2,),
        "swinv2.",
        read=join_query_key_value,
        write=split_query_key_value,
    ),
    Layout(
        "huggingface",
        "transformers (state_dict)",
        HUGGINGFACE_5,
        (1,),
        "swin.",
        read=join_query_key_value,
        write=split_query_key_value,
    ),
    Layout(
        "mmpretrain",
        "mmpretrain",
        _mmpretrain("stages.{s-1}.downsample"),
        (1,),
        "backbone.",
        read=undo_unfold_order,
        write=merge_in_unfold_order,
    ),
    Layout(
        "mmpretrain",
        "mmpretrain",
        _mmpretrain("stages.{s}.downsample"),
        (2,),
        "backbone.",
        read=undo_unfold_order,
        write=merge_in_unfold_order,
    ),
)
LAYOUT_NAMES = tuple(dict.fromkeys(layout.name for layout in LAYOUTS))


def layout_to_write(name: str, version: int) -> Layout:
    """Returns the first layout of that name for a version of the network; the name must be one of `LAYOUT_NAMES`."""
    return next(layout for layout in LAYOUTS if layout.name == name and version in layout.versions)


_NUMBER = re.compile(r"\{(\d*)([a-z])([+-]\d+)?\}")


@cache
def _pattern(template: str) -> tuple[re.Pattern[str], tuple[tuple[str, int, int], ...]]:
    """Returns a template as a regular expression, and (letter, factor, offset) of each index in it."""
    numbers = tuple((m[2], int(m[1] or 1), int(m[3] or 0)) for m in _NUMBER.finditer(template))
    literal = [re.escape(part) for part in _NUMBER.sub("\0", template).split("\0")]
    return re.compile(r"(\d{1,4})".join(literal) + r"(\..+)?"), numbers


def _parse(template: str, name: str) -> tuple[dict[str, int], str] | None:
    """Returns the indices in a name and what follows the template. If the name does not match, returns None."""
    pattern, numbers = _pattern(template)
    found = pattern.fullmatch(name)
    if found is None:
        return None
    values = {}
    for text, (letter, factor, offset) in zip(found.groups(), numbers, strict=False):
        value, rest = divmod(int(text) - offset, factor)
        if rest or value < 0:
            return None
        values[letter] = value
    return values, found.groups()[-1] or ""


def _fill(template: str, values: dict[str, int], rest: str) -> str:
    """Returns a template with its numbers inserted, followed by the rest of a name."""
    return _NUMBER.sub(lambda m: str(int(m[1] or 1) * values[m[2]] + int(m[3] or 0)), template) + rest
