"""Compilation of a run's networks by torch.compile: the whole network, or its repeated blocks."""

import os
import shutil
from collections.abc import Callable

import torch
from torch import nn

from swin_lab.errors import UserError
from swin_lab.models.swin import SwinBlock
from swin_lab.run.settings import CompileChoice, CompileMode

MAX_GRAPHS = 64
"""Graphs that torch keeps of one function; of more, it would compute the others without compilation.

The blocks of Swin-B need 8 in training, as many in evaluation and for a last, smaller batch, and one each if drop path skips
images; torch's own limit is 8.
"""
COMPILERS = ("g++", "clang++", "gcc", "clang", "cc")


def compiler(
    choice: CompileChoice, mode: CompileMode, device: str | None = None, *, freeze: bool = False
) -> Callable[[nn.Module], None] | None:
    """Returns a function that has a network compiled in place, when it is first used; its state-dict keys do not change.

    Args:
        choice: False for none; True for the whole network, as one graph per image size; "blocks" for each block of a Swin
            Transformer by itself: equal blocks share a graph, so that the first step comes sooner.
        mode: that of torch.compile.
        device: type of the run's device, such as "cuda". If None, it is not known yet, and modes are not checked for it.
        freeze: whether weights become constants, for an evaluation on a CPU: they are converted to the precision of the run and
            packed for its matrix products once. It has no effect in another mode than default.

    Raises:
        UserError: there is no C or C++ compiler, or the mode has no effect.
    """
    if choice is False:
        if mode != "default":
            raise UserError(f"compile_mode={mode} has no effect without compilation; add compile=true")
        return None
    if mode == "reduce-overhead" and device not in (None, "cuda"):
        raise UserError(
            f"compile_mode={mode} has no effect on the device {device}: it asks for CUDA graphs\n"
            "Choose compile_mode=default, or a GPU: trainer.accelerator=gpu"
        )
    if not any(map(shutil.which, (os.environ.get("CXX", ""), *COMPILERS))):
        raise UserError(f"compile={_shown(choice)} needs a C++ compiler; install g++, or set compile=false")

    def compile_network(network: nn.Module) -> None:
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MAX_GRAPHS)
        for part in [network] if choice is True else repeated_blocks(network):
            part.compile(options={"freezing": True}) if freeze and mode == "default" else part.compile(mode=mode)

    return compile_network


def repeated_blocks(network: nn.Module) -> list[SwinBlock]:
    """Returns the blocks of a network that are compiled one by one.

    Raises:
        UserError: it has none, as networks of other libraries.
    """
    blocks = [module for module in network.modules() if isinstance(module, SwinBlock)]
    if not blocks:
        raise UserError(f"compile=blocks is for a SwinTransformer; for a {type(network).__name__}, set compile=true")
    return blocks


def _shown(choice: CompileChoice) -> str:
    return str(choice).lower()
