"""Opens the teacher of a distillation, in training alone: an evaluation of the student needs none."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import nn

from swin_lab.errors import UserError
from swin_lab.imagenet import wordnet_ids
from swin_lab.metadata import Mapped
from swin_lab.preprocessing import Preprocessing
from swin_lab.run.components import build_task
from swin_lab.run.instantiate import build_dataclass
from swin_lab.run.restore import Restored, check_same_classes, restore
from swin_lab.run.settings import Node, RestoreConfig
from swin_lab.run.stored import restored_node
from swin_lab.run.targets import resolve
from swin_lab.tasks import Classification, Distillation
from swin_lab.tasks.teacher import Teacher
from swin_lab.training import DataDescription, Task
from swin_lab.validation import check_value
from swin_lab.weights import Contents, read_source
from swin_lab.weights.checkpoint import locate

TIMM = "timm:"
"""Prefix of the name of a model of timm, whose published weights are used."""


def check_teacher(node: Node) -> None:
    """Raises UserError if a `task` node names a teacher that does not exist, before the data is read."""
    target, source = resolve("task", node), node.get("teacher")
    if not isinstance(target, type) or not issubclass(target, Distillation) or not isinstance(source, str):
        return
    try:
        build_dataclass("transfer", RestoreConfig, check_value("transfer", node.get("teacher_transfer", {}), Mapped))
        _published_classes(source.removeprefix(TIMM)) if source.startswith(TIMM) else locate(source)
    except UserError as error:
        raise _of_the_teacher(source, error) from error


def with_teacher(
    task: Task,
    student: nn.Module,
    seen: Preprocessing,
    class_names: Sequence[str],
    compile_network: Callable[[nn.Module], None] | None = None,
) -> tuple[Task, nn.Module]:
    """Returns a distillation with its teacher, and the student with what the task adds to it; of other tasks, what is given.

    Args:
        task: the task of a run.
        student: the network that is trained.
        seen: the preprocessing of the student.
        class_names: classes of the data.
        compile_network: has the teacher compiled in place. If None, it is not.

    Raises:
        UserError: the teacher cannot be read, has other classes, or does not fit the student.
    """
    if not isinstance(task, Distillation) or not isinstance(source := task.teacher, str):
        return task, student
    try:
        with torch.random.fork_rng(devices=[]):  # The run has the random numbers that it has without a teacher.
            opened = _opened(task, source, class_names)
        size = sum(parameter.numel() for parameter in opened.network.parameters())
        description = f"{source}, a {type(opened.network).__name__}, {size:,} parameters"
        network, student = task.with_features(opened.network, student)
        teacher = Teacher(network, description, opened.preprocessing, seen)
        if compile_network is not None:
            compile_network(teacher.network)
    except UserError as error:
        raise _of_the_teacher(source, error) from error
    return replace(task, teacher=teacher), student


def _opened(task: Distillation, source: str, class_names: Sequence[str]) -> Restored:
    if source.startswith(TIMM):
        return _published(source.removeprefix(TIMM), class_names)
    contents, settings = read_source(source), build_dataclass("transfer", RestoreConfig, task.teacher_transfer)
    own = _own_task(contents, task.teacher_trust)
    if own is not None and not isinstance(own, Classification):
        raise UserError(f"it was trained by {type(own).__name__}, whose outputs are not classes; choose a classifier")
    restored = restore(contents, own, class_names, settings, trust=task.teacher_trust)
    if restored.thresholds is not None:
        raise UserError("it gives an image several labels, and the student one class; choose a classifier")
    return restored


def _own_task(contents: Contents, trust: bool) -> Task | None:
    """Returns the task of the run that has written a checkpoint, which has built the network around the model."""
    metadata = contents.metadata
    if metadata is None or metadata.run is None:
        return None
    node = restored_node(contents, "task", {}, {}, trust=trust)
    if node.get("real_labels"):
        node["real_labels"] = False  # They are those of validation images.
    return build_task(node, DataDescription(class_names=metadata.class_names or ()))


def _published(name: str, class_names: Sequence[str]) -> Restored:
    """Returns a model of timm with its published weights, which must be for the classes of the data."""
    from swin_lab.models.external import TimmModel  # timm takes seconds to import

    count = _published_classes(name)
    check_same_classes(class_names, wordnet_ids(count) or (class_names if count == len(class_names) else ("",) * count))
    network = TimmModel(name, count, pretrained=True)
    if network.preprocessing is None:
        raise UserError("its preprocessing cannot be expressed; choose another model")
    return Restored(network, network.preprocessing, tuple(class_names), [])


def _published_classes(name: str) -> int:
    """Returns the number of classes of published weights; raises UserError if timm has no such model."""
    from swin_lab.models.external.timm_model import published_classes  # timm takes seconds to import

    return published_classes(name)


def _of_the_teacher(source: str, error: UserError) -> UserError:
    """Returns an error that names the teacher and its own settings instead of those of an evaluation."""
    text = re.sub(r"\btransfer\b", "task.teacher_transfer", str(error)).replace("trust=true", "task.teacher_trust=true")
    return UserError(f"task.teacher={source}: {text}")
