"""The task of an evaluation of weights with and without thresholds, which those for several labels per image have."""

from collections.abc import Sequence

from swin_lab.run.settings import Node
from swin_lab.run.targets import TARGET
from swin_lab.weights import Contents

CLASSIFICATION = {TARGET: "swin_lab.tasks.Classification"}
MULTI_LABEL = {TARGET: "swin_lab.tasks.MultiLabelClassification"}


def default_task(contents: Contents) -> Node:
    """Returns the task node for weights that were not written by a run."""
    several = contents.metadata is not None and contents.metadata.thresholds is not None
    return MULTI_LABEL if several else CLASSIFICATION


def with_thresholds(node: Node, contents: Contents, class_names: Sequence[str]) -> Node:
    """Returns a task node with the thresholds that weights have for some classes, in their order.

    It is returned unchanged if it has thresholds, if its task takes none, or if the weights lack those of a class.
    """
    metadata = contents.metadata
    takes_them = node.get(TARGET) == MULTI_LABEL[TARGET] or "thresholds" in node  # a class of the user's
    if not takes_them or node.get("thresholds") or metadata is None or metadata.thresholds is None:
        return node
    known = dict(zip(metadata.class_names or (), metadata.thresholds, strict=True))
    return node | {"thresholds": [known[name] for name in class_names]} if known.keys() >= set(class_names) else node
