"""Prints in which operators of torch a step spends its time on one CPU thread, in ms per image, by library.

    python benchmarks/operator_profile.py [MODEL] [--batch 4]

Times are those of the operators themselves ("self CPU time"), without the operators that they call, so that they add up.
"""

import argparse
from collections import Counter

import torch
from torch.profiler import ProfilerActivity, profile

from swin_lab.bench.peers import LeftOutError, PeerChoice, build_peer
from swin_lab.bench.steps import Inference, Precision, TrainingStep
from swin_lab.models import SwinTransformer, create_model

GROUPS = {
    "matrix products": ("mm", "mkldnn", "linear_pointwise", "convolution"),
    "attention kernel": ("scaled_dot_product", "flash_attention"),
    "GELU": ("gelu",),
    "norms": ("norm",),
    "softmax": ("softmax",),
    "gathers, rolls": ("index", "roll"),
    "optimizer, EMA": ("adamw", "foreach", "lerp"),
    "copies, casts": ("copy_", "cat", "constant_pad"),
}
"""Group -> parts of the names of its operators; the first group that fits counts."""
STEPS = 3
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
LIBRARIES = ("timm", "torchvision", "transformers")


def main() -> None:
    """Profiles ours and every installed peer in inference and training, fp32 and bf16."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "model", nargs="?", default="swin_tiny_patch4_window7_224", help="a variant; the default is %(default)s"
    )
    parser.add_argument("--batch", type=int, default=4, help="images of a step; the default is %(default)s")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    ours = create_model(arguments.model, drop_path_rate=0.0)
    for training in (False, True):
        for precision in PRECISIONS:
            libraries = {name: measure(name, ours, precision, training, arguments.batch) for name in ("swin_lab", *LIBRARIES)}
            found = {name: times for name, times in libraries.items() if times is not None}
            print(f"\n{arguments.model}, {'training' if training else 'inference'}, {precision}: ms per image\n")
            print(f"| | {' | '.join(found)} |\n|---{'|---:' * len(found)}|")
            for group in (*GROUPS, "other"):
                print(f"| {group} | {' | '.join(f'{times[group]:.1f}' for times in found.values())} |")
            print(f"| all | {' | '.join(f'{times.total():.1f}' for times in found.values())} |")


def measure(name: str, ours: SwinTransformer, precision: Precision, training: bool, batch: int) -> Counter[str] | None:
    """Returns the milliseconds per image of every group, or None if the library has no such network."""
    network: torch.nn.Module
    if name == "swin_lab":
        network = SwinTransformer(ours.config)
    else:
        try:
            network, _ = build_peer(name, ours, PeerChoice((name,)))
        except LeftOutError:
            return None
    images = torch.randn(batch, ours.in_channels, *ours.img_size)
    labels = torch.zeros(batch, dtype=torch.long)
    step = TrainingStep(network, images, labels, precision) if training else Inference(network, images, precision)
    step()
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        for _ in range(STEPS):
            step()
    times: Counter[str] = Counter()
    for event in recorded.key_averages():
        times[group_of(event.key)] += event.self_cpu_time_total / 1000 / STEPS / batch
    return times


def group_of(operator: str) -> str:
    """Returns the group of an operator of torch, such as aten::addmm."""
    name = operator.lower()
    return next((group for group, parts in GROUPS.items() if any(part in name for part in parts)), "other")


if __name__ == "__main__":
    main()
