"""Which weights decay, and how the learning rate scales with the global batch (FACTS c1, c3, c5)."""

import pytest
import torch
from engines import adamw
from torch import nn

from swin_lab import SwinConfig, SwinTransformer, create_model
from swin_lab.errors import UserError
from swin_lab.training.optim import parameter_groups

PUBLISHED = {  # FACTS c1: parameter tensors, decayed ones, and the numbers in these
    "tiny": (173, 53, 28_199_424),
    "small": (329, 101, 49_433_088),
    "base": (329, 101, 87_537_664),
    "large": (329, 101, 196_187_136),
}


def recipe(**changes):
    return adamw(**{"lr": 5e-4, "reference_batch": 512, "lr_scaling": "linear", "weight_decay": 0.05} | changes)


@pytest.fixture(scope="module")
def tiny():
    return SwinTransformer(SwinConfig(img_size=32, embed_dim=16, depths=(2, 2), num_heads=(1, 2), window_size=4, num_classes=3))


def names(network):
    """Returns the names of the decayed and of the other parameters."""
    by_identity = {id(parameter): name for name, parameter in network.named_parameters()}
    return [{by_identity[id(parameter)] for parameter in group["params"]} for group in parameter_groups(network, 0.05)]


@pytest.mark.parametrize("variant", sorted(PUBLISHED))
def test_as_many_tensors_and_weights_decay_as_in_the_official_code(variant):
    with torch.device("meta"):
        decayed, plain = parameter_groups(create_model(f"swin_{variant}_patch4_window7_224"), 0.05)
    counts = len(decayed["params"]) + len(plain["params"]), len(decayed["params"])
    assert (*counts, sum(parameter.numel() for parameter in decayed["params"])) == PUBLISHED[variant]


def test_only_the_first_group_decays(tiny):
    assert [group["weight_decay"] for group in parameter_groups(tiny, 0.05)] == [0.05, 0.0]


def test_every_parameter_is_in_exactly_one_group(tiny):
    decayed, plain = names(tiny)
    assert not decayed & plain
    assert decayed | plain == {name for name, _ in tiny.named_parameters()}


@pytest.mark.parametrize("kind", ["relative_position_bias_table", "norm1.weight", "norm2.bias", "qkv.bias", "proj.bias"])
def test_bias_tables_norms_and_biases_do_not_decay(tiny, kind):
    decayed, plain = names(tiny)
    assert any(name.endswith(kind) for name in plain)
    assert not any(name.endswith(kind) for name in decayed)


@pytest.mark.parametrize("name", ["embed.proj.weight", "head.weight", "stages.1.merge.reduction.weight"])
def test_weights_of_convolutions_and_linear_layers_decay(tiny, name):
    assert name in names(tiny)[0]


def test_a_bias_of_several_axes_does_not_decay():
    network = nn.Module()
    network.inner = nn.Module()
    network.inner.bias = nn.Parameter(torch.zeros(2, 2))
    assert names(network) == [set(), {"inner.bias"}]


def test_frozen_parameters_are_in_the_optimizer_and_are_not_changed():
    """They can then be unfrozen later with the current learning rate; until then, weight decay does not change them either."""
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    network[0].requires_grad_(False)
    assert names(network) == [{"0.weight", "1.weight"}, {"0.bias", "1.bias"}]
    before = [parameter.clone() for parameter in network.parameters()]
    optimizer = torch.optim.AdamW(parameter_groups(network, 0.5), lr=0.1)
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    changed = [not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True)]
    assert changed == [False, False, True, True]


@pytest.mark.parametrize(
    ("scaling", "global_batch", "expected"),
    [
        ("linear", 1024, 1e-3),
        ("linear", 4096, 4e-3),
        ("linear", 512, 5e-4),
        ("linear", 64, 6.25e-5),
        ("sqrt", 2048, 1e-3),
        ("sqrt", 128, 2.5e-4),
        ("none", 4096, 5e-4),
    ],
)
def test_the_learning_rate_follows_the_global_batch(scaling, global_batch, expected):
    assert recipe(lr_scaling=scaling).scaled_lr(global_batch) == pytest.approx(expected, rel=1e-12)


def test_the_optimizer_has_the_values_of_the_recipe(tiny):
    optimizer = recipe(betas=[0.8, 0.99], eps=1e-6).build(tiny, 1024, allow_fused=False)
    for group in optimizer.param_groups:
        assert (group["lr"], group["betas"], group["eps"]) == (1e-3, (0.8, 0.99), 1e-6)


@pytest.mark.parametrize("fused", [False, True])
def test_one_step_has_the_size_of_the_learning_rate_and_decays_only_decayed_weights(fused):
    """With a gradient of ones, the first step of AdamW is lr * sign(gradient), after weights shrink by lr * decay."""
    layer = nn.Linear(2, 2)
    nn.init.ones_(layer.weight)
    nn.init.ones_(layer.bias)
    optimizer = recipe(lr=0.1, lr_scaling="none", weight_decay=0.5).build(layer, 1, fused)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert layer.weight.detach().unique().tolist() == pytest.approx([1 * (1 - 0.1 * 0.5) - 0.1], abs=1e-6)  # float32
    assert layer.bias.detach().unique().tolist() == pytest.approx([1 - 0.1], abs=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lr": -1e-3}, r"optimizer\.lr=-0\.001"),
        ({"lr": float("nan")}, r"optimizer\.lr=nan"),
        ({"lr": "fast"}, r"optimizer\.lr=fast"),
        ({"lr": True}, r"optimizer\.lr=true"),
        ({"weight_decay": -0.1}, r"optimizer\.weight_decay=-0\.1"),
        ({"reference_batch": 0}, r"optimizer\.reference_batch=0"),
        ({"reference_batch": 51.2}, r"optimizer\.reference_batch=51\.2"),
        ({"lr_scaling": "liner"}, r"optimizer\.lr_scaling=liner is unknown; did you mean linear"),
        ({"lr_scaling": None}, r"optimizer\.lr_scaling=null"),
    ],
    ids=str,
)
def test_an_invalid_value_is_refused_by_name(wrong, message):
    with pytest.raises(UserError, match=message):
        recipe(**wrong)
