"""Weights that are packed once: the same results in every precision, nothing left behind."""

import pytest
import torch
from torch import nn

from swin_lab import create_model, packed_weights

needs_bf16 = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason="oneDNN does not support bfloat16 on this CPU",
)
SHAPE = {"embed_dim": 16, "depths": (2, 2), "num_heads": (1, 2), "num_classes": 5}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def model(version: int = 1) -> nn.Module:
    torch.manual_seed(0)
    return create_model("swin_micro_patch4_window4_32", version=version, **SHAPE).eval()


def layers_with_packed_weights(network: nn.Module) -> int:
    return sum(getattr(vars(module).get("forward"), "weight", None) is not None for module in network.modules())


@needs_bf16
@pytest.mark.parametrize(("version", "layers"), [(1, 18), (2, 18)])
def test_packed_weights_give_the_logits_of_the_network_in_bfloat16(version: int, layers: int) -> None:
    """4 linear layers in each of 4 blocks, merging and head; within 1 % of the largest logit, one rounding of bfloat16."""
    network = model(version)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = network(IMAGES)
        with packed_weights(network):
            actual = [network(IMAGES), network(IMAGES)]
            assert layers_with_packed_weights(network) == layers
    tolerance = 0.01 * float(expected.abs().max())
    torch.testing.assert_close(actual, [expected, expected], atol=tolerance, rtol=0)


@needs_bf16
def test_a_network_whose_weights_are_bfloat16_is_packed_too() -> None:
    network = model().to(torch.bfloat16)
    with torch.inference_mode():
        expected = network(IMAGES.bfloat16())
        with packed_weights(network):
            actual = network(IMAGES.bfloat16())
            assert layers_with_packed_weights(network) == 18
    torch.testing.assert_close(actual, expected, atol=0.01 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_other_precisions_are_computed_as_without_the_context(dtype: torch.dtype) -> None:
    network = model().to(dtype)
    with torch.no_grad(), packed_weights(network):
        inside = network(IMAGES.to(dtype))
        assert layers_with_packed_weights(network) == 0
    with torch.no_grad():
        assert torch.equal(inside, network(IMAGES.to(dtype)))


def test_gradients_inside_the_context_are_those_of_the_weights() -> None:
    network = model()
    gradients = []
    for context in (torch.enable_grad(), packed_weights(network)):
        network.zero_grad()
        with context, torch.autocast("cpu", torch.bfloat16):
            network(IMAGES).sum().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


@needs_bf16
def test_after_the_context_new_weights_count_and_no_key_has_changed() -> None:
    network = model()
    keys = list(network.state_dict())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        with packed_weights(network), packed_weights(network):
            before = network(IMAGES)
            assert list(network.state_dict()) == keys
        nn.init.zeros_(network.head.weight)
        nn.init.zeros_(network.head.bias)
        after = network(IMAGES)
    assert before.any()
    assert not after.any()


@needs_bf16
def test_a_network_of_another_library_is_packed_and_its_hooks_are_called() -> None:
    network = nn.Sequential(nn.Linear(8, 4), nn.GELU(), nn.Linear(4, 2)).eval()
    called = []
    network[2].register_forward_hook(lambda *_: called.append(True))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), packed_weights(network):
        assert network(torch.randn(0, 8)).shape == (0, 2)
        assert network(torch.randn(3, 8)).shape == (3, 2)
    assert called == [True, True]
