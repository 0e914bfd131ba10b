"""Splitting of the global batch over devices and accumulation steps."""

from dataclasses import dataclass
from math import ceil
from typing import Literal

from swin_lab.errors import UserError
from swin_lab.validation import PositiveInt, check_value

AUTO = "auto"
"""Value of max_device_batch for which the number is found by trials."""


@dataclass(frozen=True)
class Batching:
    """Describes a split: global_batch = devices * device_batch * accumulate."""

    global_batch: int
    devices: int
    device_batch: int
    accumulate: int

    def __str__(self) -> str:
        plural = "s" if self.devices > 1 else ""
        accumulated = f" x {self.accumulate} accumulated" if self.accumulate > 1 else ""
        return f"{self.global_batch} = {self.devices} device{plural} x {self.device_batch} images{accumulated}"


def split_batch(
    global_batch: int, devices: int, max_device_batch: int | Literal["auto"] | None, *, mixes: bool = False
) -> Batching:
    """Splits the global batch into the fewest accumulation steps of equal batches of at most `max_device_batch` images.

    Args:
        global_batch: images per optimizer update over all devices.
        devices: number of devices.
        max_device_batch: maximum number of images that one device processes at once. If None or auto, there is no limit.
        mixes: whether images are mixed with other images of the batch on the same device.

    Raises:
        UserError: a number is not positive; the global batch is not divisible by the devices, or it would take more than twice
            the accumulation steps that the limit makes necessary, and the message names the nearest batch sizes that do not;
            or a device would have no two images to mix.
    """
    check_value("global_batch", global_batch, PositiveInt)
    given = None if max_device_batch == AUTO else max_device_batch
    limited: int | None = check_value("max_device_batch", given, PositiveInt | None)
    if global_batch % devices:
        lower, upper = global_batch // devices, -(-global_batch // devices)
        nearest = _nearest([lower * devices, upper * devices])
        raise UserError(f"global_batch={global_batch} is not divisible by {devices} devices; the nearest are {nearest}")
    per_device = global_batch // devices
    limit = limited or per_device
    device_batch = _largest_part(per_device, limit)
    if device_batch is None:
        divisor = _largest_divisor(per_device, limit)
        lower = next(size for size in range(per_device, 0, -1) if _largest_part(size, limit))
        upper = next(size for size in range(per_device, 2 * per_device + 1) if _largest_part(size, limit))
        raise UserError(
            f"global_batch={global_batch} on {devices} device{'s' * (devices > 1)} with max_device_batch={limit} takes "
            f"{per_device // divisor} accumulated batches of {divisor}; the nearest that split well are "
            f"{_nearest([lower * devices, upper * devices])}"
        )
    batching = Batching(global_batch, devices, device_batch, per_device // device_batch)
    if mixes and device_batch == 1:
        raise UserError(
            f"mixing needs two images at once on a device, and global_batch is {batching}; "
            "raise max_device_batch or global_batch, or set mixing=none"
        )
    return batching


def possible_batches(global_batch: int, devices: int, *, mixes: bool = False) -> list[int]:
    """Returns the numbers of images that a device can process at once, ascending: the equal parts of what it gets of a batch.

    Args:
        global_batch: images per optimizer update over all devices, which `devices` divides.
        devices: number of devices.
        mixes: whether images are mixed with other images of the batch on the same device.
    """
    images = global_batch // devices
    return [size for size in range(2 if mixes else 1, images + 1) if images % size == 0]


def _largest_part(images: int, limit: int) -> int | None:
    """Returns the largest equal part within the limit. If it takes more than twice the necessary steps, returns None."""
    part = _largest_divisor(images, limit)
    return part if images // part <= 2 * ceil(images / limit) else None


def _largest_divisor(images: int, limit: int) -> int:
    return next(size for size in range(min(limit, images), 0, -1) if images % size == 0)


def _nearest(sizes: list[int]) -> str:
    return " or ".join(str(size) for size in sizes if size > 0)
