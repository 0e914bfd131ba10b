"""Swin-MLP against the formulas of the official code: logits, gradients, keys, shapes, weight decay and cost."""

import pytest
import torch
from official_swin_mlp import official_logits, official_macs, official_shapes

from swin_lab import SwinConfig, SwinTransformer, create_model, load_model, save_weights
from swin_lab.models import count_macs, list_models, model_config
from swin_lab.training.optim import parameter_groups

SIZES = {"depths": (2, 3, 2), "heads": (2, 4, 2), "window": 4}
"""Maps of 16, 8 and 4 tokens: the last one has one window, which is not shifted."""


def network(seed=0):
    torch.manual_seed(seed)
    config = SwinConfig(
        token_mixer="mlp",
        img_size=64,
        embed_dim=16,
        depths=SIZES["depths"],
        num_heads=SIZES["heads"],
        window_size=SIZES["window"],
        num_classes=5,
        drop_path_rate=0.0,
    )
    return randomised(SwinTransformer(config))


@torch.no_grad()
def randomised(model):
    """Sets weights with which every part has an effect of order one."""
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        else:
            torch.nn.init.normal_(parameter, mean=float(name.endswith("weight")), std=0.3)
    return model


def official_file(model, folder):
    return save_weights(model, folder / "official.pth", "official")


def images(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_logits_and_gradients_are_those_of_the_official_formulas(tmp_path):
    """In fp32; the differences are those of another order of sums."""
    model, image = network(), images(3, 3, 64, 64)
    state = {name: tensor.requires_grad_() for name, tensor in torch.load(official_file(model, tmp_path))["model"].items()}
    actual, expected = model(image), official_logits(state, image, **SIZES)
    assert expected.std() > 0.1
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)
    actual.square().sum().backward()
    expected.square().sum().backward()
    theirs = load_model({name: tensor.grad for name, tensor in state.items()}).state_dict()
    for name, parameter in model.named_parameters():
        scale = float(parameter.grad.abs().max())
        torch.testing.assert_close(parameter.grad, theirs[name], atol=1e-5 * scale, rtol=0, msg=name)


@pytest.mark.parametrize(
    "name",
    ["swin_mlp_tiny_c24_patch4_window8_256", pytest.param("swin_mlp_base_patch4_window7_224", marks=pytest.mark.slow)],
)
def test_a_published_variant_has_the_logits_of_the_official_formulas(name, tmp_path):
    torch.manual_seed(0)
    model, config = randomised(create_model(name)).eval(), model_config(name)
    state = torch.load(official_file(model, tmp_path))["model"]
    image = images(1, 3, *config.image_size)
    with torch.no_grad():
        actual = model(image)
        expected = official_logits(state, image, config.depths, config.num_heads, config.windows[0][0])
    torch.testing.assert_close(actual, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


def test_an_official_file_has_exactly_the_keys_and_shapes_of_the_official_code(tmp_path):
    content = torch.load(official_file(network(), tmp_path), weights_only=True)
    assert list(content) == ["model"]
    expected = official_shapes(4, 16, SIZES["depths"], SIZES["heads"], SIZES["window"], 5)
    assert {name: tuple(tensor.shape) for name, tensor in content["model"].items()} == expected


@pytest.mark.parametrize("name", list_models("swin_mlp*"))
def test_parameters_and_cost_of_a_variant_are_those_of_the_official_formulas(name):
    config = model_config(name)
    sizes = (config.embed_dim, config.depths, config.num_heads, config.window_size, 1000)
    shapes = official_shapes(4, *sizes)
    assert config.num_parameters == sum(torch.Size(shape).numel() for shape in shapes.values())
    assert count_macs(config) == official_macs(config.img_size, *sizes)


def test_the_official_code_decays_matrices_and_convolutions_and_nothing_else():
    """`set_weight_decay` leaves out vectors and biases; the weights of a window MLP have three axes."""
    model = network()
    names = {parameter: name for name, parameter in model.named_parameters()}
    decayed, plain = (sorted(names[p] for p in group["params"]) for group in parameter_groups(model, 0.05))
    assert "stages.0.blocks.0.attn.weight" in decayed
    assert "stages.0.blocks.0.attn.bias" in plain
    assert decayed == sorted(name for name, parameter in model.named_parameters() if parameter.ndim > 1)
