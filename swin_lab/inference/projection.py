"""Places vectors in a plane so that near ones stay near."""

import warnings
from importlib.util import find_spec
from typing import Literal

import numpy as np

from swin_lab.errors import UserError
from swin_lab.inference.vectors import unit

Method = Literal["tsne", "umap"]

PERPLEXITY, NEIGHBOURS = 30, 15
"""Defaults of t-SNE and UMAP, for sets that are large enough."""
COMPONENTS = 50
"""Dimensions that are left for t-SNE by a principal component analysis, as van der Maaten and Hinton (2008) do."""
MIN_IMAGES = 5
"""Fewer images have no neighbourhood."""


def check_method(method: Method) -> None:
    """Raises UserError if the package of a method is not installed."""
    if method == "umap" and find_spec("umap") is None:
        raise UserError("--method umap needs the package umap-learn: pip install 'swin-lab[map]'; or choose --method tsne")


def project(vectors_NC: np.ndarray, method: Method, seed: int) -> np.ndarray:
    """Returns coordinates (N, 2) of vectors, of which the directions count; the same for the same seed.

    Args:
        vectors_NC: float32.
        method: t-SNE of scikit-learn, or UMAP of umap-learn.
        seed: of the random numbers.

    Raises:
        UserError: there are too few vectors.
    """
    count = len(vectors_NC)
    if count < MIN_IMAGES:
        raise UserError(f"a map needs {MIN_IMAGES} images at least, not {count}")
    directions_NC = unit(vectors_NC)
    return _tsne(directions_NC, seed) if method == "tsne" else _umap(directions_NC, seed)


def _tsne(directions_NC: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    count, size = directions_NC.shape
    if min(count, size) > COMPONENTS:
        directions_NC = PCA(COMPONENTS, random_state=seed).fit_transform(directions_NC)
    # t-SNE's own initialisation by PCA would fail for vectors of one value; the first two columns are the same.
    perplexity = min(PERPLEXITY, (count - 1) / 3)
    init = "pca" if size > 1 else "random"
    coordinates: np.ndarray = TSNE(perplexity=perplexity, init=init, random_state=seed).fit_transform(directions_NC)
    return coordinates


def _umap(directions_NC: np.ndarray, seed: int) -> np.ndarray:
    import umap

    neighbours = min(NEIGHBOURS, len(directions_NC) - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # UMAP warns of small sets, and of its own dependencies.
        mapper = umap.UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1)  # Several threads would not repeat a result.
        coordinates: np.ndarray = mapper.fit_transform(directions_NC)
    return coordinates
