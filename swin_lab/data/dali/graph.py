"""The DALI graph: decode the crop, resize it, flip it, apply the operations. It needs the extra `dali`."""

from typing import Any

import numpy as np
from nvidia.dali import fn, math, pipeline_def, types

from swin_lab.data.dali.parameters import Kind

FILTERS = {
    "nearest": types.INTERP_NN,
    "bilinear": types.INTERP_LINEAR,
    "bicubic": types.INTERP_CUBIC,
    "lanczos": types.INTERP_LANCZOS3,
}
"""DALI's resampling filters by their names in torchvision."""

HARDWARE_SHARE = 0.75
"""Share of the JPEG files that the GPU's decoding engines take; its other cores and the host take the rest. 0.75 was NVIDIA's
fastest on an A100 (https://developer.nvidia.com/blog/loading-data-fast-with-dali-and-new-jpeg-decoder-in-a100)."""

SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], dtype=np.float32) / 13
"""Pillow's ImageFilter.SMOOTH, the other end of its Sharpness."""


def build(
    *,
    size: tuple[int, int],
    channels: int,
    max_operations: int,
    fill: tuple[int, int, int],
    batch_size: int,
    threads: int,
    device: int | None,
) -> Any:
    """Builds the pipeline.

    Args:
        size: height and width of the images after resizing, in pixels.
        channels: 3, or 1 for greyscale.
        max_operations: operations of an image at most.
        fill: RGB of the pixels that an affine operation takes from outside of the image, of values from 0 to 255.
        batch_size: images in a batch at most.
        threads: threads of the host.
        device: index of the CUDA device, or None for the host.

    Returns:
        A pipeline with the inputs `encoded` (bytes of a file), `anchor` and `shape` (top and left, height and width of the
        crop), `filter` (value of FILTERS), `horizontal`, `vertical` (1 or 0), and for each operation i `kind{i}` (value of
        Kind), `amount{i}` and `matrix{i}` (2, 3). Its output is (channels, H, W) of uint8.
    """
    pipeline = _graph(
        size,
        channels,
        max_operations,
        fill,
        device is not None,
        batch_size=batch_size,
        num_threads=threads,
        device_id=device,
    )
    pipeline.build()
    return pipeline


@pipeline_def(enable_conditionals=True, prefetch_queue_depth=1)  # With more, the first run takes several batches at once.
def _graph(size: tuple[int, int], channels: int, max_operations: int, fill: tuple[int, int, int], on_gpu: bool) -> Any:
    images = _decoded(on_gpu)
    images = fn.resize(images, size=list(size), interp_type=fn.cast(_input("filter"), dtype=types.INTERP_TYPE), antialias=True)
    images = fn.flip(images, horizontal=_input("horizontal"), vertical=_input("vertical"))
    for number in range(max_operations):
        images = _operation(
            images,
            _input(f"kind{number}"),
            _input(f"amount{number}", types.FLOAT),
            _input(f"matrix{number}", types.FLOAT, ndim=2),
            size,
            fill,
            on_gpu,
        )
    if channels == 1:
        images = fn.color_space_conversion(images, image_type=types.RGB, output_type=types.GRAY)
    return fn.transpose(images, perm=[2, 0, 1])


def _input(name: str, dtype: Any = types.INT32, ndim: int = 0) -> Any:
    return fn.external_source(name=name, dtype=dtype, ndim=ndim)


def _decoded(on_gpu: bool) -> Any:
    """Decodes the crop only. On a GPU, with its JPEG engines where it has them, and the chroma upsampling of libjpeg-turbo."""
    encoded, anchor, shape = _input("encoded", types.UINT8, 1), _input("anchor", ndim=1), _input("shape", ndim=1)
    if on_gpu:
        return fn.decoders.image_slice(
            encoded,
            anchor,
            shape,
            axis_names="HW",
            device="mixed",
            hw_decoder_load=HARDWARE_SHARE,
            jpeg_fancy_upsampling=True,
        )
    return fn.decoders.image_slice(encoded, anchor, shape, axis_names="HW")


def _operation(
    images: Any, kind: Any, amount: Any, matrix: Any, size: tuple[int, int], fill: tuple[int, int, int], on_gpu: bool
) -> Any:
    """Applies one operation to each image of the batch, each to the images of its kind only."""
    device = "gpu" if on_gpu else "cpu"
    if kind == int(Kind.NONE):
        result = images
    elif kind == int(Kind.AFFINE):
        result = _affine(images, matrix, fill, device)
    elif kind <= int(Kind.SHARPNESS):
        result = _enhanced(images, kind, amount, size, device)
    elif kind == int(Kind.AUTO_CONTRAST):
        result = _auto_contrast(images)
    elif kind == int(Kind.EQUALIZE):
        # DALI counts the values up to a value, Pillow those below it: the same for an inverted image, except for rounding.
        result = fn.cast(255 - fn.equalize(fn.cast(255 - images, dtype=types.UINT8)), dtype=types.UINT8)
    else:
        result = _pointwise(images, kind, amount, device)
    return result


def _affine(images: Any, matrix: Any, fill: tuple[int, int, int], device: str) -> Any:
    # DALI fills with one value for all channels, therefore with zero after the colour is subtracted.
    colour = types.Constant(np.array(fill, dtype=np.float32), device=device)
    warped = fn.warp_affine(images - colour, matrix=matrix, fill_value=0.0, interp_type=types.INTERP_LINEAR)
    return fn.cast(warped + colour, dtype=types.UINT8)


def _enhanced(images: Any, kind: Any, amount: Any, size: tuple[int, int], device: str) -> Any:
    """Blends images with black, their mean grey, their greyscale or their blurred version, as Pillow's ImageEnhance does."""
    factor = amount.gpu() if device == "gpu" else amount
    if kind == int(Kind.BRIGHTNESS):
        blended = images * factor
    elif kind == int(Kind.CONTRAST):
        grey = fn.color_space_conversion(images, image_type=types.RGB, output_type=types.GRAY)
        mean = math.floor(fn.reductions.mean(grey, keep_dims=True) + 0.5)
        blended = mean + factor * (images - mean)
    elif kind == int(Kind.COLOR):
        grey = fn.color_space_conversion(images, image_type=types.RGB, output_type=types.GRAY) * 1.0
        blended = grey + factor * (images - grey)
    else:
        smooth = _smoothed(images, size, device)
        blended = smooth + factor * (images - smooth)
    return fn.cast(math.floor(blended), dtype=types.UINT8)  # Pillow cuts the fraction off


def _smoothed(images: Any, size: tuple[int, int], device: str) -> Any:
    """Blurs images except for their outermost pixels, which Pillow keeps."""
    inside = np.zeros((*size, 1), dtype=np.float32)
    inside[1:-1, 1:-1] = 1
    mask = types.Constant(inside, device=device)
    blurred = math.floor(fn.filter(images, types.Constant(SMOOTH, device=device), dtype=types.FLOAT) + 0.5)
    return images + mask * (blurred - images)


def _auto_contrast(images: Any) -> Any:
    """Stretches each channel to 0 to 255; a channel of one value stays as it is."""
    low = fn.reductions.min(images, axis_names="HW", keep_dims=True)
    high = fn.reductions.max(images, axis_names="HW", keep_dims=True)
    flat = high == low
    scale = 255.0 / (high - low + flat)
    stretched = math.floor((images - low) * scale) + low * flat
    return fn.cast(stretched, dtype=types.UINT8)


def _pointwise(images: Any, kind: Any, amount: Any, device: str) -> Any:
    """Maps each value by itself: keeps its highest bits, or inverts or increases it."""
    number = fn.cast(amount, dtype=types.INT32)
    parameter = number.gpu() if device == "gpu" else number
    if kind == int(Kind.POSTERIZE):
        step = fn.cast(math.pow(2.0, 8 - amount), dtype=types.INT32)
        width = step.gpu() if device == "gpu" else step
        changed = images // width * width
    elif kind == int(Kind.SOLARIZE):
        below = images < parameter
        changed = below * images + (below ^ True) * (255 - images)
    else:
        changed = images + (images < 128) * parameter
    return fn.cast(changed, dtype=types.UINT8)
