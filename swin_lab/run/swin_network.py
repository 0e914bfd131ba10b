"""Opens the Swin Transformer of a checkpoint of any origin, for commands that look inside it."""

import re
from dataclasses import dataclass

from swin_lab.errors import UserError, did_you_mean
from swin_lab.imagenet import words
from swin_lab.models import SwinTransformer
from swin_lab.preprocessing import Preprocessing
from swin_lab.run.restore import restore
from swin_lab.run.settings import RestoreConfig
from swin_lab.weights import load, read_source

WORDNET_ID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class OpenedSwin:
    """Contains a trained Swin Transformer in evaluation mode, and what belongs to its weights."""

    network: SwinTransformer
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None

    def name_of(self, index: int) -> str:
        """Returns the name of a class, in words for those of ImageNet, or its index if the classes have no names."""
        name = self.class_names[index] if self.class_names else str(index)
        return words(name) if WORDNET_ID.fullmatch(name) else name

    def class_index(self, given: str) -> int:
        """Returns the index of a class that is given by name or index.

        Raises:
            UserError: there is no such class.
        """
        count = self.network.config.num_classes
        if self.class_names is not None and given in self.class_names:
            return self.class_names.index(given)
        if given.isascii() and given.isdecimal() and len(given) <= 9 and int(given) < count:
            return int(given)
        hint = did_you_mean(given, self.class_names) if self.class_names else ""
        raise UserError(f"class {given!r} does not exist; the network has {count} classes, counted from 0{hint}")


def open_swin(source: str, *, name: str | None, ema: bool) -> OpenedSwin:
    """Opens a file, a run directory, a folder or a model on the hub.

    Args:
        source: see `swin_lab.load_model`.
        name: the variant that it contains, for V2 files without their window sizes.
        ema: whether to take the moving average of the weights.

    Raises:
        UserError: the source cannot be read, or contains no Swin Transformer.
    """
    restored = restore(read_source(source), None, None, RestoreConfig(name=name, ema=ema))
    network = restored.network
    if not isinstance(
        network, SwinTransformer
    ):  # A run of timm, torchvision or transformers may have trained a Swin of theirs.
        try:
            network, _ = load(network)
        except UserError as error:
            kind = type(restored.network).__name__
            raise UserError(f"{source} contains a {kind}; this command is for Swin Transformers only") from error
    return OpenedSwin(network.eval(), restored.preprocessing, restored.class_names)
