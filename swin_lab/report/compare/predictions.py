"""What runs predicted for the same validation images: significance, confusion matrices, and images on which they disagree."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from swin_lab.record import PREDICTIONS
from swin_lab.report.compare.runs import Run
from swin_lab.report.compare.thumbnails import thumbnails
from swin_lab.report.significance import Pairs, compare_pairs, difference_interval

MAX_REFERENCES = 20
"""Number of runs, the best ones, to which the others are compared, and whose predictions the page contains."""
MAX_IMAGES = 1000
"""Number of images in the page on which runs disagree."""
MAX_CLASSES = 40
"""Number of classes of a confusion matrix; of more, those with the most errors are shown."""


@dataclass(frozen=True)
class Predictions:
    """Contains the predictions of a run: N images."""

    key: str
    """Equal for runs that predicted the same images, in the same order."""
    class_names: Sequence[str]
    labels: np.ndarray
    """(N,)."""
    classes: np.ndarray
    """(N,): the class with the highest probability."""
    probabilities: np.ndarray
    """(N,): its probability."""


def read_predictions(run: Run) -> Predictions | None:
    """Reads the predictions of a run; None if it has none yet, or if they are damaged."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    file = run.folder / PREDICTIONS
    if not file.is_file():
        return None
    try:
        table = pq.ParquetFile(file).read(columns=["index", "label", "classes", "probabilities"])
        about = json.loads((table.schema.metadata or {})[b"swin_lab"])
        firsts = [pc.list_element(table[name], 0).to_numpy() for name in ("classes", "probabilities")]
        index, labels = table["index"].to_numpy(), table["label"].to_numpy()
        names = [str(name) for name in about["class_names"]]
        fingerprint = str(about["data_fingerprint"])
    except (OSError, KeyError, ValueError, TypeError, pa.ArrowException):
        return None
    digest = sha256(index.tobytes() + labels.tobytes()).hexdigest()
    return Predictions(f"{fingerprint} {digest}", names, labels, *firsts)


def compare_predictions(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Compares runs that predicted the same images.

    Args:
        runs: best first.

    Returns:
        One entry per set of images, the one with most runs first, in plain Python for the page.
    """
    groups: dict[str, dict[int, Predictions]] = {}
    for i, run in enumerate(runs):
        if (predictions := read_predictions(run)) is not None and len(predictions.labels):
            groups.setdefault(predictions.key, {})[i] = predictions
    return [_compare(runs, group) for group in sorted(groups.values(), key=len, reverse=True)]


def _compare(runs: Sequence[Run], group: dict[int, Predictions]) -> dict[str, Any]:
    first = next(iter(group.values()))
    classes_RN = np.stack([predictions.classes for predictions in group.values()])
    correct_RN = classes_RN == first.labels
    near = range(min(len(group), MAX_REFERENCES))
    probabilities_RN = np.stack([predictions.probabilities for predictions in group.values()])[list(near)]
    shown_classes = _classes_with_most_errors(first, classes_RN)
    return {
        "runs": list(group),
        "images": len(first.labels),
        "accuracy": correct_RN.mean(axis=1).tolist(),
        "classes": list(first.class_names),
        "pairs": _pairs(compare_pairs(correct_RN)),
        "confusion": {
            "classes": shown_classes.tolist(),
            "counts": [_confusion(first, classes_RN[r], shown_classes) for r in near],
        },
        "disagreements": _disagreements(runs[next(iter(group))], first, classes_RN[list(near)], probabilities_RN),
    }


def _pairs(pairs: Pairs) -> dict[str, Any]:
    """Returns, for each of the best runs against all runs, counts, p-values and intervals."""
    found: dict[str, Any] = {"wins": [], "losses": [], "p": [], "adjusted": [], "low": [], "high": []}
    for r in range(min(len(pairs.wins), MAX_REFERENCES)):
        wins, losses = pairs.wins[r], pairs.wins[:, r]
        low, high = difference_interval(wins, losses, pairs.images, seed=r)
        values = {
            "wins": wins,
            "losses": losses,
            "p": pairs.p[r],
            "adjusted": pairs.adjusted[r],
            "low": low,
            "high": high,
        }
        for name, row in values.items():
            found[name].append([float(f"{value:.4g}") for value in row])
    return found | {
        "different": int(np.triu(pairs.different, k=1).sum()),
        "tested": int(len(pairs.p) * (len(pairs.p) - 1) / 2),
    }


def _classes_with_most_errors(first: Predictions, classes_RN: np.ndarray) -> np.ndarray:
    """Returns the classes of the confusion matrices, in their order."""
    count = max(len(first.class_names), int(first.labels.max()) + 1, int(classes_RN.max()) + 1)
    if count <= MAX_CLASSES:
        return np.arange(count)
    errors = np.zeros(count, dtype=np.int64)
    for classes_N in classes_RN[:MAX_REFERENCES]:
        wrong = classes_N != first.labels
        errors += np.bincount(first.labels[wrong], minlength=count) + np.bincount(classes_N[wrong], minlength=count)
    return np.sort(np.argsort(-errors, kind="stable")[:MAX_CLASSES])


def _confusion(first: Predictions, classes_N: np.ndarray, shown: np.ndarray) -> list[list[int]]:
    """Returns counts [true class, predicted class] of the shown classes; the last column has those of all other predictions."""
    rows, columns = (np.searchsorted(shown, values) for values in (first.labels, classes_N))
    inside = np.isin(first.labels, shown)
    columns = np.where(np.isin(classes_N, shown), columns, len(shown))
    counts = np.zeros((len(shown), len(shown) + 1), dtype=np.int64)
    np.add.at(counts, (rows[inside], columns[inside]), 1)
    return counts.tolist()


def _disagreements(run: Run, first: Predictions, classes_RN: np.ndarray, probabilities_RN: np.ndarray) -> dict[str, Any]:
    """Returns the images on which the best runs do not all agree, first those that about half of them classify correctly."""
    differs = np.flatnonzero((classes_RN != classes_RN[0]).any(axis=0))
    right = (classes_RN[:, differs] == first.labels[differs]).sum(axis=0)
    differs = differs[np.argsort(-np.minimum(right, len(classes_RN) - right), kind="stable")]
    chosen = differs[:MAX_IMAGES]
    index, paths = _names(run.folder / PREDICTIONS, chosen)
    return {
        "total": len(differs),
        "index": index,
        "path": paths,
        "thumbnail": thumbnails(paths, run.record.get("config.data.root")),
        "label": first.labels[chosen].tolist(),
        "class": classes_RN[:, chosen].tolist(),
        "probability": probabilities_RN[:, chosen].round(3).tolist(),
    }


def _names(file: Path, rows: np.ndarray) -> tuple[list[int], list[str]]:
    """Returns positions and names of images."""
    import pyarrow.parquet as pq

    table = pq.ParquetFile(file).read(columns=["index", "path"]).take(rows)
    return table["index"].to_pylist(), [str(name) for name in table["path"].to_pylist()]
