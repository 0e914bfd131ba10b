"""What differs in Swin-MLP: windows of learned weights instead of attention, shifted by padding."""

import copy

import pytest
import torch
import torch.nn.functional as F

from swin_lab import Backbone, SwinConfig, SwinTransformer, create_model, packed_weights
from swin_lab.errors import UserError
from swin_lab.models.inspection import inspect
from swin_lab.models.window_mlp import WindowMlp, zero_padding

TINY = {
    "token_mixer": "mlp",
    "img_size": 64,
    "embed_dim": 16,
    "depths": (2, 2),
    "num_heads": (2, 4),
    "window_size": 4,
    "num_classes": 5,
    "drop_path_rate": 0.0,
}


def tiny(**changes):
    torch.manual_seed(0)
    model = SwinTransformer(SwinConfig(**TINY | changes))
    for stage in model.stages:
        for block in stage.blocks:
            torch.nn.init.normal_(block.attn.weight, std=0.3)
            torch.nn.init.normal_(block.attn.bias, std=0.3)
    return model


def layer(window=(4, 4), shifted=False):
    """Returns a layer in double precision with 8 channels and 2 heads."""
    torch.manual_seed(0)
    made = WindowMlp(8, 2, window, shifted).double()
    torch.nn.init.normal_(made.weight)
    torch.nn.init.normal_(made.bias)
    return made


def images(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_one_window_is_a_grouped_convolution_over_its_tokens():
    """Written out: token i of head h is the sum over tokens j of weight[h, i, j] times token j, plus bias[h, i]."""
    made, x = layer((2, 3)), images(2, 2, 3, 8, dtype=torch.float64)
    weight, bias, tokens = made.weight.reshape(2, 6, 6), made.bias.reshape(2, 6), x.reshape(2, 6, 8)
    heads = [torch.einsum("ij,bjd->bid", weight[h], tokens[..., 4 * h : 4 * h + 4]) + bias[h][:, None] for h in (0, 1)]
    torch.testing.assert_close(made(x).reshape(2, 6, 8), torch.cat(heads, -1), atol=1e-12, rtol=0)


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (3, 9), (1, 1), (5, 4)])
@pytest.mark.parametrize("shifted", [False, True])
def test_any_map_is_that_of_a_map_of_whole_windows_with_zeros_around(size, shifted):
    """The windows of the larger map are those of the smaller one, so that its zeros are the padding."""
    made, x = layer(shifted=shifted), images(1, *size, 8, dtype=torch.float64)
    if shifted and min(size) <= 4:
        made.shift = tuple(0 if side <= 4 else 2 for side in size)  # One window along an axis is not shifted.
    larger = F.pad(x, (0, 0, 8, 12 - size[1] % 4, 8, 12 - size[0] % 4))
    torch.testing.assert_close(layer(shifted=shifted)(x), made(larger)[:, 8 : 8 + size[0], 8 : 8 + size[1]], atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("size", "shift", "expected"),
    [
        ((8, 8), (0, 0), ((0, 0), (0, 0))),
        ((8, 8), (2, 2), ((2, 2), (2, 2))),
        ((7, 10), (2, 2), ((2, 3), (2, 0))),
        ((4, 12), (2, 2), ((0, 0), (2, 2))),
        ((3, 5), (2, 2), ((0, 1), (2, 1))),
    ],
)
def test_padding_completes_the_first_and_the_last_windows(size, shift, expected):
    assert zero_padding(size, (4, 4), shift) == expected


def test_published_shifts_are_three_of_seven_and_four_of_eight():
    """The official code pads window - shift in front and shift behind."""
    assert zero_padding((56, 56), (7, 7), (3, 3)) == ((4, 3), (4, 3))
    assert zero_padding((64, 64), (8, 8), (4, 4)) == ((4, 4), (4, 4))


@pytest.mark.parametrize(("shifted", "rows", "columns"), [(False, slice(0, 4), slice(4, 8)), (True, slice(2, 6), slice(2, 6))])
def test_a_token_reaches_exactly_its_window(shifted, rows, columns):
    made, x = layer(shifted=shifted), images(1, 8, 8, 8, dtype=torch.float64)
    other = x.clone()
    other[:, 3, 5] += 1
    reached = (made(x) != made(other)).any(-1)[0]
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[rows, columns] = True
    assert torch.equal(reached, expected)


def test_every_parameter_gets_a_finite_gradient_that_is_not_all_zero():
    model = tiny()
    F.cross_entropy(model(images(4, 3, 64, 64)), torch.arange(4)).backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


def test_images_of_any_size_have_logits_and_features():
    model = tiny().eval()
    assert [tuple(x.shape) for x in model.features(images(1, 3, 50, 70))] == [(1, 16, 13, 18), (1, 32, 7, 9)]
    assert [tuple(x.shape) for x in Backbone(model)(images(1, 3, 8, 30))] == [(1, 16, 2, 8), (1, 32, 1, 4)]


def test_compiled_and_checkpointed_networks_have_the_same_gradients():
    image, grads, one_stage = images(2, 3, 36, 52), [], {"depths": (2,), "num_heads": (2,)}
    for checkpointing in (False, True):
        model = tiny(activation_checkpointing=checkpointing, **one_stage).train()
        model(image).square().sum().backward()
        grads.append([parameter.grad for parameter in model.parameters()])
    compiled = tiny(**one_stage).train()
    compiled.compile(backend="eager", fullgraph=True)
    compiled(image).square().sum().backward()
    grads.append([parameter.grad for parameter in compiled.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(grads[0], grads[1], strict=True))
    torch.testing.assert_close(grads[0], grads[2], atol=1e-5, rtol=1e-5)


def test_packed_weights_give_the_same_logits():
    model, image = tiny().eval(), images(2, 3, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = model(image)
        with packed_weights(model):
            torch.testing.assert_close(model(image), expected, atol=0.02 * float(expected.abs().max()), rtol=0)


def test_torch_func_differentiates_the_network():
    model = tiny().eval()
    parameters = dict(model.named_parameters())

    def loss(values, image):
        return torch.func.functional_call(model, values, (image[None],)).square().sum()

    batch = images(2, 3, 32, 32)
    per_image = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, batch)
    expected = torch.func.grad(loss)(parameters, batch[1])
    for name, gradient in expected.items():
        torch.testing.assert_close(per_image[name][1], gradient, atol=1e-4, rtol=1e-4)


def test_freezing_and_layers_are_those_of_attention():
    model = tiny()
    model.freeze_stages(1)
    assert not model.stages[0].blocks[1].attn.weight.requires_grad
    assert model.stages[1].blocks[0].attn.weight.requires_grad
    assert [model.layer_of(f"stages.{i}.blocks.{j}.attn.weight") for i in (0, 1) for j in (0, 1)] == [1, 2, 3, 4]


def test_a_copy_is_independent():
    model = tiny()
    other = copy.deepcopy(model)
    torch.nn.init.zeros_(other.stages[0].blocks[0].attn.weight)
    assert model.stages[0].blocks[0].attn.weight.any()


def test_weights_are_initialised_as_in_the_official_code():
    weights = create_model("swin_mlp_tiny_c24_patch4_window8_256").stages[0].blocks[0].attn
    assert float(weights.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert not weights.bias.any()


def test_attention_cannot_be_looked_at():
    with pytest.raises(UserError, match="Swin-MLP, which has no attention"):
        inspect(tiny(), images(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "token_mixer=mlp is Swin-MLP, which has the blocks of version=1"),
        ({"qkv_bias": False}, "qkv_bias=false has no effect with token_mixer=mlp"),
        ({"attention_backend": "sdpa"}, "attention_backend=sdpa has no effect with token_mixer=mlp"),
        ({"pretrained_window_sizes": 4}, "is for version=2"),
        ({"token_mixer": "conv"}, "token_mixer=conv is unknown; choose one of attention, mlp"),
    ],
)
def test_values_that_have_no_effect_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        tiny(**changes)
