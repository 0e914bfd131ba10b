"""The work that is measured: an inference, and a full training step, the same for the networks of all libraries."""

from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swin_lab.models import packed_weights
from swin_lab.training.ema import EmaConfig, EmaModel
from swin_lab.training.optim import parameter_groups
from swin_lab.weights.reference_models import logits_of

Network = TypeVar("Network", bound=nn.Module)

Precision = Literal["fp32", "bf16", "fp16", "bf16-true"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16", "bf16-true")

COMPUTED_IN = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "bf16-true": torch.bfloat16}
"""Precision -> dtype of the matrix products."""
PRECISION_TEXT = {
    "fp32": "fp32",
    "bf16": "bf16 autocast, fp32 weights",
    "fp16": "fp16 autocast, fp32 weights",
    "bf16-true": "bf16, weights too",
}

Work = Literal["inference", "training"]
WORKS: tuple[Work, ...] = ("inference", "training")

LEARNING_RATE, WEIGHT_DECAY, MAX_GRAD_NORM, LABEL_SMOOTHING, EMA_DECAY = 1e-4, 0.05, 5.0, 0.1, 0.9999
TRAINING_STEP = (
    "forward, cross entropy with label smoothing, backward, gradient clipping, AdamW (fused), EMA of the weights; drop path"
)


class Inference:
    """Computes logits without gradients.

    Args:
        network: maps images to logits; it is put into evaluation mode.
        images: (B, 3, H, W) of fp32.
        precision: one of `PRECISIONS`.
        packed: whether the weights are packed once, as in an evaluation of eval.py.
    """

    def __init__(self, network: nn.Module, images: Tensor, precision: Precision, *, packed: bool = False) -> None:
        self.network = cast(network, precision).eval()
        self._packed = ExitStack()
        if packed:
            self._packed.enter_context(packed_weights(self.network))
        self.images = images.to(next(network.parameters()).dtype)
        self.precision = precision

    @property
    def held_bytes(self) -> int:
        """Returns the bytes of the weights."""
        return _bytes([*self.network.parameters(), *self.network.buffers()])

    def __call__(self) -> Tensor:
        with torch.inference_mode(), autocast(self.images, self.precision):
            return logits_of(self.network, self.images)


class TrainingStep:
    """Makes one update: forward, loss, backward, gradient clipping, AdamW, EMA.

    Args:
        network: maps images to logits; it is put into training mode.
        images: (B, 3, H, W) of fp32.
        labels: (B,) class indices.
        precision: one of `PRECISIONS`; fp16 scales the loss.
    """

    def __init__(self, network: nn.Module, images: Tensor, labels: Tensor, precision: Precision) -> None:
        self.network = cast(network, precision).train()
        self.images = images.to(next(network.parameters()).dtype)
        self.labels = labels
        self.precision = precision
        groups = [{key: group[key] for key in ("params", "weight_decay")} for group in parameter_groups(network, WEIGHT_DECAY)]
        self.optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, fused=True)
        self.ema = EmaModel(EmaConfig(decay=EMA_DECAY), network)
        self.scaler = torch.amp.GradScaler(images.device.type, enabled=precision == "fp16")

    @property
    def held_bytes(self) -> int:
        """Returns the bytes of weights, optimizer state and EMA, which stay between two steps."""
        state = [value for entry in self.optimizer.state.values() for value in entry.values() if isinstance(value, Tensor)]
        networks = (self.network, self.ema.network)
        return _bytes([*(t for network in networks for t in (*network.parameters(), *network.buffers())), *state])

    def __call__(self) -> Tensor:
        with autocast(self.images, self.precision):
            logits = logits_of(self.network, self.images)
            loss = F.cross_entropy(logits.float(), self.labels, label_smoothing=LABEL_SMOOTHING)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), MAX_GRAD_NORM)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)  # Gradients of one network must not count as memory of the next.
        self.ema.update(self.network)
        return loss.detach()


def cast(network: Network, precision: Precision) -> Network:
    """Returns the network, with its weights cast if the precision asks for it."""
    return network.to(torch.bfloat16) if precision == "bf16-true" else network


def autocast(images: Tensor, precision: Precision) -> AbstractContextManager[object]:
    """Returns the context in which a network computes in this precision."""
    mixed = precision in ("bf16", "fp16")
    return torch.autocast(images.device.type, COMPUTED_IN[precision]) if mixed else nullcontext()


def _bytes(tensors: list[Tensor]) -> int:
    """Returns the bytes of tensors, of which those that share their memory count once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())
