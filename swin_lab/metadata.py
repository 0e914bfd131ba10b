"""The metadata that checkpoints and weight files of swin_lab contain."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from math import isfinite
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le

from swin_lab import __version__
from swin_lab.errors import UserError, did_you_mean, is_one_line
from swin_lab.preprocessing import Preprocessing
from swin_lab.validation import Expected, PositiveInt, check_fields, check_value, type_hints

METADATA_KEY = "swin_lab"
"""Key of the metadata in a checkpoint, and in the metadata of a .safetensors file."""

NETWORK_PREFIX = "network."
"""Prefix of the network's tensors in the checkpoint of a run."""

EMA_KEY = "ema"
"""Key of the moving average of the weights in the checkpoint of a run; its tensors are named like the weights."""

FORMAT = 2
"""Version of the format; files of other versions are refused."""

MAX_DEPTH = 32
MAX_VALUES = 2_000_000
MAX_DIGITS = 1000
MAX_CHARACTERS = 4096
MAX_DEVICE_BATCH = 2**20
"""Limits of the metadata in a file, far above those of real runs: a damaged file must not cost time or memory without limit."""


MIN_TEMPERATURE, MAX_TEMPERATURE = 1e-3, 1e3
Threshold = Annotated[float, Ge(0), Le(1)]
Mapped = Annotated[dict[str, Any], Expected("a mapping of names to values")]
"""Type of a part of the metadata, as messages describe it."""

PRECISIONS = ("32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true", "32", "16", "bf16", "64")
"""Precisions of Lightning that need no further package, which a file may name."""


def check_class_names(names: Sequence[str]) -> None:
    """Checks that class names are distinct, can be printed, and can be written one per line.

    Raises:
        UserError: there are none, or one is not a string, is empty, is given twice, or has control characters.
    """
    if not isinstance(names, list | tuple):
        raise UserError(f"class names are a {type(names).__name__}; they must be a list of strings")
    if not names:
        raise UserError("the data has no class names")
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"the name of class {index} is {name!r}; a class name must be a string that is not empty")
        if not is_one_line(name):
            raise UserError(
                f"the name of class {index} is {name!r}; rename it: a class name must be UTF-8 without line breaks and other "
                "control characters"
            )
        if first.setdefault(name, index) != index:
            raise UserError(f"classes {first[name]} and {index} have the same name, {name!r}; every class needs its own")


@dataclass(frozen=True, kw_only=True)
class RunMetadata:
    """Describes the run that has written a checkpoint."""

    precision: str
    device_batch: Annotated[int, Gt(0), Le(MAX_DEVICE_BATCH)]
    config: Mapped
    """The resolved configuration, plain Python."""

    def __post_init__(self) -> None:
        check_fields(self, "metadata.")


@dataclass(frozen=True, kw_only=True)
class FittedTemperature:
    """Contains what weights and bias of the last layer were divided by (temperature scaling, arXiv 1706.04599)."""

    temperature: Annotated[float, Ge(MIN_TEMPERATURE), Le(MAX_TEMPERATURE)]
    images: str
    """Fingerprint of the images that it was fitted on."""

    def __post_init__(self) -> None:
        check_fields(self, "metadata.calibration.")


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """Contains the values needed to build a network again and to preprocess images for it."""

    model: dict[str, Any]
    """`_target_` and the arguments that build the network."""
    class_names: tuple[str, ...] | None = None
    preprocessing: Preprocessing | None = None
    run: RunMetadata | None = None
    """The run that has written the file. If None, the file was not written by a run."""
    calibration: FittedTemperature | None = None
    """What the last layer was divided by after the training. If None, it was not."""
    thresholds: tuple[Threshold, ...] | None = None
    """A probability per class above which an image has its label. If None, an image has one class, or none was chosen."""

    def __post_init__(self) -> None:
        check_fields(self, "metadata.")
        if self.class_names:
            check_class_names(self.class_names)
        if self.thresholds is not None and len(self.thresholds) != len(self.class_names or ()):
            raise UserError(f"metadata has {len(self.thresholds)} thresholds for {len(self.class_names or ())} class names")

    @property
    def notes(self) -> list[tuple[str, str]]:
        """Returns what is to be said of the weights, as (label, text)."""
        if self.calibration is None:
            return []
        return [("note", f"calibrated: the last layer is divided by the temperature {self.calibration.temperature:.4g}")]

    def as_dict(self) -> dict[str, Any]:
        """Returns the metadata as plain Python, for a file."""
        run = None if self.run is None else {field.name: getattr(self.run, field.name) for field in fields(RunMetadata)}
        fitted = self.calibration
        calibration = {} if fitted is None else {"calibration": {"temperature": fitted.temperature, "images": fitted.images}}
        return {
            "format": FORMAT,
            "version": __version__,
            "model": self.model,
            "class_names": None if self.class_names is None else list(self.class_names),
            "preprocessing": None if self.preprocessing is None else self.preprocessing.as_dict(),
            "run": run,
            **calibration,
            **({} if self.thresholds is None else {"thresholds": list(self.thresholds)}),
        }

    @classmethod
    def from_dict(cls, values: object, where: str) -> "Metadata":
        """Builds the metadata from the dict of `as_dict`.

        Args:
            values: the metadata of a file.
            where: the file, for messages.

        Raises:
            UserError: the format is unknown, a key is missing or unknown, or a value is invalid.
        """
        if not isinstance(values, dict) or "format" not in values:
            raise UserError(f"{where} is damaged: its metadata has no format")
        try:
            _check_plain(values)
            if check_value("metadata.format", values["format"], PositiveInt) != FORMAT:
                raise UserError(_other_format(values["format"], where))
            own = {key: value for key, value in values.items() if key not in ("format", "version")}
            optional = {"calibration": None, "thresholds": None}  # Only files that were calibrated, or have several labels.
            given = _keys_of(cls, optional | own, "metadata")
            return cls(
                model=_model(given["model"]),
                class_names=_class_names(given["class_names"]),
                preprocessing=None if given["preprocessing"] is None else _preprocessing(given["preprocessing"]),
                run=None if given["run"] is None else _run(given["run"]),
                calibration=None if given["calibration"] is None else _calibration(given["calibration"]),
                thresholds=check_value("metadata.thresholds", given["thresholds"], tuple[Threshold, ...] | None),
            )
        except UserError as error:
            raise error if str(error).startswith(where) else UserError(f"{where} is damaged: {error}") from error


def _other_format(found: object, where: str) -> str:
    return (
        f"{where} was written by another version of swin_lab (metadata format {found}; this version reads {FORMAT}).\n"
        f"Train again, or convert it with that version: swin-lab convert {where} OUT.pth --layout official"
    )


def _model(value: object) -> dict[str, Any]:
    """Checks the description of a model: it names a class, and has no values that no model has."""
    node: dict[str, Any] = check_value("metadata.model", value, Mapped)
    if not isinstance(node.get("_target_"), str):
        raise UserError("metadata.model has no _target_, the class of the network")
    refuse_unprintable("metadata.model", node)
    return node


def _class_names(value: object) -> tuple[str, ...] | None:
    if isinstance(value, list | tuple):  # A message shows the wrong entry, not the whole list.
        return tuple(check_value(f"metadata.class_names.{i}", name, str) for i, name in enumerate(value))
    names: tuple[str, ...] | None = check_value("metadata.class_names", value, tuple[str, ...] | None)
    return names


def _preprocessing(value: object) -> Preprocessing:
    where = "metadata.preprocessing"
    refuse_unprintable(where, value)
    try:
        return Preprocessing.from_dict(_fields_of(Preprocessing, value, where))
    except UserError as error:  # Preprocessing also checks the keys of `data`, and names them.
        raise UserError(re.sub(r"^data\.", f"{where}.", str(error))) from error


def _run(value: object) -> RunMetadata:
    given = _fields_of(RunMetadata, value, "metadata.run")
    if given["precision"] not in PRECISIONS:
        raise UserError(f"metadata.run.precision={given['precision'][:100]!r} must be one of {', '.join(PRECISIONS)}")
    return RunMetadata(**given)


def _calibration(value: object) -> FittedTemperature:
    refuse_unprintable("metadata.calibration", value)
    return FittedTemperature(**_fields_of(FittedTemperature, value, "metadata.calibration"))


def _fields_of(kind: type, value: object, where: str) -> dict[str, Any]:
    """Checks a dict of the fields of a dataclass: no key is unknown or missing, and every value has its type."""
    hints = type_hints(kind)
    return {key: check_value(f"{where}.{key}", entry, hints[key]) for key, entry in _keys_of(kind, value, where).items()}


def _keys_of(kind: type, value: object, where: str) -> dict[str, Any]:
    """Checks that a value is a dict of the fields of a dataclass, without unknown or missing ones."""
    given: dict[str, Any] = check_value(where, value, Mapped)
    known = {field.name: field for field in fields(kind)}
    for key in given:
        if key not in known:
            raise UserError(f"{where} has an unknown key {key!r}{did_you_mean(key, known)}")
    for name, field in known.items():
        if name not in given and (kind is Metadata or (field.default is MISSING and field.default_factory is MISSING)):
            raise UserError(f"{where} has no {name}")
    return given


def refuse_unprintable(where: str, value: object) -> None:
    """Raises UserError if a value of a file contains NaN, infinity or control characters, or a string with an interpolation.

    Args:
        where: name of the value, for the message.
        value: plain Python of a limited depth.
    """
    for name, entry in _leaves(where, value):
        if isinstance(entry, float) and not isfinite(entry):
            raise UserError(f"{name}={entry} must be a finite number")
        if isinstance(entry, str) and (not is_one_line(entry) or "${" in entry):
            raise UserError(f"{name}={entry[:100]!r} must be a string without control characters and interpolations")


def _leaves(where: str, value: object) -> Iterator[tuple[str, object]]:
    """Yields the full name and the value of every leaf, and the keys of every dict."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield f"a key of {where}", key
            yield from _leaves(f"{where}.{key}", entry)
    elif isinstance(value, list | tuple):
        for i, entry in enumerate(value):
            yield from _leaves(f"{where}.{i}", entry)
    else:
        yield where, value


def _check_plain(metadata: object) -> None:
    """Raises UserError unless metadata is plain Python of limited size; a pickle may contain cycles and tensors."""
    remaining = [(metadata, 0)]
    count = 0
    while remaining:
        value, depth = remaining.pop()
        count += 1
        if count > MAX_VALUES or depth > MAX_DEPTH:
            raise UserError(f"its metadata has more than {MAX_VALUES} values, or is more than {MAX_DEPTH} levels deep")
        if type(value) is dict:
            remaining += [(entry, depth + 1) for pair in value.items() for entry in pair]
        elif type(value) in (list, tuple):
            remaining += [(entry, depth + 1) for entry in value]  # type: ignore[attr-defined]
        elif value is not None and type(value) not in (str, int, float, bool):
            raise UserError(f"its metadata contains a {type(value).__name__}, which is not plain data")
        elif isinstance(value, str) and len(value) > MAX_CHARACTERS:
            raise UserError(f"its metadata contains a string of more than {MAX_CHARACTERS} characters")
        elif type(value) is int and abs(value) >= 10**MAX_DIGITS:
            raise UserError(f"its metadata contains a number of more than {MAX_DIGITS} digits")
