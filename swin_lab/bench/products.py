"""The matrix products of a network, run alone: how fast the network would be if everything else took no time."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_lab.bench.cost import Product


@dataclass(frozen=True)
class _Operands:
    """The factors of a product, and the gradient of its result."""

    product: Product
    x: Tensor
    w: Tensor
    bias: Tensor | None
    gradient: Tensor


class ProductsAlone:
    """Runs every matrix product of a step once, at the network's shapes, on random numbers of the dtype of the products.

    A linear layer is `F.linear` with its bias, the patch embedding a linear layer on patches, and a product of attention a
    batched product of all windows and heads. In training, each is followed by the two products of its backward pass: the
    gradient of the input (not for the patch embedding) and of the weights. Operands are contiguous and in the dtype of the
    products, results are newly allocated, and weights are not cast, so that this is what remains of a step without all else.

    Layers of one shape share their operands.

    Args:
        products: of a forward pass, see `swin_lab.bench.cost.matrix_products`.
        training: whether the products of the backward pass are run as well.
        device: "cpu" or "cuda".
        dtype: of the operands.
    """

    def __init__(self, products: Sequence[Product], *, training: bool, device: str, dtype: torch.dtype) -> None:
        self.training = training
        self.operands = [_random_operands(product, training, device, dtype) for product in products]

    def __call__(self) -> None:
        with torch.inference_mode():
            for operands in self.operands:
                run = _run_linear if operands.product.batches == 1 else _run_batched
                for _ in range(operands.product.count):
                    run(operands, self.training)


def _run_linear(operands: _Operands, training: bool) -> None:
    F.linear(operands.x, operands.w, operands.bias)
    if training:
        if operands.product.input_gradient:
            torch.mm(operands.gradient, operands.w)
        torch.mm(operands.gradient.t(), operands.x)


def _run_batched(operands: _Operands, training: bool) -> None:
    torch.bmm(operands.x, operands.w.transpose(1, 2))
    if training:
        torch.bmm(operands.gradient, operands.w)
        torch.bmm(operands.gradient.transpose(1, 2), operands.x)


def _random_operands(product: Product, training: bool, device: str, dtype: torch.dtype) -> _Operands:
    batch = () if product.batches == 1 else (product.batches,)
    random = lambda *shape: torch.randn(*shape, device=device, dtype=dtype)  # noqa: E731
    gradient = random(*batch, product.m, product.n) if training else random(0)
    bias = random(product.n) if product.bias else None
    return _Operands(product, random(*batch, product.m, product.k), random(*batch, product.n, product.k), bias, gradient)
