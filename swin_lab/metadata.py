"""The metadata that checkpoints and weight files of swin_lab contain."""

from dataclasses import dataclass, fields
from typing import Any

from swin_lab import __version__
from swin_lab.errors import UserError
from swin_lab.preprocessing import Preprocessing
from swin_lab.validation import PositiveInt, check_fields

METADATA_KEY = "swin_lab"
"""Key of the metadata in a checkpoint, and in the metadata of a .safetensors file."""

NETWORK_PREFIX = "network."
"""Prefix of the network's tensors in the checkpoint of a run."""

EMA_KEY = "ema"
"""Key of the moving average of the weights in the checkpoint of a run; its tensors are named like the weights."""

FORMAT = 2
"""Version of the format; files of other versions are refused."""


@dataclass(frozen=True, kw_only=True)
class RunMetadata:
    """Describes the run that has written a checkpoint."""

    precision: str
    device_batch: PositiveInt
    config: dict[str, Any]
    """The resolved configuration, plain Python."""

    def __post_init__(self) -> None:
        check_fields(self, "metadata.")


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """Contains the values needed to build a network again and to preprocess images for it."""

    model: dict[str, Any]
    """`_target_` and the arguments that build the network."""
    class_names: tuple[str, ...] | None = None
    preprocessing: Preprocessing | None = None
    run: RunMetadata | None = None
    """The run that has written the file. If None, the file was not written by a run."""

    def __post_init__(self) -> None:
        check_fields(self, "metadata.")

    def as_dict(self) -> dict[str, Any]:
        """Returns the metadata as plain Python, for a file."""
        run = None if self.run is None else {field.name: getattr(self.run, field.name) for field in fields(RunMetadata)}
        return {
            "format": FORMAT,
            "version": __version__,
            "model": self.model,
            "class_names": None if self.class_names is None else list(self.class_names),
            "preprocessing": None if self.preprocessing is None else self.preprocessing.as_dict(),
            "run": run,
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
        if values["format"] != FORMAT:
            raise UserError(
                f"{where} was written by another version of swin_lab (metadata format {values['format']}; this version reads "
                f"{FORMAT}).\nTrain again, or convert it with that version: swin-lab convert {where} OUT.pth --layout official"
            )
        known = {field.name for field in fields(cls)}
        unknown, missing = sorted(set(values) - known - {"format", "version"}), sorted(known - set(values))
        if unknown or missing:
            problem = f"an unknown key {unknown[0]!r}" if unknown else f"no {missing[0]}"
            raise UserError(f"{where} is damaged: its metadata has {problem}")
        try:
            return cls(
                model=values["model"],
                class_names=values["class_names"],
                preprocessing=None if values["preprocessing"] is None else Preprocessing.from_dict(values["preprocessing"]),
                run=None if values["run"] is None else RunMetadata(**values["run"]),
            )
        except (UserError, TypeError, AttributeError) as error:
            raise UserError(f"{where} is damaged: {error}") from error
