"""Draws the map of a file of vectors."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from swin_lab.inference.projection import Method, project
from swin_lab.inference.thumbnails import Thumbnails, read_all
from swin_lab.inference.vectors import VectorFile, readable_labels
from swin_lab.inference.whole_files import written_whole
from swin_lab.report.embedding_map import Point, write_map

SIDE = 48
"""Longest side of an image in the page, in pixels."""
NAMES = {"tsne": "t-SNE", "umap": "UMAP"}


def draw_map(vectors: VectorFile, out: Path, method: Method, *, max_points: int, max_thumbnails: int, seed: int) -> str:
    """Writes the page.

    Args:
        vectors: the images.
        out: the page; an existing file is replaced.
        method: how they are placed.
        max_points: number of points; of more images, as many are chosen at random.
        max_thumbnails: number of images that the page contains; the points without one are chosen at random, too.
        seed: of the random numbers.

    Returns:
        What the page contains.

    Raises:
        UserError: there are too few vectors, or the page cannot be written.
    """
    generator = np.random.default_rng(seed)
    rows = np.sort(generator.permutation(vectors.rows)[:max_points])
    coordinates = project(vectors.vectors(rows), method, seed).tolist()
    paths = vectors.paths(rows)
    shown = np.sort(generator.permutation(len(rows))[:max_thumbnails])
    images = _images(paths, shown)
    words = readable_labels(vectors)
    labels = [words[label] for label in vectors.labels(rows)]
    points = [Point(x, y, paths[i], labels[i], images.get(i)) for i, (x, y) in enumerate(coordinates)]
    found = sum(image is not None for image in images.values())
    count = f"{len(rows):,} of {vectors.rows:,}" if len(rows) < vectors.rows else f"{vectors.rows:,}"
    note = f"{count} images, placed by {NAMES[method]} (seed {seed}). Only distances between "
    with written_whole(out) as unfinished:
        write_map(points, unfinished, title=vectors.file.name, note=f"{note}near points mean something.")
    return f"{count} images, {found:,} of them as thumbnails"


def _images(paths: Sequence[str], shown: np.ndarray) -> dict[int, Image.Image | None]:
    thumbnails = Thumbnails([paths[i] for i in shown], SIDE)
    images = dict(zip(shown.tolist(), read_all(thumbnails, [paths[i] for i in shown]), strict=True))
    thumbnails.name_missing()
    return images
