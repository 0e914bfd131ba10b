"""Linear probing: a new head for a network that stays as it is, fitted to vectors that are computed once and kept."""

import hashlib
import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from swin_lab.errors import UserError, printable_line
from swin_lab.inference.accuracy import LabelledSets, LinearHead, ProbeResult, probe
from swin_lab.inference.embed import Shard, embed
from swin_lab.inference.inputs import Inputs
from swin_lab.inference.labels import UNKNOWN
from swin_lab.inference.model import InferenceModel, Settings, VectorKind, open_model
from swin_lab.inference.parts import Plan
from swin_lab.inference.vectors import VectorFile, open_vectors
from swin_lab.models import SwinTransformer
from swin_lab.run.restore import default_preprocessing
from swin_lab.weights import load, read_source

HASH_CHARACTERS = 16
"""Length of the hash in the name of a file of vectors."""


@dataclass(frozen=True)
class KeptVectors:
    """Contains the vectors of a set of images."""

    file: VectorFile
    computed: int
    """Images whose vectors this command has computed; the others were in the file."""
    unreadable: int


def open_backbone(source: str, settings: Settings) -> InferenceModel:
    """Loads a Swin Transformer of any origin without its head, also that of a run of SimMIM.

    Raises:
        UserError: the source cannot be read or contains no Swin Transformer, or there is no such device.
    """
    contents = read_source(source)
    network, report = load(contents, num_classes=0, head="reinit", name=settings.name, ema=settings.ema)
    for label, text in report.lines():
        print(f"{label:<10} {printable_line(text)}", file=sys.stderr)
    network.class_names = None
    network.preprocessing = network.preprocessing or default_preprocessing(contents.file, network)
    return open_model(network, settings)


def check_labels(train: Inputs, val: Inputs) -> None:
    """Raises UserError, before anything is computed, unless all images have a label and a class is in both sets."""
    for inputs in (train, val):
        unknown = np.flatnonzero(inputs.labels == UNKNOWN)
        if len(unknown):
            raise UserError(
                f"{len(unknown):,} of {len(inputs):,} images have no label, such as {inputs.name(int(unknown[0]))}\n"
                "Give a folder that has one folder per class, or another source of labelled images"
            )
    names = [{inputs.label_names[label] for label in np.unique(inputs.labels)} for inputs in (train, val)]
    if len(names[0]) < 2 or names[0].isdisjoint(names[1]):
        shown = " and ".join(f"{len(some)} ({min(some)}, ...)" for some in names)
        raise UserError(f"a head needs two classes at least, and one that is in both sets; the sets have {shown}")


def kept_vectors(model: InferenceModel, inputs: Inputs, folder: Path, set_name: str, workers: int) -> KeptVectors:
    """Computes the vectors of images, unless a file in a folder has them, and keeps them there.

    The name of the file has a hash of the weights, the preprocessing, the names and labels of the images, and whatever else the
    vectors depend on; the contents of images are not read.

    Args:
        model: the network.
        inputs: the images.
        folder: where the file is.
        set_name: how its name begins.
        workers: processes that decode images.

    Raises:
        UserError: the file cannot be written.
    """
    kind = VectorKind()
    plan = Plan.of(model, inputs, kind, model.shape(kind), "float32")
    digest = hashlib.sha256(json.dumps(asdict(plan), sort_keys=True).encode()).hexdigest()[:HASH_CHARACTERS]
    out = folder / f"{set_name}-{digest}.parquet"
    done = embed(model, inputs, out, kind, dtype="float32", workers=workers, shard=Shard())
    assert done is not None  # There is one process.
    return KeptVectors(open_vectors(out), done.computed, done.unreadable)


def fit_head(train: VectorFile, val: VectorFile, seed: int) -> tuple[LabelledSets, ProbeResult]:
    """Fits a head to the vectors of training images, and classifies validation images with it, see `accuracy.probe`.

    Raises:
        UserError: a label is unknown, no class is in both sets, or the training images are too few.
    """
    sets = LabelledSets.of(train, val)
    return sets, probe(train.vectors(), val.vectors(), sets, seed)


def with_head(backbone: nn.Module, head: LinearHead, class_names: tuple[str, ...]) -> SwinTransformer:
    """Returns a network with the weights of a backbone and a fitted head, on the CPU."""
    if not isinstance(backbone, SwinTransformer):
        raise UserError(f"a {type(backbone).__name__} gets no head; this command is for Swin Transformers")
    network = SwinTransformer(replace(backbone.config, num_classes=len(class_names)))
    tensors = {"head.weight": torch.from_numpy(head.weight_KC), "head.bias": torch.from_numpy(head.bias_K)}
    network.load_state_dict({name: tensor.float() for name, tensor in (backbone.cpu().state_dict() | tensors).items()})
    network.class_names, network.preprocessing = class_names, backbone.preprocessing
    return network.eval()
