"""Replay of an update whose loss or gradient was NaN or infinite, from the dump of its run: where does it begin?"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor, nn

from swin_lab.errors import UserError
from swin_lab.run.components import build_task
from swin_lab.run.directory import start_console
from swin_lab.run.dump import DumpedBatch, read_dump
from swin_lab.run.restore import TRUST, restore
from swin_lab.run.settings import RestoreConfig
from swin_lab.run.stored import restored_node
from swin_lab.run.targets import TARGET
from swin_lab.run.teacher import with_teacher
from swin_lab.run.trainer import build_trainer, choose_precision
from swin_lab.tasks import Distillation
from swin_lab.training import DataDescription, Task
from swin_lab.weights import Contents
from swin_lab.weights.values import why_unusable

Lines = list[tuple[str, str]]


@dataclass
class Trace:
    """Takes note of the first module whose output is NaN or infinite, and of the first such gradient of an output."""

    output: str | None = None
    gradient: str | None = None
    images: Tensor | None = None
    """(B,): whether the output of the whole network is finite for each image. If None, it is not one row per image."""
    _names: dict[nn.Module, str] = field(default_factory=dict)
    _network: nn.Module | None = None

    @contextmanager
    def of(self, network: nn.Module) -> Iterator[None]:
        """Follows a forward and a backward pass of a network."""
        self._network = network
        self._names = {module: name or "the network" for name, module in network.named_modules()}
        handles = [module.register_forward_hook(self._after) for module in self._names]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _after(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        name = f"{self._names[module]} ({type(module).__name__})"
        for tensor in output if isinstance(output, tuple | list) else [output]:
            if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
                continue
            if self.output is None and not bool(tensor.isfinite().all()):
                given = [x for x in inputs if isinstance(x, Tensor) and x.is_floating_point()]
                of_inputs = "" if all(bool(x.isfinite().all()) for x in given) else ", whose input is already"
                self.output = name + of_inputs
            if tensor.requires_grad:
                tensor.register_hook(lambda gradient: self._after_gradient(name, gradient))
            if module is self._network and tensor.ndim > 1:
                self.images = tensor.detach().flatten(1).isfinite().all(1)

    def _after_gradient(self, name: str, gradient: Tensor) -> None:
        if self.gradient is None and not bool(gradient.isfinite().all()):
            self.gradient = name


def replay(given: str, *, precision: str | None, device: str, trust: bool) -> tuple[list[Lines], list[list[str]]]:
    """Computes the update of a dump again.

    Args:
        given: the dump.
        precision: the precision. If None, that of the run.
        device: auto, cpu or gpu.
        trust: whether the dump may ask for more than `swin_lab.run.allowed` lists.

    Returns:
        Groups of labelled texts, and rows of the images that are not finite: process, image, pixels, output.

    Raises:
        UserError: there is no such file, it is no dump or damaged, or the device cannot compute in the precision.
    """
    start_console(quiet=False)
    contents, facts, batches = read_dump(given)
    chosen = choose_precision(precision or facts.precision, device)
    what = "loss" if facts.loss else "gradient norm, of a finite loss"
    lines = [("update", f"{facts.update:,} (epoch {facts.epoch}), {facts.precision}, processes: {facts.processes}")]
    lines.append(("recorded", f"NaN or infinite {what}"))
    tensors = contents.network_tensors()
    bad = [f"{name} {why}" for name, tensor in tensors.items() if tensor.is_floating_point() and (why := why_unusable(tensor))]
    if bad:
        lines.append(("weights", f"{len(bad)} of {len(tensors)} tensors were bad before the update: {bad[0]}"))
        return [[*lines, ("reason", "an update before this one: its learning rate or its gradient was too large")]], []
    trainer = build_trainer({TARGET: "lightning.Trainer", "accelerator": device, "devices": 1, "max_epochs": 1}, chosen)
    try:
        network, task = _rebuilt(contents, trainer, trust)
    except UserError as error:
        raise UserError(str(error).replace("trust=true", "--trust")) from error
    lines.append(("replayed", f"on {trainer.strategy.root_device}, {chosen}, batches: {len(batches)}"))
    if contents.lora is not None:
        lines.append(("adapters", "added to the weights: the norm is that of all weights, and dropout is left out"))
    groups, rows = [lines], []
    for batch in batches:
        found, of_images = _passes(network, task, trainer, batch, facts.scale / len(batches), contents.file)
        groups.append(found)
        rows += of_images
    gradients = {name: p.grad / facts.scale for name, p in network.named_parameters() if p.grad is not None}
    wrong = [name for name, gradient in gradients.items() if not bool(gradient.isfinite().all())]
    norm = float(nn.utils.get_total_norm(list(gradients.values())))
    text = f"norm {norm:.4g}; {len(wrong)} of {len(gradients)} parameters have a gradient that is NaN or infinite"
    return [*groups, [("gradient", text + (f", such as {wrong[0]}" if wrong else ""))]], rows


def _rebuilt(contents: Contents, trainer: Trainer, trust: bool) -> tuple[nn.Module, Task]:
    """Returns network and task of a dump, as eval.py builds them, on the device and in training mode."""
    assert contents.metadata is not None
    classes = contents.metadata.class_names
    node = restored_node(contents, "task", {}, {}, trust=trust)
    if node.get("real_labels"):
        node["real_labels"] = False  # They are those of validation images.
    task = build_task(node, DataDescription(class_names=classes or ()))
    if isinstance(task, Distillation) and not trust:
        raise UserError(f"{contents.file} names a teacher, {task.teacher}, which would be opened.\n{TRUST}")
    restored = restore(contents, task, classes, RestoreConfig(), trust=trust)
    task, network = with_teacher(task, restored.network, restored.preprocessing, classes or ())
    if network is not restored.network:  # It has adapters.
        network.load_state_dict(contents.network_tensors())
    network = trainer.precision_plugin.convert_module(network.to(trainer.strategy.root_device))
    return network.train().requires_grad_(), task


def _passes(
    network: nn.Module, task: Task, trainer: Trainer, batch: DumpedBatch, scale: float, file: Path
) -> tuple[Lines, list[list[str]]]:
    """Computes loss and gradient of a batch; the gradient is added to that of the batches before it."""
    tensors = tuple(tensor.to(trainer.strategy.root_device) for tensor in batch.tensors)
    pixels = tensors[0].flatten(1).isfinite().all(1).tolist()
    trace = Trace()
    torch.manual_seed(batch.seed)
    try:
        with trace.of(network):
            with trainer.precision_plugin.train_step_context():
                loss = task.training_loss(network, tensors, batch.seed)
            (loss * scale).backward()
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        raise UserError(f"{file}: its batch does not fit its network: {str(error).splitlines()[0]}") from error
    outputs = trace.images.tolist() if trace.images is not None and len(trace.images) == len(pixels) else [True] * len(pixels)
    names = batch.names if len(batch.names) == len(pixels) else tuple(map(str, range(len(pixels))))
    rows = [
        [str(batch.process), name, *("finite" if good else "NaN or infinite" for good in both)]
        for name, *both in zip(names, pixels, outputs, strict=True)
        if not all(both)
    ]
    lines = [
        ("batch", f"{len(pixels)} images of process {batch.process}, {len(rows)} of them not finite"),
        ("loss", f"{float(loss.detach()):.6g}"),
        ("output", f"the first NaN or infinite one is that of {trace.output}" if trace.output else "all are finite"),
        ("gradient", f"the first NaN or infinite one is that of {trace.gradient}" if trace.gradient else "all are finite"),
    ]
    return lines, rows
