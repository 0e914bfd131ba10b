"""Builds the network of a `model` node for a task, loads weights into it, and adds adapters."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from torch import nn

from swin_lab.errors import UserError
from swin_lab.models import SwinTransformer
from swin_lab.models.lora import LoraConfig, inject
from swin_lab.preprocessing import Preprocessing
from swin_lab.run.instantiate import instantiate
from swin_lab.run.lora import split_lora
from swin_lab.run.settings import Node, TransferConfig
from swin_lab.run.targets import Parameters, resolve
from swin_lab.training import Task
from swin_lab.validation import shown
from swin_lab.weights import Checkpoint, LoadReport, open_checkpoint, transfer, with_pretrained_windows

SWIN = "swin_lab.models.SwinTransformer"

DEFAULT_SIZE = 224
"""Input size in pixels of a model that does not specify one: that of ImageNet recipes."""


@dataclass(frozen=True)
class Model:
    """The network that a run trains or evaluates."""

    network: nn.Module
    """The model, with the layers that the task has added."""
    node: Node
    """`_target_` and all arguments, from which the same model can be built again."""
    img_size: tuple[int, int]
    """Height and width of the model's input in pixels."""
    own_preprocessing: Preprocessing | None
    """The model's own preprocessing, which models of other libraries have."""
    report: LoadReport | None
    """Report of the loaded weights. If None, the network is randomly initialised."""
    lora: LoraConfig | None
    """The settings of the network's adapters. If None, it has none."""

    @property
    def described(self) -> Node:
        """Returns what checkpoints contain of the model: the node, and the settings of the adapters under `lora`."""
        return self.node if self.lora is None else self.node | {"lora": self.lora.as_dict()}


def open_weights(weights: str | None, settings: TransferConfig, node: Node) -> Checkpoint | None:
    """Opens the initial weights of a training. If `weights` is None, returns None.

    Args:
        weights: a file, a run directory or `OWNER/NAME` on the hub.
        settings: how the weights are transferred.
        node: the `model` node, checked here so that a checkpoint of another network fails before the data is read.

    Raises:
        UserError: the recipe needs weights, they cannot be read, they are for another network, or there are only settings.
    """
    node, lora = split_lora(node)
    if weights is None:
        if settings.required:
            raise UserError("weights must be given: this recipe fine-tunes, for example weights=FILE.pth, a run, OWNER/NAME")
        if lora is not None and settings.required is None:  # transfer.required=false is for trials.
            raise UserError(f"model.lora.rank={lora.rank} trains adapters of weights that stay as they are; add weights=FILE")
        check_transfer(weights, settings)
        return None
    checkpoint = open_checkpoint(weights, name=settings.name, ema=settings.ema)
    _fitted(node, checkpoint)
    return checkpoint


def check_transfer(weights: str | None, settings: TransferConfig) -> None:
    """Raises UserError for settings without weights, unless `transfer.required` says whether there are to be weights."""
    if weights is not None or settings.required is not None:
        return
    for field in fields(settings):
        if (value := getattr(settings, field.name)) != field.default:
            raise UserError(f"transfer.{field.name}={shown(value)} has no effect without weights; add weights=FILE")


def _fitted(node: Node, checkpoint: Checkpoint) -> Node:
    """Returns a `model` node with the windows with which a checkpoint's position bias was trained.

    Raises:
        UserError: the node is for another class or another network than the checkpoint's.
    """
    if node.get("_target_") != SWIN:
        raise UserError(f"weights={checkpoint.source} is for {SWIN}; the model is a {node.get('_target_')}")
    return node | with_pretrained_windows(checkpoint, node)


def build_model(
    node: Node,
    task: Task,
    *,
    img_size: int | Sequence[int] | None = None,
    checkpoint: Checkpoint | None = None,
    settings: TransferConfig | None = None,
    class_names: Sequence[str] | None = None,
) -> Model:
    """Builds the network of a `model` node for a task, loads the weights of a checkpoint, if one is given, and adds adapters.

    Args:
        node: the `model` node.
        task: provides arguments such as `num_classes`, and builds the network around the model.
        img_size: input size in pixels for a model that does not define one.
        checkpoint: initial weights.
        settings: how the weights are transferred.
        class_names: names of the task's classes, to find the rows of the checkpoint's head.

    Raises:
        UserError: the node contradicts the task, or the weights do not fit.
    """
    node, lora = split_lora(node)
    if lora is not None and not task.outputs_are_classes:
        raise UserError(f"model.lora.rank={lora.rank} is for fine-tuning on classes, not for {type(task).__name__}")
    arguments = task.model_arguments()
    for key, value in arguments.items():
        if node.get(key) is not None and node[key] != value:
            noun = key.removeprefix("num_")
            raise UserError(f"model.{key}={node[key]} but the task needs {value} {noun}; leave model.{key} out")
    node = {key: value for key, value in node.items() if key not in arguments}
    signature = Parameters.of(resolve("model", node))
    arguments = {key: value for key, value in arguments.items() if signature.takes_any or key in signature.names}
    if checkpoint is not None:
        node = _fitted(node, checkpoint)
    model: nn.Module = instantiate("model", node | arguments, kind=nn.Module)
    own_preprocessing: Preprocessing | None = getattr(model, "preprocessing", None)
    report = None
    if checkpoint is not None and settings is not None:
        assert isinstance(model, SwinTransformer)
        report = transfer(
            checkpoint,
            model,
            head=settings.head,
            class_names=class_names,
            bias_interpolation=settings.bias_interpolation,
            strict=settings.strict,
        )
    if lora is not None:
        inject(model, lora)
    size = input_size(model, node, img_size)
    # A model that is built again gets its weights from a checkpoint and must not fetch published ones first.
    rebuilt = node | arguments | ({"pretrained": False} if node.get("pretrained") else {})
    return Model(task.build_network(model), rebuilt, size, own_preprocessing, report, lora)


def input_size(model: nn.Module, node: Node, img_size: int | Sequence[int] | None) -> tuple[int, int]:
    """Returns height and width of the input: the model's own, or `img_size` for a model that has none, or 224 x 224.

    Raises:
        UserError: both the model and `img_size` name one, and they differ.
    """
    own = getattr(model, "img_size", None) or node.get("img_size")
    chosen = own or img_size or DEFAULT_SIZE
    size = (chosen, chosen) if isinstance(chosen, int) else (int(chosen[0]), int(chosen[1]))
    given = (img_size, img_size) if isinstance(img_size, int) else img_size
    if given is not None and tuple(given) != size:
        raise UserError(
            f"img_size={img_size} differs from the {size[0]}x{size[1]} pixels of the model; set model.img_size instead"
        )
    return size
