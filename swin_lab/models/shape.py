"""The numbers of a Swin Transformer, checked against each other before a single weight is made."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from swin_lab.errors import UserError, is_number, is_whole
from swin_lab.ops.geometry import Size

Windows = int | Sequence[int | Sequence[int]]
"""One number, or one entry per stage, each a number or [height, width]."""


@dataclass(frozen=True)
class SwinShape:
    """What follows from the arguments of `SwinTransformer`; every tuple has one entry per stage."""

    img_size: Size
    """Pixels."""
    in_channels: int
    num_classes: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    channels: tuple[int, ...]
    windows: tuple[Size, ...]
    """After shrinking to the map: parameter shapes follow from these."""
    trained_windows: tuple[Size, ...]
    """V2: the windows whose farthest offsets its bias is scaled to."""
    maps: tuple[Size, ...]
    """Height and width in tokens at `img_size`."""

    @classmethod
    def checked(
        cls,
        version: int,
        img_size: int | Sequence[int],
        patch_size: int,
        in_channels: int,
        num_classes: int,
        embed_dim: int,
        depths: Sequence[int],
        num_heads: Sequence[int],
        window_size: Windows,
        pretrained_window_sizes: Windows,
        mlp_ratio: float,
        drop_path_rate: float,
    ) -> "SwinShape":
        """Raises UserError, naming the argument, its value and what would do, if they do not make a network."""
        if version not in (1, 2) or not is_whole(version):
            raise UserError(f"version={version} is unknown; 1 is Swin Transformer, 2 is Swin Transformer V2")
        size = _pair("img_size", img_size)
        for name, value in (("patch_size", patch_size), ("in_channels", in_channels), ("embed_dim", embed_dim)):
            _positive(name, value)
        if not is_whole(num_classes) or num_classes < 0:
            raise UserError(f"num_classes={num_classes}: give the number of classes, or 0 for a model without head")
        if not is_number(drop_path_rate) or not 0 <= drop_path_rate < 1:
            raise UserError(f"drop_path_rate={drop_path_rate} is no probability; give a number from 0 up to, not including, 1")
        if not is_number(mlp_ratio) or int(embed_dim * mlp_ratio) < 1:
            raise UserError(f"mlp_ratio={mlp_ratio} leaves the MLP without channels; the paper has 4.0")
        depths, num_heads = _per_stage("depths", depths), _per_stage("num_heads", num_heads)
        if len(depths) != len(num_heads):
            raise UserError(
                f"depths={list(depths)} has {len(depths)} stages and num_heads={list(num_heads)} has {len(num_heads)}; "
                "both need one entry per stage"
            )
        channels = tuple(embed_dim * 2**i for i in range(len(depths)))
        for i, (heads, dim) in enumerate(zip(num_heads, channels, strict=True)):
            if dim % heads:
                divisors = [h for h in range(1, dim + 1) if dim % h == 0 and h <= 64]
                raise UserError(
                    f"num_heads={list(num_heads)}: {heads} heads do not divide the {dim} channels of stage {i + 1} "
                    f"(embed_dim={embed_dim}); choose one of {divisors}"
                )
        maps = _maps(size, patch_size, len(depths))
        windows = tuple(
            _shrunk(window, map_size)
            for window, map_size in zip(_per_stage_sizes("window_size", window_size, len(depths)), maps, strict=True)
        )
        trained = _trained_windows(version, pretrained_window_sizes, windows)
        return cls(size, in_channels, num_classes, depths, num_heads, channels, windows, trained, maps)


def _trained_windows(version: int, pretrained_window_sizes: Windows, windows: tuple[Size, ...]) -> tuple[Size, ...]:
    """Stage by stage, what is given; the window itself where 0 is given."""
    entries = pretrained_window_sizes if isinstance(pretrained_window_sizes, Sequence) else [pretrained_window_sizes]
    if not isinstance(entries, str) and all(is_whole(entry) and entry == 0 for entry in entries):
        return windows
    if version == 1:
        raise UserError(
            f"pretrained_window_sizes={plain(pretrained_window_sizes)} is for version=2; "
            "version 1 has a table of its own for every window"
        )
    stages = len(windows)
    filled = [windows[i % stages] if is_whole(entry) and entry == 0 else entry for i, entry in enumerate(entries)]
    one_for_all = filled[0] if not isinstance(pretrained_window_sizes, Sequence) else filled
    return tuple(_per_stage_sizes("pretrained_window_sizes", one_for_all, stages))


def _maps(img_size: Size, patch_size: int, num_stages: int) -> tuple[Size, ...]:
    """Tokens per side in each stage; every step rounds up, as padding does."""
    maps = [(-(-img_size[0] // patch_size), -(-img_size[1] // patch_size))]
    for _ in range(num_stages - 1):
        maps.append((-(-maps[-1][0] // 2), -(-maps[-1][1] // 2)))
    return tuple(maps)


def _shrunk(window: Size, map_size: Size) -> Size:
    """No window is larger than the map the model is made for (as in the published weights)."""
    return min(window[0], map_size[0]), min(window[1], map_size[1])


def _per_stage_sizes(name: str, sizes: Windows, num_stages: int) -> list[Size]:
    if isinstance(sizes, str) or not isinstance(sizes, Sequence):
        return [_pair(name, sizes)] * num_stages
    if len(sizes) != num_stages:
        raise UserError(
            f"{name}={plain(sizes)} has {len(sizes)} entries for {num_stages} stages; "
            f"give one number, or one entry per stage (a non-square window is [height,width]: {[[4, 8]] * num_stages})"
        )
    return [_pair(name, entry) for entry in sizes]


def _pair(name: str, value: int | Sequence[int]) -> Size:
    if isinstance(value, str) or not isinstance(value, Sequence):
        value = (value, value)
    if len(value) != 2:
        raise UserError(f"{name}={plain(value)}: give one number or [height,width]")
    for side in value:
        _positive(name, side)
    return int(value[0]), int(value[1])


def _per_stage(name: str, values: Sequence[int]) -> tuple[int, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise UserError(f"{name}={values}: give one entry per stage, for example [2,2,6,2]")
    if len(values) == 0:
        raise UserError(f"{name}=[] has no stage; give one entry per stage, for example [2,2,6,2]")
    for value in values:
        _positive(name, value, list(values))
    return tuple(values)


def _positive(name: str, value: int, shown: object = None) -> None:
    if not is_whole(value) or value <= 0:
        raise UserError(f"{name}={value if shown is None else shown}: {value!r} is not a whole number above zero")


def plain(value: Any) -> Any:
    """Tuples and other sequences as lists, so that numbers given in Python look like those from YAML; into dicts as well."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, Sequence) and not isinstance(value, str) else value
