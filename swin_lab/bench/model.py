"""Compares the speed of our network with the same network of other libraries, in one process."""

import gc
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from swin_lab.bench.cost import flops, matrix_products, mixer_part
from swin_lab.bench.device import measure_rates, peak_bytes
from swin_lab.bench.peers import LeftOutError, PeerChoice, build_peer
from swin_lab.bench.products import ProductsAlone
from swin_lab.bench.roofline import Rates, images_per_second, roofline
from swin_lab.bench.stages import StageRow, stage_rows
from swin_lab.bench.steps import COMPUTED_IN, Inference, Precision, TrainingStep, Work
from swin_lab.bench.timing import Plan, Spread, interleave, ratio
from swin_lab.errors import UserError
from swin_lab.models import SwinConfig, SwinTransformer
from swin_lab.weights.reference_models import logits_of

OURS = "swin_lab"
PRODUCTS = "matrix products alone"
Mode = Literal["eager", "compiled"]
EAGER: Mode = "eager"
COMPILED: Mode = "compiled"
COMPILED_AGAINST_EAGER = "ours compiled, peers eager"
PACKED = f"{OURS} packed"
"""Our network with the weights packed once, as eval.py does in bfloat16 on a CPU; other libraries have nothing like it."""
PACKED_AGAINST_EAGER = "ours packed, peers eager"

Step = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Contains what is compared, and how it is measured."""

    batch: int
    device: Literal["cpu", "cuda"]
    works: tuple[Work, ...]
    precisions: tuple[Precision, ...]
    modes: tuple[Mode, ...]
    backends: tuple[str, ...]
    """Attention backends of our network; the first one is compared with the peers."""
    peers: PeerChoice
    plan: Plan


@dataclass(frozen=True)
class Network:
    """A network of a library, with our weights."""

    name: str
    library: str
    """The library with its version, or the attention backend of ours."""
    module: nn.Module
    parameters: int
    difference: float
    """Largest absolute difference of its logits from those of our network, in fp32, on one image."""


@dataclass(frozen=True)
class Networks:
    """The networks of one variant."""

    config: SwinConfig
    found: list[Network]
    left_out: dict[str, str]
    """Peer -> why it does not take part."""


@dataclass(frozen=True)
class Row:
    """The result of one alternative."""

    name: str
    library: str
    mode: Mode
    seconds: list[float]
    """Seconds of one step, one entry per round."""
    speed: Spread
    """Images per second."""
    ours_over_this: float
    """How many times faster ours is in the same mode: the median of the ratios within rounds."""
    share_of_products: float
    """Images per second, as a share of those of the network's matrix products alone."""
    share_of_roofline: float
    peak_bytes: int
    """Memory that a step allocates at its highest, with weights, optimizer state and EMA."""


@dataclass(frozen=True)
class Table:
    """The results of one variant, kind of work and precision."""

    model: str
    work: Work
    precision: Precision
    img_size: tuple[int, int]
    batch: int
    parameters: int
    gflops_per_image: float
    """Floating-point operations of the matrix products of a step, 10^9 per image."""
    products: Spread
    """Images per second of the matrix products alone."""
    roofline: float
    """Images per second of a network that reaches the roofline."""
    rates: Rates
    rows: list[Row]
    best_peer: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Mode -> the fastest peer in that mode, and how many times faster ours is; also ours compiled, and with packed weights,
    against peers that are not."""
    failed: dict[str, str] = field(default_factory=dict)
    """Peer and mode -> its error."""

    def as_dict(self) -> dict[str, Any]:
        """Returns plain Python."""
        return asdict(self)


def build_networks(config: SwinConfig, settings: Settings) -> Networks:
    """Builds our network and the peers with the same weights, and compares parameters and logits.

    Raises:
        UserError: our own network cannot be built.
    """
    torch.manual_seed(0)
    ours = SwinTransformer(replace(config, attention_backend=settings.backends[0]))
    _fill_zero_norms(ours)
    image = torch.randn(1, config.in_channels, *config.image_size).to(settings.device)  # Triton kernels need a GPU.
    expected = _logits(ours, image)
    own = mixer_part(config) if config.token_mixer == "mlp" else f"attention {settings.backends[0]}"
    found = [_compared(OURS, own, ours, image, expected)]
    for backend in settings.backends[1:]:
        other = SwinTransformer(replace(config, attention_backend=backend))
        other.load_state_dict(ours.state_dict())
        found.append(_compared(f"{OURS} {backend}", f"attention {backend}", other, image, expected))
    left_out: dict[str, str] = {}
    for name in settings.peers.names:
        try:
            module, library = build_peer(name, ours, settings.peers)
            found.append(_compared(name, library, module, image, expected))
        except LeftOutError as reason:
            left_out[name] = str(reason)
        except Exception as error:  # A library of any version may raise anything; its error is a result.
            left_out[name] = f"fails: {_first_line(error)}"
    return Networks(config, found, left_out)


def compare(model: str, networks: Networks, work: Work, precision: Precision, settings: Settings) -> Table:
    """Measures one kind of work in one precision: all networks, and the matrix products alone, round by round.

    Raises:
        UserError: our own network does not fit into the memory.
    """
    config, training = networks.config, work == "training"
    products = matrix_products(config, settings.batch)
    dtype = COMPUTED_IN[precision]
    rates = measure_rates(settings.device, dtype, settings.plan.clock)
    limit = images_per_second(roofline(config, rates, training=training, element_bytes=dtype.itemsize))
    torch._dynamo.reset()  # Each configuration has the whole limit of recompilations, beyond which torch would run eagerly.
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        steps, failed = _prepare(networks, work, precision, settings)
        alone = ProductsAlone(products, training=training, device=settings.device, dtype=dtype)
        measured = interleave({key: step for key, (_, _, step) in steps.items()} | {PRODUCTS: alone}, settings.plan)
        memory = {key: step.held_bytes + peak_bytes(step, settings.device) for key, (_, _, step) in steps.items()}
    alone_speed = Spread.of(measured[PRODUCTS]).per_second(settings.batch)
    rows = []
    for key, (network, mode, _) in steps.items():
        speed = Spread.of(measured[key]).per_second(settings.batch)
        own = measured[f"{OURS}, {mode}"]
        rows.append(
            Row(
                network.name,
                network.library,
                mode,
                measured[key],
                speed,
                ratio(own, measured[key]),
                ratio(measured[key], measured[PRODUCTS]),
                speed.median / limit,
                memory[key],
            )
        )
    table = Table(
        model,
        work,
        precision,
        config.image_size,
        settings.batch,
        networks.found[0].parameters,
        flops(products, training) / settings.batch / 1e9,
        alone_speed,
        limit,
        rates,
        rows,
        best_peers(rows),
        failed,
    )
    del steps, alone
    _free(settings.device)
    return table


def measure_stages(networks: Networks, table: Table, settings: Settings) -> list[StageRow]:
    """Measures every stage of our network in the work and precision of a table."""
    network = deepcopy(networks.found[0].module).to(settings.device)
    assert isinstance(network, SwinTransformer)
    element_bytes = COMPUTED_IN[table.precision].itemsize
    limits = roofline(networks.config, table.rates, training=table.work == "training", element_bytes=element_bytes)
    images, _ = _random_batch(networks.config, settings)
    return stage_rows(network, images, work=table.work, precision=table.precision, plan=settings.plan, limits=limits)


def best_peers(rows: Sequence[Row]) -> dict[str, tuple[str, float]]:
    """Returns for every mode the fastest peer, and how many times faster ours is, see `Table.best_peer`."""
    found: dict[str, tuple[str, float]] = {}
    for mode in dict.fromkeys(row.mode for row in rows):
        peers = [row for row in rows if row.mode == mode and not row.name.startswith(OURS)]
        if peers:
            best = min(peers, key=lambda row: row.ours_over_this)
            found[mode] = (best.name, best.ours_over_this)
    for label, name, mode in ((COMPILED_AGAINST_EAGER, OURS, COMPILED), (PACKED_AGAINST_EAGER, PACKED, EAGER)):
        ours = next((row for row in rows if (row.name, row.mode) == (name, mode)), None)
        if ours is not None and EAGER in found:
            eager = [row for row in rows if row.mode == EAGER and not row.name.startswith(OURS)]
            factors = {row.name: ratio(ours.seconds, row.seconds) for row in eager}
            nearest = min(factors, key=lambda peer: factors[peer])
            found[label] = (nearest, factors[nearest])
    return found


def _prepare(
    networks: Networks, work: Work, precision: Precision, settings: Settings
) -> tuple[dict[str, tuple[Network, Mode, Inference | TrainingStep]], dict[str, str]]:
    """Builds the steps of all networks and runs each once; returns them, and the errors of peers that fail."""
    images, labels = _random_batch(networks.config, settings)
    steps: dict[str, tuple[Network, Mode, Inference | TrainingStep]] = {}
    failed: dict[str, str] = {}
    packs = work == "inference" and COMPUTED_IN[precision] == torch.bfloat16 and settings.device == "cpu"
    packed = [replace(networks.found[0], name=PACKED)] if packs and EAGER in settings.modes else []
    for network in [*networks.found, *packed]:
        for mode in settings.modes if network.name != PACKED else [EAGER]:
            key = f"{network.name}, {mode}"
            module = deepcopy(network.module).to(settings.device)
            try:
                step: Inference | TrainingStep
                if work == "inference":
                    step = Inference(module, images, precision, packed=network.name == PACKED)
                else:
                    step = TrainingStep(module, images, labels, precision)
                if mode == COMPILED:
                    module.compile()  # after the copy for the EMA
                step()
            except torch.OutOfMemoryError as error:
                if network.name == OURS:
                    raise UserError(f"{work} of {settings.batch} images does not fit into the memory; lower --batch") from error
                failed[key] = "out of memory"
            except Exception as error:  # A library of any version may raise anything; its error is a result.
                if network.name.startswith(OURS):
                    raise
                failed[key] = _first_line(error)
            else:
                steps[key] = (network, mode, step)
    return steps, failed


def _random_batch(config: SwinConfig, settings: Settings) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(settings.batch, config.in_channels, *config.image_size, generator=generator)
    labels = torch.randint(config.num_classes, (settings.batch,), generator=generator)
    return images.to(settings.device), labels.to(settings.device)


def _compared(name: str, library: str, module: nn.Module, image: Tensor, expected: Tensor) -> Network:
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return Network(name, library, module, parameters, float((_logits(module, image) - expected).abs().max()))


def _logits(module: nn.Module, image: Tensor) -> Tensor:
    """Returns logits on the CPU, computed on the device of the image; the module is on the CPU before and after it."""
    with torch.no_grad():
        logits = logits_of(module.to(image.device).eval(), image).cpu()
    module.cpu()
    return logits


def _fill_zero_norms(model: SwinTransformer) -> None:
    """Sets the norms of V2, which a new network multiplies by 0, to 1: products with zeros take less power and time."""
    for module in model.modules():
        if isinstance(module, nn.LayerNorm) and not module.weight.any():
            nn.init.ones_(module.weight)


def _free(device: str) -> None:
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
