"""The global batch that a user asks for, cut into what one device takes at once."""

from dataclasses import dataclass

from swin_lab.errors import UserError, is_whole


@dataclass(frozen=True)
class Batching:
    """global_batch = devices * device_batch * accumulate."""

    global_batch: int
    devices: int
    device_batch: int
    accumulate: int

    def __str__(self) -> str:
        plural = "s" if self.devices > 1 else ""
        accumulated = f" x {self.accumulate} accumulated" if self.accumulate > 1 else ""
        return f"{self.global_batch} = {self.devices} device{plural} x {self.device_batch} images{accumulated}"


def cut(global_batch: int, devices: int, max_device_batch: int | None) -> Batching:
    """Fewest accumulation steps at which every device takes the same number of images, at most `max_device_batch`.

    Raises:
        UserError: a number is not positive, or the global batch cannot be shared out; names the nearest that can.
    """
    if not is_whole(global_batch) or global_batch < 1:
        raise UserError(f"global_batch={global_batch} is no whole number above zero")
    if max_device_batch is not None and (not is_whole(max_device_batch) or max_device_batch < 1):
        raise UserError(f"max_device_batch={max_device_batch} is no whole number above zero")
    if global_batch % devices:
        lower, upper = global_batch // devices * devices, -(-global_batch // devices) * devices
        nearest = f"{lower} or {upper}" if lower else str(upper)
        raise UserError(f"global_batch={global_batch} cannot be shared by {devices} devices; the nearest are {nearest}")
    per_device = global_batch // devices
    limit = min(max_device_batch or per_device, per_device)
    device_batch = next(size for size in range(limit, 0, -1) if per_device % size == 0)
    return Batching(global_batch, devices, device_batch, per_device // device_batch)
