"""Initial weights, drop path rates, and the devices and modes in which a network is built and first used."""

import pytest
import torch
from torch import nn

from swin_lab import SwinConfig, SwinTransformer, create_model


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return SwinTransformer(
        SwinConfig(img_size=64, embed_dim=32, depths=(2, 2), num_heads=(2, 4), num_classes=50, window_size=8)
    )


def tiny(**changes):
    torch.manual_seed(0)
    base = {"img_size": 32, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4, "num_classes": 3}
    return SwinTransformer(SwinConfig(**base | changes))


def blocks(model):
    return [block for stage in model.stages for block in stage.blocks]


def test_linear_weights_have_deviation_002_untruncated_at_two_deviations(model):
    weights = torch.cat([m.weight.flatten() for m in model.modules() if isinstance(m, nn.Linear)])
    assert weights.std().item() == pytest.approx(0.02, rel=0.02)
    assert abs(weights.mean().item()) < 5e-4
    assert weights.abs().max() > 0.06


def test_every_linear_layer_is_initialised_with_that_deviation(model):
    spread = {name: m.weight.std().item() for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    assert {name: std for name, std in spread.items() if not 0.018 < std < 0.022} == {}


def test_linear_biases_are_initialised_with_zero(model):
    assert not any(m.bias.any() for m in model.modules() if isinstance(m, nn.Linear) and m.bias is not None)


def test_initial_norms_are_plain_normalisation(model):
    for norm in (m for m in model.modules() if isinstance(m, nn.LayerNorm)):
        assert (norm.weight == 1).all()
        assert (norm.bias == 0).all()


def test_bias_tables_are_initialised_with_deviation_002(model):
    tables = torch.cat([block.attn.relative_position_bias_table.flatten() for block in blocks(model)])
    assert tables.std().item() == pytest.approx(0.02, rel=0.05)


def test_the_patch_convolution_has_torch_s_initialisation():
    """torch draws uniformly within 1 / sqrt(values per patch)."""
    weight, bound = tiny(embed_dim=128).embed.proj.weight, 48**-0.5
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_the_seed_determines_the_weights():
    assert all(torch.equal(a, b) for a, b in zip(tiny().parameters(), tiny().parameters(), strict=True))


def test_drop_path_grows_linearly_from_0_at_the_first_block_to_its_rate_at_the_last():
    rates = [block.drop_path.p for block in blocks(tiny(depths=(2, 4), drop_path_rate=0.5))]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5], abs=1e-6)


@pytest.mark.parametrize(("size", "step"), [("tiny", 0.0181818), ("small", 0.0130435), ("base", 0.0217391)])
def test_the_published_variants_raise_drop_path_by_the_published_step_per_block(size, step):
    with torch.device("meta"):
        rates = [block.drop_path.p for block in blocks(create_model(f"swin_{size}_patch4_window7_224"))]
    assert rates == pytest.approx([step * i for i in range(len(rates))], abs=2e-6)


def test_drop_path_is_off_in_evaluation():
    image = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    dropping, plain = tiny(drop_path_rate=0.9).eval(), tiny(drop_path_rate=0.0).eval()
    assert torch.equal(dropping(image), plain(image))


@pytest.mark.parametrize(("branch", "silent"), [("attn.proj", "mlp.fc2"), ("mlp.fc2", "attn.proj")])
def test_in_training_drop_path_leaves_out_a_branch_for_whole_images_and_scales_up_the_others(branch, silent):
    block = blocks(tiny(drop_path_rate=0.5))[-1].train()
    nn.init.normal_(block.get_submodule(branch).weight)
    nn.init.zeros_(block.get_submodule(silent).weight)
    x = torch.randn(64, 4, 4, 32, generator=torch.Generator().manual_seed(0))
    added = (block(x) - x).detach()
    always = block.eval()(x) - x
    dropped = (added == 0).flatten(1).all(dim=1)
    assert 16 < dropped.sum() < 48
    torch.testing.assert_close(added[~dropped], 2 * always[~dropped], atol=1e-5, rtol=1e-4)


def test_drop_path_lets_repeated_training_passes_differ():
    model, image = tiny(drop_path_rate=0.5).train(), torch.ones(8, 3, 32, 32)
    assert not torch.equal(model(image), model(image))


def test_a_model_built_on_the_meta_device_has_no_weights_yet():
    with torch.device("meta"):
        model = tiny(drop_path_rate=0.2)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert model(torch.empty(2, 3, 36, 60, device="meta")).shape == (2, 3)


def test_a_model_built_on_the_meta_device_has_the_drop_path_rates_of_any_other():
    with torch.device("meta"):
        model = tiny(drop_path_rate=0.3)
    assert [block.drop_path.p for block in blocks(model)] == pytest.approx([0.0, 0.1, 0.2, 0.3], abs=1e-6)


def trains(model, image):
    model.train()(image).square().sum().backward()
    return all(type(p.grad) is torch.Tensor and p.grad.isfinite().all() for p in model.parameters())


def with_unused_windows(window):
    """Constants of the geometry are cached for the whole process; these windows are in no other test."""
    return tiny(img_size=256, window_size=[window] * 2).eval()


def test_a_model_can_train_after_its_first_use_in_inference_mode():
    model, image = with_unused_windows((5, 6)), torch.ones(2, 3, 44, 52)
    with torch.inference_mode():
        model(image)
    assert trains(model, image)


@pytest.mark.parametrize(("window", "used_before"), [((6, 5), False), ((6, 7), True)])
def test_a_model_can_train_after_it_was_exported(window, used_before):
    model, image = with_unused_windows(window), torch.ones(2, 3, 52, 44)
    if used_before:
        model(image)
    exported = torch.export.export(model, (image,), strict=False).module()
    assert type(model(image)) is torch.Tensor
    torch.testing.assert_close(exported(image), model(image), atol=1e-6, rtol=0)
    assert trains(model, image)


@pytest.mark.parametrize(("window", "used_before"), [((2, 6), False), ((6, 2), True)])
def test_compiling_in_place_changes_neither_logits_nor_names_nor_the_next_model(window, used_before):
    torch.compiler.reset()
    model, twin = with_unused_windows(window), with_unused_windows(window)
    image, names = torch.ones(2, 3, 36, 60), list(model.state_dict())
    if used_before:
        model(image)
    model.compile(backend="eager")
    torch.testing.assert_close(model(image), twin(image), atol=1e-6, rtol=0)
    assert list(model.state_dict()) == names
    assert trains(twin, image)


def test_a_model_works_while_another_device_is_the_default():
    model = with_unused_windows((7, 6))
    with torch.device("meta"):
        assert model(torch.ones(1, 3, 36, 60, device="cpu")).isfinite().all()
