"""The network of a checkpoint on its device, with what it needs to turn pixels into probabilities and vectors."""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from swin_lab.data.transforms import eval_transform
from swin_lab.errors import UserError
from swin_lab.imagenet import wordnet_ids, words
from swin_lab.models import SwinTransformer, packed_weights
from swin_lab.preprocessing import Preprocessing
from swin_lab.run.components import build_task
from swin_lab.run.restore import Restored, restore
from swin_lab.run.settings import RestoreConfig
from swin_lab.run.stored import images_at_once, restored_node
from swin_lab.run.trainer import choose_precision
from swin_lab.tasks import SimMIM
from swin_lab.training import DataDescription
from swin_lab.validation import NonNegativeInt, PositiveInt, check_fields
from swin_lab.weights import Contents, read_source
from swin_lab.weights.memory import contents_of

Checkpoint = str | Path | Contents | Mapping[str, Any] | nn.Module
"""What a network can be made from: a path, an id of the hub, weights in memory, or the network itself."""

PrecisionName = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
Pool = Literal["mean", "map"]

MAX_PIXELS_ON_CPU = 2**20
"""Pixels of a forward pass on a CPU, if no number of images is given: 20 images of 224x224. More only need more memory."""
TOP = 5
"""Number of predicted classes if none is given, where an image has one class."""
AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
WORDNET_ID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class Settings:
    """Says how a network is loaded and computed.

    Raises:
        UserError: a value has the wrong type or is unknown.
    """

    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    precision: PrecisionName = "auto"
    flip: bool = False
    """Whether the outputs for an image and for its mirror image are averaged."""
    batch: PositiveInt | None = None
    """Images of a forward pass. If None, as in the run of the checkpoint, or else 64; on a CPU, 2^20 pixels at most."""
    ema: bool = False
    name: str | None = None
    trust: bool = False

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class VectorKind:
    """Says which vectors are made of an image.

    Args:
        stage: the stage, counted from 0, whose map is taken before the next merging; of the last one, after the final norm. If
            None, it is the last one.
        pool: `mean` averages the map over its positions, `map` keeps it.
    """

    stage: NonNegativeInt | None = None
    pool: Pool = "mean"

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class InferenceModel:
    """Computes outputs of images; its methods may be called by several threads inside `ready`."""

    network: nn.Module
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None
    """Names of the classes as the checkpoint has them."""
    device: torch.device
    precision: str
    flip: bool
    batch: int
    report: Sequence[tuple[str, str]]
    thresholds: tuple[float, ...] | None = None
    """A probability per class above which an image has its label. If None, an image has one class."""

    def lines(self) -> list[tuple[str, str]]:
        """Returns what was loaded, as (label, text)."""
        return [*self.report, ("preset", str(self.preprocessing)), ("device", f"{self.device}, {self.precision}")]

    @contextmanager
    def ready(self) -> Iterator[None]:
        """A context in which the network computes and its weights do not change."""
        packs = self.device.type == "cpu" and self.precision == "bf16-mixed"
        with packed_weights(self.network) if packs else nullcontext():
            yield

    def probabilities(self, pixels_BCHW: Tensor) -> np.ndarray:
        """Maps pixels of uint8 to probabilities (B, classes) in float32; of one class per image, their sum is 1.

        Raises:
            UserError: the network's outputs are not one row of logits per image.
        """
        with self._computing():
            images = self._normalised(pixels_BCHW)
            logits = self._logits(images)
            if self.flip:
                logits = (logits + self._logits(images.flip(-1))) / 2
            probabilities = logits.softmax(dim=1) if self.thresholds is None else logits.sigmoid()
            array: np.ndarray = probabilities.cpu().numpy()
            return array

    def vectors(self, pixels_BCHW: Tensor, kind: VectorKind) -> np.ndarray:
        """Maps pixels of uint8 to vectors (B, C), or to maps (B, C, H, W), in float32.

        Raises:
            UserError: the network has no such vectors.
        """
        with self._computing():
            images = self._normalised(pixels_BCHW)
            vectors = self._vectors(images, kind)
            if self.flip:
                mirrored = self._vectors(images.flip(-1), kind)
                vectors = (vectors + (mirrored.flip(-1) if kind.pool == "map" else mirrored)) / 2
            array: np.ndarray = vectors.cpu().numpy()
            return array

    def shape(self, kind: VectorKind) -> tuple[int, ...]:
        """Returns the shape of an image's vector, (C,) or (C, H, W), by that of a black image.

        Raises:
            UserError: the network has no such vectors.
        """
        return self.vectors(self._black(), kind).shape[1:]

    def readable_names(self) -> dict[str, str]:
        """Returns the name of each class -> a readable one, in the order of the logits: ImageNet's are in words.

        Raises:
            UserError: the network has no logits, or another number of them than its checkpoint has names.
        """
        count = self._num_classes()
        given = self.class_names or wordnet_ids(count) or tuple(map(str, range(count)))
        if len(given) != count:
            raise UserError(f"the network has {count} logits and its checkpoint {len(given)} class names")
        return dict(zip(given, readable(given), strict=True))

    def chosen(self, probabilities: np.ndarray, top: int | None) -> list[int]:
        """Returns the predicted classes of an image, the likeliest first, of equal ones the first.

        Args:
            probabilities: (classes,) of the image.
            top: number of classes; of fewer, all. If None, `TOP`. Of several labels per image, those above their thresholds, at
                most so many; if None, all.
        """
        order = np.argsort(-probabilities, kind="stable")
        if self.thresholds is None:
            top = TOP if top is None else top
        else:
            order = order[probabilities[order] > np.array(self.thresholds, dtype=np.float32)[order]]
        found: list[int] = order[:top].tolist()
        return found

    def weights_hash(self) -> str:
        """Returns a hash of the network's hyper-parameters and weights."""
        described = self.network.config.as_dict() if isinstance(self.network, SwinTransformer) else repr(self.network)
        digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
        for name, tensor in self.network.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Sets what torch keeps per thread."""
        dtype = AUTOCAST.get(self.precision)
        with torch.inference_mode(), torch.autocast(self.device.type, dtype) if dtype is not None else nullcontext():
            yield

    def _normalised(self, pixels_BCHW: Tensor) -> Tensor:
        return eval_transform(self.preprocessing).finish(pixels_BCHW.to(self.device, non_blocking=True), ())

    def _logits(self, images_BCHW: Tensor) -> Tensor:
        logits: Any = self.network(images_BCHW)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images_BCHW) or logits.shape[1] == 0:
            found = f"a tensor {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            raise UserError(f"the network ({type(self.network).__name__}) gives {found}, not logits (images, classes)")
        return logits.float()

    def _vectors(self, images_BCHW: Tensor, kind: VectorKind) -> Tensor:
        network = self.network
        if not isinstance(network, SwinTransformer):
            embedding: Any = getattr(network, "embedding", None)
            if embedding is None or kind != VectorKind():
                what = "embeddings of the last stage, averaged, only" if embedding is not None else "no embeddings"
                raise UserError(f"a {type(network).__name__} has {what}; stages and maps are those of a Swin Transformer")
            vectors: Tensor = embedding(images_BCHW).float()
            return vectors
        last = len(network.stages) - 1
        stage = last if kind.stage is None else kind.stage
        if stage > last:
            raise UserError(f"stage={stage} does not exist; this network has the stages 0 to {last}")
        if stage == last and kind.pool == "mean":
            return network.embedding(images_BCHW).float()
        (map_BCHW,) = network.features(images_BCHW, [stage], [network.norm] if stage == last else None)
        return (map_BCHW if kind.pool == "map" else map_BCHW.mean(dim=(2, 3))).float()

    def _num_classes(self) -> int:
        network = self.network
        if isinstance(network, SwinTransformer):
            if network.config.num_classes == 0:
                raise UserError("the network has no head, so that it predicts no classes; swin-lab embed makes vectors of it")
            return network.config.num_classes
        return self.probabilities(self._black()).shape[1]

    def _black(self) -> Tensor:
        return torch.zeros(1, self.preprocessing.channels, *self.preprocessing.img_size, dtype=torch.uint8)


def open_model(checkpoint: Checkpoint, settings: Settings) -> InferenceModel:
    """Loads a checkpoint of any origin onto its device.

    Args:
        checkpoint: whatever `swin_lab.load_model` takes; the checkpoint of a run with a network of any class; or a network with
            the attribute `preprocessing`, which is used as it is.
        settings: how it is loaded and computed.

    Raises:
        UserError: the checkpoint cannot be read or asks for more than it may, or there is no such device.
    """
    device = find_device(settings.device)
    precision = choose_precision(settings.precision, {"cuda": "gpu"}.get(device.type, device.type))
    if isinstance(checkpoint, nn.Module) and isinstance(getattr(checkpoint, "preprocessing", None), Preprocessing):
        restored, batch = _as_it_is(checkpoint), settings.batch or 64
    else:
        contents = checkpoint if isinstance(checkpoint, Contents) else _read(checkpoint)
        restored = _restored(contents, settings)
        batch = images_at_once(settings.batch, contents, restored.preprocessing, trust=settings.trust)
    if settings.batch is None:
        height, width = restored.preprocessing.img_size
        batch = min(batch, max(1, MAX_PIXELS_ON_CPU // (height * width))) if device.type == "cpu" else batch
    network = restored.network.to(device).eval()
    return InferenceModel(
        network,
        restored.preprocessing,
        restored.class_names,
        device,
        precision,
        settings.flip,
        batch,
        restored.report,
        restored.thresholds,
    )


def find_device(name: str) -> torch.device:
    """Returns the device of a name; `auto` is a GPU if there is one. Of several processes on a machine, each has its own GPU.

    Raises:
        UserError: the name is unknown, or there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if not re.fullmatch(r"cpu|mps|cuda(:\d{1,4})?", name):
        raise UserError(f"device={name[:100]} must be one of auto, cpu, cuda, cuda:N, mps")
    device = torch.device(name)
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    if (device.type == "mps" and not torch.backends.mps.is_available()) or count <= (device.index or 0):
        raise UserError(f"device={name}: this machine has no such device; choose device=cpu")
    if device.type == "cuda" and device.index is None:
        rank = os.environ.get("LOCAL_RANK", "0")
        return torch.device("cuda", int(rank) % count if rank.isdigit() else 0)
    return device


def readable(class_names: Sequence[str]) -> list[str]:
    """Returns names with WordNet ids in words; words that two ids share are followed by the id."""
    if not all(map(WORDNET_ID.fullmatch, class_names)):
        return list(class_names)
    described = [words(name) for name in class_names]
    count = Counter(described)
    return [text if count[text] == 1 else f"{text} ({name})" for text, name in zip(described, class_names, strict=True)]


def _read(checkpoint: Checkpoint) -> Contents:
    if isinstance(checkpoint, Mapping | nn.Module):
        return contents_of(checkpoint)
    if not isinstance(checkpoint, str | Path):
        raise UserError(f"a checkpoint is a path, a state dict or a network, not a {type(checkpoint).__name__}")
    return read_source(checkpoint)


def _restored(contents: Contents, settings: Settings) -> Restored:
    """Builds the network of a checkpoint as an evaluation does, with what the task of its run builds around the model."""
    metadata, task = contents.metadata, None
    if metadata is not None and metadata.run is not None:
        node = restored_node(contents, "task", {}, {}, trust=settings.trust)
        if node.get("real_labels"):
            node["real_labels"] = False  # They are those of validation images.
        task = build_task(node, DataDescription(class_names=metadata.class_names or ()))
        if isinstance(task, SimMIM):
            task = None  # Whole images need the Swin Transformer alone, without masks and decoder.
    return restore(contents, task, None, RestoreConfig(ema=settings.ema, name=settings.name), trust=settings.trust)


def _as_it_is(network: nn.Module) -> Restored:
    preprocessing: Any = network.preprocessing
    return Restored(network, preprocessing, getattr(network, "class_names", None), [], getattr(network, "thresholds", None))
