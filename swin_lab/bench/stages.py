"""The time of every stage of our network, forward and backward, and what the roofline predicts for it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from swin_lab.bench.cost import EMBED, HEAD, MERGING, MLP, mixer_part, stage_name
from swin_lab.bench.roofline import Limit
from swin_lab.bench.steps import Precision, Work, autocast, cast
from swin_lab.bench.timing import Plan, Spread, interleave
from swin_lab.models import SwinTransformer

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Part:
    """Contains a part of the network, the input that it gets, and how often the network has it."""

    section: str
    part: str
    """Empty for a whole section; the parts of a section are measured once more on their own."""
    function: Function
    parameters: list[nn.Parameter]
    x: Tensor
    count: int = 1


@dataclass(frozen=True)
class StageRow:
    """Contains the time of a part of the network in seconds per image, and the least time by the roofline."""

    section: str
    part: str
    forward: float
    backward: float
    share: float
    """Of the sum over all sections."""
    predicted_forward: float
    predicted_backward: float
    """For attention and MLP, predictions include their norm and residual, whose time is measured in the whole stage only."""


def stage_rows(
    network: SwinTransformer, images: Tensor, *, work: Work, precision: Precision, plan: Plan, limits: list[Limit]
) -> list[StageRow]:
    """Measures every section of the network, and the parts of every stage, with the inputs that they get in the network.

    Args:
        network: our network, on the device of the images; its mode and dtype are changed.
        images: (B, channels, H, W) of fp32.
        work: inference, or training with a backward pass.
        precision: see `swin_lab.bench.steps.PRECISIONS`.
        plan: clock and rounds.
        limits: the roofline of the same work and precision.
    """
    network = cast(network, precision)
    network.train(work == "training")
    parts = find_parts(network, images.to(next(network.parameters()).dtype), precision)
    calls: dict[str, Callable[[], object]] = {}
    for i, part in enumerate(parts):
        calls[f"{i} forward"] = _forward(part, precision, work)
        if work == "training":
            calls[f"{i} backward"] = _backward(part, precision)
    for call in calls.values():
        call()
    seconds = {key: Spread.of(values).median / len(images) for key, values in interleave(calls, plan).items()}
    merged: dict[tuple[str, str], tuple[float, float]] = {}
    for i, part in enumerate(parts):
        forward, backward = merged.get((part.section, part.part), (0.0, 0.0))
        forward += seconds[f"{i} forward"] * part.count
        backward += seconds.get(f"{i} backward", 0.0) * part.count
        merged[part.section, part.part] = forward, backward
    total = sum(sum(times) for (_, part_name), times in merged.items() if not part_name)
    return [
        StageRow(section, part_name, forward, backward, (forward + backward) / total, *_predicted(limits, section, part_name))
        for (section, part_name), (forward, backward) in merged.items()
    ]


def find_parts(network: SwinTransformer, images: Tensor, precision: Precision) -> list[Part]:
    """Runs the network once and returns its sections and their parts with the inputs that they got."""
    modules: list[tuple[str, str, nn.Module, int]] = [(EMBED, "", network.embed, 1)]
    for i, stage in enumerate(network.stages):
        blocks = list(stage.blocks)  # type: ignore[arg-type]
        modules.append((stage_name(i), "", stage, 1))
        if i > 0:
            modules.append((stage_name(i), MERGING, stage.merge, 1))  # type: ignore[arg-type]
        # Blocks with regular and with shifted windows alternate.
        kinds = [(block, len(blocks[j::2])) for j, block in enumerate(blocks[:2])]
        modules += [(stage_name(i), mixer_part(network.config), block.attn, count) for block, count in kinds]
        modules += [(stage_name(i), MLP, block.mlp, count) for block, count in kinds]
    modules.append((HEAD, "", network.norm, 1))
    inputs: dict[nn.Module, Tensor] = {}
    hooks = [module.register_forward_pre_hook(_keep(inputs)) for _, _, module, _ in modules]
    with torch.no_grad(), autocast(images, precision):
        network(images)
    for hook in hooks:
        hook.remove()
    found = []
    for section, part, module, count in modules:
        if module in inputs:  # A block may compute attention and MLP without calling these modules.
            function: Function = _head(network) if section == HEAD else module
            parameters = [*module.parameters(), *(network.head.parameters() if section == HEAD else ())]
            found.append(Part(section, part, function, parameters, inputs[module], count))
    return found


def _keep(inputs: dict[nn.Module, Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        inputs[module] = arguments[0].detach().clone()

    return hook


def _head(network: SwinTransformer) -> Function:
    return lambda x_BHWC: network.head(network.norm(x_BHWC).mean(dim=(1, 2)))


def _forward(part: Part, precision: Precision, work: Work) -> Callable[[], object]:
    x = part.x.clone().requires_grad_(part.section != EMBED)

    def inference() -> Tensor:
        with torch.inference_mode(), autocast(part.x, precision):
            return part.function(part.x)

    def training() -> Tensor:
        with autocast(x, precision):
            return part.function(x)

    return inference if work == "inference" else training


def _backward(part: Part, precision: Precision) -> Callable[[], object]:
    """Returns a function that runs the backward pass of one forward pass again and again."""
    x = part.x.clone().requires_grad_(part.section != EMBED)
    with autocast(x, precision):
        out = part.function(x)
    gradient = torch.randn_like(out)
    wanted = [*([x] if x.requires_grad else []), *part.parameters]
    return lambda: torch.autograd.grad(out, wanted, gradient, retain_graph=True, allow_unused=True)


def _predicted(limits: list[Limit], section: str, part: str) -> tuple[float, float]:
    """Returns the least time of a part, or of a whole section if the part is empty."""
    chosen = [limit for limit in limits if limit.section == section and part in ("", limit.part)]
    return sum(limit.forward for limit in chosen), sum(limit.backward for limit in chosen)
