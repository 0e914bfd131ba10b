"""Updates whose loss or gradient is NaN or infinite: found on the device, judged by all processes together, never applied.

Two things must go together: no step waits for the device, and a bad update leaves weights and optimizer as they were. A fused
optimizer of torch takes a flag on the device (`found_inf`, made for GradScaler) with which it changes nothing. Under `raise`
the flag stays up, so that the host can read the verdict of an update after the next one is queued. With any
other optimizer, under 16-mixed (GradScaler reads a flag anyway) and under `skip`, the host reads the verdict before the step.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning import Trainer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from swin_lab.errors import UserError
from swin_lab.training.task import Batch
from swin_lab.validation import PositiveInt, check_fields

SMALLEST_SCALE = 1.0
"""Scale of GradScaler down to which an overflow under 16-mixed is normal: without any scaling, float16 has overflowed."""


@dataclass(frozen=True, kw_only=True)
class NonFiniteConfig:
    """Contains what happens at an update whose loss or gradient norm is NaN or infinite."""

    policy: Literal["raise", "skip"] = "raise"
    """`raise` ends the run; `skip` leaves the update out, which still counts in the schedule."""
    limit: PositiveInt = 10
    """Number of updates of a run that may be skipped."""

    def __post_init__(self) -> None:
        check_fields(self, "nonfinite.")


@dataclass(frozen=True, kw_only=True)
class Found:
    """Describes an update whose loss or gradient norm is NaN or infinite."""

    update: int
    """Its number, counted from 1."""
    epoch: int
    """Counted from 1."""
    loss: bool
    """Whether the loss of any process is NaN or infinite; if not, only the gradient norm is."""
    own: bool
    """Whether the batches of this process may be the reason: their loss is bad, or no loss of any process is."""
    batches: Sequence[tuple[Batch, int]]
    """The batches of this process, as its task got them, with their seeds."""
    scale: float
    """The factor of the loss in the backward pass; 1 but under 16-mixed."""

    def __str__(self) -> str:
        what = "training loss is NaN or infinite" if self.loss else "gradient norm is NaN or infinite and the loss is finite"
        return f"the {what} at update {self.update:,} (epoch {self.epoch})"


class NonFiniteError(UserError):
    """Ends a run at such an update.

    Args:
        found: the update.
        skipped: number of updates that were skipped before it.
    """

    ADVICE = "lower optimizer.lr, lengthen schedule.warmup_epochs, or set precision=32-true"

    def __init__(self, found: Found, skipped: int) -> None:
        super().__init__(f"{found}; {self.ADVICE}")
        self.found = found
        self.skipped = skipped


@dataclass(frozen=True)
class _Update:
    number: int
    epoch: int
    batches: list[tuple[Batch, int]]
    buffers: list[Tensor]
    """The network's buffers before the update, such as the statistics of batch normalisation."""
    verdict: Tensor
    """(3,) on the host: a loss of any process, the gradient norm, and a loss of this process: 1 if it is bad."""
    arrived: torch.cuda.Event | None
    """Event after which `verdict` is there. If None, it is there."""

    def read(self) -> tuple[bool, bool, bool]:
        if self.arrived is not None:
            self.arrived.synchronize()
        loss, gradient, own = self.verdict.numpy() > 0
        return bool(loss), bool(gradient), bool(own)


class NonFiniteGuard:
    """Judges every update of a training before it is applied.

    Args:
        config: what happens at a bad update.
    """

    def __init__(self, config: NonFiniteConfig) -> None:
        self.config = config
        self.skipped = 0
        """Number of updates that were skipped so far."""
        self.found: Found | None = None
        """The last update, if it was skipped."""
        self._batches: list[tuple[Batch, int]] = []
        self._loss_is_bad: Tensor | None = None
        self._own_buffers: list[Tensor] = []
        self._buffers: list[Tensor] = []
        self._pending: deque[_Update] = deque()
        self._frozen: Tensor | None = None

    def start(self, network: nn.Module) -> None:
        """Begins a training of a network."""
        persistent = network.state_dict(keep_vars=True).keys()
        self._own_buffers = [buffer for name, buffer in network.named_buffers() if name in persistent]
        self._pending.clear()
        self._batches, self._loss_is_bad, self._frozen, self.found = [], None, None, None

    def take(self, batch: Batch, seed: int, accumulate: int) -> None:
        """Copies a batch before the task gets it, which may write to it.

        With accumulation, the copies of an update's batches are in the memory of the host.
        """
        if not self._batches:
            self._buffers = [buffer.clone() for buffer in self._own_buffers]
        copies = [x.detach().to("cpu" if accumulate > 1 else x.device, non_blocking=True, copy=True) for x in batch]
        self._batches.append((tuple(copies), seed))

    def take_loss(self, loss: Tensor) -> Tensor:
        """Takes note of whether the loss of a batch is bad; returns that, a boolean on the device."""
        bad = ~torch.isfinite(loss.detach())
        self._loss_is_bad = bad if self._loss_is_bad is None else self._loss_is_bad | bad
        return bad

    def judge(self, trainer: Trainer, norm: Tensor) -> None:
        """Decides about an update, after its backward passes and before the step of the optimizer, for all processes.

        Args:
            trainer: the Trainer.
            norm: norm of the gradient of all processes, not sharded.

        Raises:
            NonFiniteError: it is bad, or one before it was, and may not be skipped.
        """
        assert self._loss_is_bad is not None
        own = self._loss_is_bad.to(torch.float32)
        verdict = torch.stack([own, (~torch.isfinite(norm)).to(own)])
        if trainer.world_size > 1:
            torch.distributed.all_reduce(verdict, op=torch.distributed.ReduceOp.MAX)
        host, arrived = _to_host(torch.cat([verdict, own[None]]))
        number, epoch = trainer.global_step + 1, trainer.current_epoch + 1
        update = _Update(number, epoch, self._batches, self._buffers, host, arrived)
        self._batches, self._loss_is_bad, self.found = [], None, None
        optimizer: Any = trainer.optimizers[0]
        if self.config.policy == "raise" and takes_a_flag(optimizer):
            flag = verdict.amax()
            self._frozen = flag if self._frozen is None else torch.maximum(self._frozen, flag)
            optimizer.found_inf = self._frozen
            self._pending.append(update)
            if len(self._pending) > 1:
                self._act(trainer, self._pending.popleft())
        else:
            self._act(trainer, update)

    def settle(self, trainer: Trainer) -> None:
        """Waits for the verdicts of all updates so far: before a checkpoint, an evaluation and the end of an epoch.

        Raises:
            NonFiniteError: one is bad.
        """
        while self._pending:
            self._act(trainer, self._pending.popleft())

    def _act(self, trainer: Trainer, update: _Update) -> None:
        loss, gradient, own = update.read()
        if not loss and not gradient:
            return
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        scale = 1.0 if scaler is None else float(scaler.get_scale())
        if not loss and scale > SMALLEST_SCALE:  # GradScaler skips the update and lowers its scale.
            return
        for buffer, before in zip(self._own_buffers, update.buffers, strict=True):
            buffer.copy_(before)
        self.found = Found(
            update=update.number, epoch=update.epoch, loss=loss, own=own or not loss, batches=update.batches, scale=scale
        )
        if self.config.policy == "raise" or self.skipped >= self.config.limit:
            raise NonFiniteError(self.found, self.skipped)
        self.skipped += 1
        trainer.optimizers[0].zero_grad(set_to_none=True)  # An optimizer leaves parameters without a gradient alone.


def takes_a_flag(optimizer: Any) -> bool:
    """Returns whether the step of an optimizer changes nothing where a tensor on the device, `found_inf`, is 1."""
    sharded = any(isinstance(parameter, DTensor) for group in optimizer.param_groups for parameter in group["params"])
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False)) and not sharded


def _to_host(tensor: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Copies a tensor to the host; from a CUDA device without waiting, with an event after which it is there."""
    if tensor.device.type != "cuda":
        return tensor.cpu(), None
    host, arrived = tensor.to("cpu", non_blocking=True), torch.cuda.Event()
    arrived.record()
    return host, arrived
