"""The random transforms of training images, built from an `augment` node."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from swin_lab.errors import UserError, did_you_mean
from swin_lab.preprocessing import Preprocessing
from swin_lab.run.instantiate import instantiate
from swin_lab.run.settings import Node
from swin_lab.run.targets import Parameters, resolve

Step = Callable[[Any], Any]
"""Maps an image to an image, or a tensor to a tensor."""


@dataclass(frozen=True)
class Augmentation:
    """Contains the random transforms of training images."""

    image_transforms: Sequence[Step]
    tensor_transforms: Sequence[Step]


def build_augmentation(node: Node, preprocessing: Preprocessing) -> Augmentation:
    """Builds the augmentation of an `augment` node: a class that has both lists of transforms, or the lists themselves.

    Transforms that need `size`, `img_size` or `mean` and are not given one get that of the preprocessing.

    Raises:
        UserError: the node has neither.
    """
    size = list(preprocessing.img_size)
    known = {"size": size, "img_size": size, "mean": preprocessing.mean}
    if "_target_" in node:
        built = instantiate("augment", node, _required("augment", node, known))
        return Augmentation(built.image_transforms, built.tensor_transforms)
    lists = [field.name for field in fields(Augmentation)]
    for key in node:
        if key not in lists:
            raise UserError(f"unknown key augment.{key}{did_you_mean(str(key), lists)}")
    for key in lists:
        if not isinstance(node.get(key), list):
            raise UserError(f"augment.{key} must be a list of transforms; an empty list is []")
    places = {key: f"augment.{key}" for key in lists}
    return Augmentation(
        *([instantiate(places[key], step, _required(places[key], step, known)) for step in node[key]] for key in lists)
    )


def _required(where: str, node: Node, known: dict[str, Any]) -> dict[str, Any]:
    """Returns the known values that are required parameters of a target; parameters with a default keep it."""
    required = Parameters.of(resolve(where, node)).required
    return {key: value for key, value in known.items() if key in required}
