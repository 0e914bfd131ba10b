"""Shears and shifts along one axis with the pixels of Pillow's bicubic `Image.transform`, in about half the time.

Pillow computes 20 polynomials in double precision per value, although 16 of them add nothing if the other axis does not move.
"""

from typing import Any

import numpy as np
from PIL import Image

NEAR = 2e-3
"""Distance of a value in single precision from the next integer below which it is computed in double precision."""

MARGIN = 3
"""Columns beyond the border of an image that its pixels may depend on."""


def transform(image: Image.Image, matrix: tuple[float, ...], fill: Any, resample: Image.Resampling) -> Image.Image:
    """Applies `image.transform(image.size, AFFINE, matrix, ...)` to an image.

    Args:
        image: of any mode; those of mode RGB are transformed faster.
        matrix: the source of a pixel (x, y), as (a, b, c, d, e, f): (a x + b y + c, d x + e y + f).
        fill: colour of pixels whose source is outside the image.
        resample: resampling filter; bicubic is faster.
    """
    a, b, c, d, e, f = matrix
    result = None
    if image.mode == "RGB" and resample == Image.Resampling.BICUBIC and np.shape(fill) == (3,) and a == e == 1:
        if d == f == 0:
            result = _sheared(np.asarray(image), b, c, fill)
        elif b == c == 0:
            turned = _sheared(np.asarray(image.transpose(Image.Transpose.TRANSPOSE)), d, f, fill)
            result = turned.transpose(Image.Transpose.TRANSPOSE) if turned is not None else None
    if result is None:
        result = image.transform(image.size, Image.Transform.AFFINE, matrix, fillcolor=fill, resample=resample)
    return result


def _sheared(pixels_HW3: np.ndarray, slope: float, offset: float, fill: tuple[int, int, int]) -> Image.Image | None:
    """Resamples rows: the source of column x + 1/2 is x + 1/2 + slope (y + 1/2) + offset.

    Returns:
        The image, or None if rounding decides which pixels a row depends on.
    """
    height, width, _ = pixels_HW3.shape
    shift_H = slope * (np.arange(height) + 0.5) + offset
    whole_H = np.floor(shift_H).astype(np.int64)
    fraction_H = shift_H - whole_H
    if min(fraction_H.min(), (1 - fraction_H).min(), np.abs(fraction_H - 0.5).min()) < 1e-9 or np.abs(whole_H).max() >= width:
        return None
    row = 3 * width
    taps_HT = _neighbours(pixels_HW3, whole_H)
    # The polynomial of Pillow's Geometry.c, as a weight per neighbour. Its error in single precision is below 1e-3.
    t = fraction_H[:, None]
    weights = (-t + 2 * t**2 - t**3, 1 - 2 * t**2 + t**3, t + t**2 - t**3, t**3 - t**2)
    floats_HT = taps_HT.astype(np.float32)
    values = floats_HT[:, :row] * weights[0].astype(np.float32)
    values += np.float32(NEAR / 2)
    product = np.empty_like(values)
    for place in (1, 2, 3):
        np.multiply(floats_HT[:, 3 * place : 3 * place + row], weights[place].astype(np.float32), out=product)
        values += product
    np.clip(values, 0.5, 255.5, out=values)
    result = values.astype(np.uint8)
    np.subtract(values, result, out=product)
    near = product < NEAR
    near &= ~_flat(taps_HT, row)  # where the polynomial is exact
    _compute_exactly(result, taps_HT, np.flatnonzero(near), slope, offset)
    first_H, last_H = np.ceil(-shift_H - 0.5), np.ceil(width - shift_H - 0.5)
    columns = np.arange(row, dtype=np.float32)
    outside = columns < (3 * first_H).astype(np.float32)[:, None]
    outside |= columns >= (3 * last_H).astype(np.float32)[:, None]
    np.copyto(result, np.tile(np.array(fill, dtype=np.uint8), width), where=outside)
    return Image.fromarray(result.reshape(height, width, 3))


def _neighbours(pixels_HW3: np.ndarray, whole_H: np.ndarray) -> np.ndarray:
    """Returns for each row the sources of its pixels and the columns beside them, (H, 3 (W + 3)); borders are repeated.

    Values further from the border are undefined; nothing depends on them.
    """
    height, width, _ = pixels_HW3.shape
    before, after = max(0, -int(whole_H.min())) + MARGIN, max(0, int(whole_H.max())) + MARGIN
    padded = np.zeros((height, before + width + after, 3), dtype=np.uint8)
    padded[:, before : before + width] = pixels_HW3
    padded[:, before - MARGIN : before] = pixels_HW3[:, :1]
    padded[:, before + width : before + width + MARGIN] = pixels_HW3[:, -1:]
    starts_H = 3 * (np.arange(height) * padded.shape[1] + before + whole_H - 1)
    return np.lib.stride_tricks.sliding_window_view(padded.reshape(-1), 3 * (width + 3))[starts_H]


def _flat(taps_HT: np.ndarray, row: int) -> np.ndarray:
    """Returns where all four neighbours are equal, (H, row)."""
    flat: np.ndarray = taps_HT[:, :row] == taps_HT[:, 3 : 3 + row]
    for place in (1, 2):
        flat &= taps_HT[:, 3 * place : 3 * place + row] == taps_HT[:, 3 * place + 3 : 3 * place + 3 + row]
    return flat


def _compute_exactly(result: np.ndarray, taps_HT: np.ndarray, chosen: np.ndarray, slope: float, offset: float) -> None:
    """Replaces chosen values of the result by those in double precision, in Pillow's order of operations."""
    y, place = np.divmod(chosen, result.shape[1])
    source = (place // 3 + 0.5) + slope * (y + 0.5) + offset - 0.5
    t = source - np.floor(source)
    v1, v2, v3, v4 = (taps_HT[y, place + 3 * number].astype(np.float64) for number in range(4))
    exact = v2 + t * ((v3 - v1) + t * ((2 * (v1 - v2) + v3 - v4) + t * (v2 - v1 - v3 + v4)))
    result.reshape(-1)[chosen] = np.clip(exact, 0, 255).astype(np.uint8)
