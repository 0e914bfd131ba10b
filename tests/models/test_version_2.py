"""What differs in Swin V2 (arXiv 2111.09883): cosine attention, continuous position bias, norms at the end of branches."""

import math

import pytest
import torch

from swin_lab import SwinConfig, SwinTransformer
from swin_lab.errors import UserError
from swin_lab.models.attention import CosineWindowAttention
from swin_lab.ops.geometry import log_spaced_offsets, relative_position_index

TINY = {
    "version": 2,
    "img_size": 64,
    "embed_dim": 16,
    "depths": (2, 2),
    "num_heads": (2, 4),
    "window_size": 8,
    "num_classes": 5,
}
CPU = torch.device("cpu")


def tiny(**changes):
    torch.manual_seed(0)
    return SwinTransformer(SwinConfig(**TINY | changes))


def images(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def attention(window=(4, 4), trained=None, **changes):
    torch.manual_seed(0)
    made = CosineWindowAttention(
        **{"dim": 8, "num_heads": 2, "window": window, "shifted": False, "qkv_bias": True, "backend": "reference"} | changes,
        trained_window=trained or window,
    )
    for parameter in made.cpb_mlp.parameters():
        torch.nn.init.normal_(parameter)
    return made


def test_a_new_block_is_an_identity():
    model = tiny(depths=(1, 1))
    x_BHWC = model.embed(images(1, 3, 64, 64))
    assert torch.equal(model.stages[0].blocks[0](x_BHWC), x_BHWC)


def test_norms_of_blocks_are_initialised_with_zero_and_the_others_with_one():
    weights = {name: tensor for name, tensor in tiny().named_parameters() if "norm" in name and name.endswith("weight")}
    zero = {name for name, tensor in weights.items() if not tensor.any()}
    assert zero == {name for name in weights if ".blocks." in name}
    assert all((weights[name] == 1).all() for name in set(weights) - zero)


def test_a_branch_ends_with_its_norm():
    block = tiny().stages[0].blocks[0]
    torch.nn.init.normal_(block.norm1.weight)
    torch.nn.init.normal_(block.norm2.weight)
    x_BHWC = images(1, 16, 16, 16)
    after = x_BHWC + block.norm1(block.attn(x_BHWC))
    torch.testing.assert_close(block(x_BHWC), after + block.norm2(block.mlp(after)), atol=1e-6, rtol=0)


def test_merging_applies_the_linear_layer_before_the_norm():
    merge = tiny().stages[1].merge
    x_BHWC = images(1, 4, 6, 16)
    corners = [x_BHWC[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
    expected = merge.norm(merge.reduction(torch.cat(corners, dim=-1)))
    torch.testing.assert_close(merge(x_BHWC), expected, atol=1e-6, rtol=0)


def test_one_window_attends_by_cosines():
    """This is equation 2 written out for a map of one window."""
    layer = attention()
    torch.nn.init.normal_(layer.q_bias)
    torch.nn.init.normal_(layer.v_bias)
    x_TC = images(16, 8)
    q, k, v = (x_TC @ layer.qkv.weight.T + torch.cat([layer.q_bias, torch.zeros(8), layer.v_bias])).chunk(3, dim=-1)
    table, index = layer.bias_table(), relative_position_index((4, 4), CPU)
    heads = []
    for h in range(2):
        part = slice(4 * h, 4 * h + 4)
        cosines = torch.cosine_similarity(q[:, None, part], k[None, :, part], dim=-1)
        logits = cosines * math.exp(layer.logit_scale[h].item()) + table[index, h]
        heads.append(logits.softmax(-1) @ v[:, part])
    expected = layer.proj(torch.cat(heads, dim=-1))
    torch.testing.assert_close(layer(x_TC.reshape(1, 4, 4, 8)).reshape(16, 8), expected, atol=1e-5, rtol=0)


def test_the_logit_scale_starts_at_ten_and_ends_at_a_hundred():
    layer = attention()
    assert layer.logit_scale.exp().flatten().tolist() == pytest.approx([10, 10])
    x_BHWC = images(1, 4, 4, 8)
    with torch.no_grad():
        layer.logit_scale.fill_(math.log(100))
        at_limit = layer(x_BHWC)
        layer.logit_scale.fill_(9.0)
    beyond = layer(x_BHWC)
    torch.testing.assert_close(beyond, at_limit, atol=1e-6, rtol=0)
    beyond.sum().backward()
    assert not layer.logit_scale.grad.any()


@pytest.mark.parametrize(
    ("window", "trained"), [((4, 4), (4, 4)), ((3, 5), (3, 5)), ((16, 16), (12, 12)), ((4, 6), (2, 9)), ((1, 1), (1, 1))]
)
def test_offsets_are_log_spaced_and_scaled_to_the_window_of_the_training(window, trained):
    offsets = log_spaced_offsets(window, trained, CPU)
    expected = []
    for row in range(1 - window[0], window[0]):
        for column in range(1 - window[1], window[1]):
            scaled = [8 * d / max(t - 1, 1) for d, t in zip((row, column), trained, strict=True)]
            expected.append([math.copysign(math.log2(1 + abs(x)) / 3, x) for x in scaled])
    torch.testing.assert_close(offsets, torch.tensor(expected), atol=1e-6, rtol=0)


def test_the_farthest_offset_is_log2_of_9_over_3_and_larger_in_windows_larger_than_trained():
    assert log_spaced_offsets((12, 12), (12, 12), CPU).max().item() == pytest.approx(math.log2(9) / 3)
    assert log_spaced_offsets((16, 16), (12, 12), CPU).max().item() == pytest.approx(math.log2(1 + 8 * 15 / 11) / 3)


def test_the_bias_table_is_sixteen_times_the_sigmoid_of_the_mlp_of_the_offsets():
    layer = attention((3, 5))
    first, _, second = layer.cpb_mlp
    hidden = (log_spaced_offsets((3, 5), (3, 5), CPU) @ first.weight.T + first.bias).clamp(min=0)
    torch.testing.assert_close(layer.bias_table(), 16 * torch.sigmoid(hidden @ second.weight.T), atol=1e-5, rtol=0)
    assert layer.bias_table().shape == (5 * 9, 2)


def test_pretrained_windows_do_not_change_parameters():
    network = tiny(window_size=16, img_size=128, pretrained_window_sizes=[8, 4])
    assert network.config.pretrained_windows == ((8, 8), (4, 4))
    assert {k: v.shape for k, v in network.state_dict().items()} == {k: v.shape for k, v in tiny().state_dict().items()}


@pytest.mark.parametrize("zero", [0, [0, 0]])
def test_zero_means_the_window_itself_after_shrinking(zero):
    assert tiny(window_size=16, pretrained_window_sizes=zero).config.pretrained_windows == ((16, 16), (8, 8))


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"version": 3}, "version=3"),
        ({"version": True}, "version=true"),
        ({"version": 1, "pretrained_window_sizes": 4}, "is for version=2"),
        ({"pretrained_window_sizes": [4]}, "1 entries for 2 stages"),
        ({"pretrained_window_sizes": [4, -1]}, "-1"),
        ({"pretrained_window_sizes": "4"}, "pretrained_window_sizes"),
    ],
)
def test_invalid_versions_and_pretrained_windows_are_refused(arguments, part):
    with pytest.raises(UserError, match=part):
        tiny(**arguments)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_logits_stay_near_those_of_fp32(dtype):
    model = tiny(num_classes=3).eval()
    for name, parameter in model.named_parameters():
        if ".norm" in name and name.endswith("weight"):
            torch.nn.init.ones_(parameter)
    image = images(2, 3, 60, 52)  # padded: keys of length zero
    with torch.no_grad():
        exact = model(image)
        with torch.autocast("cpu", dtype):
            rounded = model(image)
    torch.testing.assert_close(rounded.float(), exact, atol=0.05, rtol=0.05)


def test_the_bias_is_computed_in_fp32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        table = attention().bias_table()
    assert table.dtype == torch.float32


def changed_in_place(layer):
    with torch.no_grad():
        layer.cpb_mlp[0].bias.add_(1)


def loaded(layer):
    layer.load_state_dict({name: tensor + 1 for name, tensor in layer.state_dict().items()})


def replaced(layer):
    layer.cpb_mlp[2].weight = torch.nn.Parameter(torch.randn_like(layer.cpb_mlp[2].weight))


def in_double(layer):
    layer.double()


@pytest.mark.parametrize("change", [changed_in_place, loaded, replaced, in_double])
def test_in_evaluation_the_bias_follows_every_change_of_the_mlp(change):
    layer, image = attention().eval(), images(1, 8, 8, 8)
    with torch.no_grad():
        before = layer(image)
        change(layer)
        after = layer(image.to(layer.proj.weight.dtype))
    assert after.dtype != before.dtype or not torch.equal(after, before)


def test_in_evaluation_gradients_are_those_of_training():
    layer, image = attention(), images(1, 8, 8, 8)
    expected = torch.autograd.grad(layer.train()(image).square().sum(), layer.parameters())
    with torch.no_grad():
        layer.eval()(image)
    actual = torch.autograd.grad(layer(image).square().sum(), layer.parameters())
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_gradients_of_the_image_are_available_after_a_use_in_inference_mode():
    layer = attention().eval().requires_grad_(False)
    with torch.inference_mode():
        layer(images(1, 8, 8, 8))
    image = images(1, 8, 8, 8).requires_grad_()
    layer(image).sum().backward()
    assert image.grad.isfinite().all()


def test_torch_export_includes_the_bias_table():
    model = tiny().eval()
    image = images(2, 3, 60, 52)
    with torch.no_grad():
        expected = model(image)
        program = torch.export.export(model, (image,)).module()
        torch.testing.assert_close(program(image), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("backend", ["reference", "sdpa", "products"])
def test_large_activations_give_finite_outputs_and_gradients_under_autocast_in_float16(backend):
    """Squares of queries of 300 overflow float16, and a scale of 100 with a bias of 16 is steep; within 0.05 of fp32."""
    layer = attention(backend=backend, shifted=True)
    with torch.no_grad():
        layer.logit_scale.fill_(math.log(100))
        layer.qkv.weight[:16] *= 300
    image = images(2, 8, 8, 8)
    expected = layer(image).detach()
    with torch.autocast("cpu", torch.float16):
        out = layer(image)
        assert layer.bias_table().dtype == torch.float32
    out.float().square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())
    torch.testing.assert_close(out.float(), expected, atol=0.05, rtol=0.05)
