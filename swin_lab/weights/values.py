"""Which tensors of a file have values that a network can take."""

import torch
from torch import Tensor


def why_not_plain(tensor: Tensor) -> str | None:
    """Returns the reason why the values of a tensor cannot be read. If it is an ordinary tensor, returns None."""
    if tensor.is_nested:
        return "is a nested tensor"
    if tensor.layout is not torch.strided:
        return f"is sparse ({str(tensor.layout).removeprefix('torch.')}); save tensor.to_dense()"
    if tensor.device.type != "cpu":
        return f"has no values (device {tensor.device.type}); save the model after its weights were loaded"
    if tensor.is_quantized:
        return f"is quantized ({str(tensor.dtype).removeprefix('torch.')}); save tensor.dequantize()"
    return None


def why_unusable(tensor: Tensor) -> str | None:
    """Returns the reason why an ordinary tensor cannot be a weight. If it can, returns None."""
    if not tensor.is_floating_point():
        return f"has dtype {str(tensor.dtype).removeprefix('torch.')}"
    try:
        single = tensor.float()
    except NotImplementedError:  # torch cannot convert types of less than a byte.
        return f"has dtype {str(tensor.dtype).removeprefix('torch.')}"
    finite = single.isfinite()
    if bool(finite.all()):
        return None
    wrong = int((~finite).sum())
    if tensor.dtype == torch.float64 and bool(tensor.isfinite().all()):
        return f"contains {wrong} values beyond float32, which ends at {torch.finfo(torch.float32).max:.2g}"
    return f"contains {wrong} values that are NaN or infinite"


def same_values(first: object, second: object) -> bool:
    """Returns whether two entries of files are ordinary tensors of the same type, shape and values."""
    if not isinstance(first, Tensor) or not isinstance(second, Tensor) or why_not_plain(first) or why_not_plain(second):
        return False
    return first is second or (first.dtype == second.dtype and first.shape == second.shape and _equal(first, second))


def _equal(first: Tensor, second: Tensor) -> bool:
    """Compares bit for bit, so that NaN equals NaN."""
    a, b = (tensor.resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8) for tensor in (first, second))
    return a.equal(b)


def bytes_in_memory(tensor: Tensor) -> int:
    """Returns the size of an ordinary tensor in memory once it is copied, however little of it a file stores; 0 for others."""
    return 0 if why_not_plain(tensor) else tensor.numel() * tensor.element_size()
