"""What vectors are worth without training the network further: k-NN and linear-probe accuracy, with intervals."""

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from swin_lab.errors import UserError
from swin_lab.inference.neighbours import Index, Metric, nearest, vote, without_themselves
from swin_lab.inference.vectors import VectorFile, check_comparable
from swin_lab.intervals import wilson_interval

STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Inverse strengths C of the L2 penalty that are tried."""
HELD_OUT = 5
"""One of so many training images of a class chooses C."""
MAX_ITERATIONS = 1000


@dataclass(frozen=True)
class Accuracy:
    """Contains a share of images with its Wilson score interval of 95 % (Wilson 1927)."""

    correct: int
    images: int

    @property
    def share(self) -> float:
        """Returns the accuracy as a fraction."""
        return self.correct / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """Returns the bounds of the interval."""
        return wilson_interval(self.correct, self.images)

    def as_dict(self) -> dict[str, Any]:
        """Returns the accuracy as plain Python, for JSON."""
        return {"accuracy": self.share, "low": self.interval[0], "high": self.interval[1], "correct": self.correct}


@dataclass(frozen=True)
class LabelledSets:
    """Contains the classes of training and validation images as numbers.

    Args:
        classes: names of the training classes, sorted.
        train: (N,) indices of `classes`.
        val: (M,), the same; -1 for a class that no training image has, so that it cannot be predicted.
    """

    classes: np.ndarray
    train: np.ndarray
    val: np.ndarray

    @classmethod
    def of(cls, train: VectorFile, val: VectorFile) -> "LabelledSets":
        """Reads the labels of two files.

        Raises:
            UserError: the files cannot be compared, a label is unknown, or no class is in both.
        """
        check_comparable(train, val)
        classes, train_N = np.unique(train.known_labels(), return_inverse=True)
        names_M = classes[train_N] if val is train else val.known_labels()
        position_M = np.minimum(np.searchsorted(classes, names_M), len(classes) - 1)
        val_M = np.where(classes[position_M] == names_M, position_M, -1)
        if (val_M < 0).all():
            raise UserError(f"no class of {val.file}, such as {names_M[0]}, is in {train.file}, such as {classes[0]}")
        return cls(classes, train_N, val_M)

    @property
    def unseen(self) -> int:
        """Returns the number of validation images of classes that no training image has; they count as wrong."""
        return int((self.val < 0).sum())


def knn_accuracy(
    train: VectorFile, val: VectorFile | None, sets: LabelledSets, ks: Sequence[int], metric: Metric, index: Index
) -> dict[int, Accuracy]:
    """Classifies validation images by the votes of their nearest training images.

    Args:
        train: the training images.
        val: the validation images. If None, every training image is classified by the others.
        sets: labels of both.
        ks: numbers of neighbours, below the number of training images.
        metric: which of them are near.
        index: how they are found.
    """
    largest = max(ks)
    queries = (val or train).vectors()
    found = nearest(queries, train.blocks(), largest + (val is None), metric, index)
    rows_Qk = without_themselves(found) if val is None else found.rows
    classes_Qk = sets.train[rows_Qk]
    return {k: Accuracy(int((vote(classes_Qk[:, :k]) == sets.val).sum()), len(queries)) for k in ks}


@dataclass(frozen=True)
class LinearHead:
    """Contains a fitted linear layer: the logits of vectors x (M, C) are x W^T + b."""

    weight_KC: np.ndarray
    bias_K: np.ndarray


@dataclass(frozen=True)
class ProbeResult:
    """Contains the accuracy of a linear probe."""

    top1: Accuracy
    top5: Accuracy | None
    """None if there are five classes at most."""
    strength: float
    """The chosen C."""
    held_out: dict[float, Accuracy]
    """C -> accuracy on the training images that chose it."""
    converged: bool
    """Whether the last fit did, within the largest number of iterations."""
    head: LinearHead


def probe(train_NC: np.ndarray, val_MC: np.ndarray, sets: LabelledSets, seed: int = 0) -> ProbeResult:
    """Fits a linear classifier to the vectors of training images, and applies it to those of validation images.

    It is L2-penalised logistic regression on standardised values. C is the smallest of the best ones on a fifth of the training
    images of every class; the classifier is fitted again to all of them. The same arguments give the same result.

    Raises:
        UserError: there are fewer than two classes, or no class has two training images.
    """
    fit_n, chosen_n = held_out_rows(sets.train, seed)
    if len(sets.classes) < 2 or not len(chosen_n):
        raise UserError("a linear probe needs two classes and a class of two training images at least")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="sklearn", message="lbfgs failed to converge")
        probabilities = _Classifier(train_NC[fit_n], sets.train[fit_n])
        held_out = {}
        for strength in STRENGTHS:
            correct = probabilities(train_NC[chosen_n], strength).argmax(axis=1) == sets.train[chosen_n]
            held_out[strength] = Accuracy(int(correct.sum()), len(chosen_n))
            print(f"C={strength:<6g} {held_out[strength].share:.2%} of the held-out training images", file=sys.stderr)
        best = max(STRENGTHS, key=lambda strength: (held_out[strength].correct, -strength))
        final = _Classifier(train_NC, sets.train)
        order_M = np.argsort(-final(val_MC, best), axis=1, kind="stable")
    hits_M5 = order_M[:, :5] == sets.val[:, None]
    top5 = Accuracy(int(hits_M5.sum()), len(hits_M5)) if len(sets.classes) > 5 else None
    return ProbeResult(Accuracy(int(hits_M5[:, 0].sum()), len(hits_M5)), top5, best, held_out, final.converged, final.head)


class _Classifier:
    """Fits a classifier to vectors; called with others and with C, it returns their probabilities (M, classes)."""

    def __init__(self, vectors_NC: np.ndarray, classes_N: np.ndarray) -> None:
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        self._scaler = StandardScaler().fit(vectors_NC)
        self._vectors_NC, self._classes_N = self._scaler.transform(vectors_NC), classes_N
        self._model = LogisticRegression(max_iter=MAX_ITERATIONS, warm_start=True)  # The next C starts at the last solution.

    def __call__(self, vectors_MC: np.ndarray, strength: float) -> np.ndarray:
        self._model.set_params(C=strength).fit(self._vectors_NC, self._classes_N)
        probabilities: np.ndarray = self._model.predict_proba(self._scaler.transform(vectors_MC))
        return probabilities

    @property
    def head(self) -> LinearHead:
        """Returns the last fit as a layer for values that are not standardised."""
        weight_KC, bias_K = self._model.coef_, self._model.intercept_
        if len(weight_KC) == 1:  # Of two classes, scikit-learn has the logit of the second alone.
            weight_KC, bias_K = np.concatenate([0 * weight_KC, weight_KC]), np.concatenate([0 * bias_K, bias_K])
        weight_KC = weight_KC / self._scaler.scale_
        return LinearHead(weight_KC, bias_K - weight_KC @ self._scaler.mean_)

    @property
    def converged(self) -> bool:
        return bool(self._model.n_iter_.max() < MAX_ITERATIONS)


def held_out_rows(classes_N: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits images by class: a fifth of each class is held out, one at least if it has two images.

    Returns:
        The rows of the others, and of those that are held out.
    """
    generator = np.random.default_rng(seed)
    is_held_out_N = np.zeros(len(classes_N), dtype=bool)
    for number in np.unique(classes_N):
        rows = generator.permutation(np.flatnonzero(classes_N == number))
        is_held_out_N[rows[: max(len(rows) // HELD_OUT, int(len(rows) > 1))]] = True
    return np.flatnonzero(~is_held_out_N), np.flatnonzero(is_held_out_N)
