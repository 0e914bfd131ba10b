"""Types of the top level of conf/train.yaml and conf/eval.yaml; they check every key and value."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, Lt

from swin_lab.models.config import ImageSize, PerStage
from swin_lab.validation import Expected, PositiveInt, Text, check_fields

Node = dict[str, Any]
"""The choice of a configuration group: `_target_` and its arguments, plain Python."""

Nodes = dict[str, Any]
"""Nodes by name."""

MaxDeviceBatch = Annotated[PositiveInt | Literal["auto"] | None, Expected("a positive integer, auto or null")]
CompileChoice = Literal[False, True, "blocks"]
CompileMode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
"""What torch.compile optimises for."""


Seconds = Annotated[float, Ge(1), Le(86_400), Expected("a number of seconds from 1 to 86,400")]


@dataclass(frozen=True, kw_only=True)
class TransferConfig:
    """Contains the settings of loading weights for training, as conf/train.yaml explains them."""

    head: Literal["auto", "keep", "reinit", "map22k", "by_name"] = "auto"
    bias_interpolation: Literal["bicubic", "geometric"] = "bicubic"
    ema: bool = False
    strict: bool = True
    name: Text | None = None
    required: bool | None = None
    evaluate_first: bool = True

    def __post_init__(self) -> None:
        check_fields(self, "transfer.")


@dataclass(frozen=True, kw_only=True)
class RestoreConfig:
    """Contains the settings of loading weights for an evaluation, as conf/eval.yaml explains them."""

    head: Literal["auto", "keep", "map22k", "by_name"] = "auto"
    img_size: ImageSize | None = None
    window_size: PerStage | None = None
    bias_interpolation: Literal["bicubic", "geometric"] = "bicubic"
    ema: bool = False
    strict: bool = True
    name: Text | None = None

    def __post_init__(self) -> None:
        check_fields(self, "transfer.")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Contains the keys of conf/train.yaml, which explains them."""

    task: Node
    model: Node
    data: Node
    augment: Node
    mixing: Node
    optimizer: Node
    schedule: Node
    ema: Node
    trainer: Node
    logger: Nodes | None
    callbacks: Nodes | None
    name: Text
    out: Text
    seed: Annotated[int, Ge(0), Lt(2**32)]
    global_batch: PositiveInt
    max_device_batch: MaxDeviceBatch
    precision: Text | PositiveInt
    compile: CompileChoice
    compile_mode: CompileMode
    img_size: ImageSize | None
    preset: Text | None
    weights: Text | None
    transfer: Node
    checkpoint: Node
    on_nonfinite: Literal["raise", "skip"]
    nonfinite_limit: PositiveInt
    resume: Text | None
    resume_with: tuple[Text, ...]
    save_predictions: bool
    rank_timeout: Seconds
    search: Node
    sweep: Node

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Contains the keys of conf/eval.yaml, which explains them."""

    checkpoint: Text
    trainer: Node
    data: Node | None = None
    task: Node
    out: Text | None
    batch: PositiveInt | None
    precision: Text | PositiveInt | None
    compile: CompileChoice
    compile_mode: CompileMode
    preset: Text | None
    trust: bool
    save_predictions: bool
    page: bool
    calibrate: Text | None
    transfer: Node
    rank_timeout: Seconds
    sweep: Node

    def __post_init__(self) -> None:
        check_fields(self)
