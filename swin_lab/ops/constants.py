"""Keeps tensors that depend on no weight and no image: indices and masks of the geometry.

Computing them in every forward pass costs 1 to 6 % of it on a CPU (swin_tiny at batch 1 to 8), and many small kernels on a GPU.
Buffers cannot replace the cache: they depend on the size of the map, which is known at forward time only.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import wraps
from threading import Lock
from typing import TypeVarTuple

import torch
from torch import Tensor, nn

from swin_lab.ops.derivatives import torch_func_is_active

Arguments = TypeVarTuple("Arguments")

MAX_BYTES = 128 * 2**20
"""What all kept constants take at most. One forward pass of Swin-L on 800x1333 pixels needs 55 MB."""


class Constants:
    """Keeps the constants that were used last, up to a number of bytes.

    Args:
        max_bytes: what they take at most, on all devices together. A constant larger than that is not kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._kept: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._lock = Lock()

    def find(self, key: Hashable) -> Tensor | None:
        """Returns the constant of that key if it is kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def keep(self, key: Hashable, constant: Tensor) -> None:
        """Keeps a constant, and drops those used longest ago until all fit."""
        with self._lock:
            if key in self._kept or constant.nbytes > self.max_bytes:
                return
            self._kept[key] = constant
            self.used_bytes += constant.nbytes
            while self.used_bytes > self.max_bytes:
                self.used_bytes -= self._kept.popitem(last=False)[1].nbytes


CONSTANTS = Constants(MAX_BYTES)
"""The constants of this process. Compiled graphs hold those that they use in addition."""


def constant(make: Callable[[*Arguments], Tensor]) -> Callable[[*Arguments], Tensor]:
    """Decorates a function of sizes and a device, whose tensor is kept in `CONSTANTS`.

    torch.compile calls the function while it traces, and its graph contains the finished tensor. Where operations are recorded
    in other ways (fake tensors, `torch.export`, `torch.jit.trace`, transforms of `torch.func`), the function is called each
    time, computes on the given device, and nothing is kept. Nothing is computed inside inference mode, whose tensors autograd
    refuses later.
    """

    def fetch(*arguments: *Arguments) -> Tensor:
        found = CONSTANTS.find((make, *arguments))
        if found is None:
            with torch.inference_mode(False):
                # A compiler takes sizes of parameters for constants, and may take sizes of other tensors for symbolic.
                found = nn.Parameter(make(*arguments), requires_grad=False)
            CONSTANTS.keep((make, *arguments), found)
        return found

    def fetch_for_compiler(*arguments: *Arguments) -> tuple[Tensor]:
        # A tuple, because a compiler gives tensors that one function returns the same name, and tuples different ones.
        found = fetch(*arguments)
        return (found.data if torch.compiler.is_exporting() else found,)

    # torch.compiler.assume_constant_result does the same, but its call imports the compiler, which takes a second.
    fetch_for_compiler._dynamo_marked_constant = True  # type: ignore[attr-defined]

    @wraps(make)
    def kept(*arguments: *Arguments) -> Tensor:
        if torch.compiler.is_dynamo_compiling() and not torch_func_is_active():
            return fetch_for_compiler(*arguments)[0]
        return make(*arguments) if _operations_are_recorded(*arguments) else fetch(*arguments)

    return kept


def _operations_are_recorded(*arguments: object) -> bool:
    """Returns whether a new tensor would be a part of something that is traced, and not an ordinary tensor."""
    if torch.jit.is_tracing():  # type: ignore[attr-defined]
        return True
    if torch.compiler.is_exporting() or torch_func_is_active():
        return True
    devices = [argument for argument in arguments if isinstance(argument, torch.device)]
    return type(torch.empty(0, device=devices[0])) is not Tensor
