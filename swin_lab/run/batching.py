"""Splitting of the global batch over devices and accumulation steps."""

from dataclasses import dataclass

from swin_lab.errors import UserError
from swin_lab.validation import PositiveInt, check_value


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


def split_batch(global_batch: int, devices: int, max_device_batch: int | None) -> Batching:
    """Splits the global batch into the fewest accumulation steps of equal batches of at most `max_device_batch` images.

    Args:
        global_batch: images per optimizer update over all devices.
        devices: number of devices.
        max_device_batch: maximum number of images that one device processes at once. If None, there is no limit.

    Raises:
        UserError: a number is not positive, or the global batch is not divisible by the devices; the message names the nearest
            batch sizes that are.
    """
    check_value("global_batch", global_batch, PositiveInt)
    check_value("max_device_batch", max_device_batch, PositiveInt | None)
    if global_batch % devices:
        lower, upper = global_batch // devices * devices, -(-global_batch // devices) * devices
        nearest = f"{lower} or {upper}" if lower else str(upper)
        raise UserError(f"global_batch={global_batch} is not divisible by {devices} devices; the nearest are {nearest}")
    per_device = global_batch // devices
    limit = min(max_device_batch or per_device, per_device)
    device_batch = next(size for size in range(limit, 0, -1) if per_device % size == 0)
    return Batching(global_batch, devices, device_batch, per_device // device_batch)
