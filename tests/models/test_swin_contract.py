"""Properties of every SwinTransformer, tested on a network of a few thousand weights."""

import copy
import io

import pytest
import torch

from swin_lab import SwinConfig, SwinTransformer

TINY = {
    "img_size": 64,
    "embed_dim": 16,
    "depths": (2, 2, 2, 2),
    "num_heads": (1, 2, 4, 8),
    "window_size": 4,
    "num_classes": 5,
    "drop_path_rate": 0.0,
}


@pytest.fixture(params=[1, 2], ids=["V1", "V2"], autouse=True)
def version(request, monkeypatch):
    """Runs every test with both versions."""
    monkeypatch.setitem(TINY, "version", request.param)


def tiny(**changes):
    """Returns a network in which every part affects the logits; the initial norms of V2 are zero."""
    torch.manual_seed(0)
    model = SwinTransformer(SwinConfig(**TINY | changes))
    for block in (block for stage in model.stages for block in stage.blocks):
        torch.nn.init.ones_(block.norm1.weight)
        torch.nn.init.ones_(block.norm2.weight)
    return model


def images(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_logits_are_finite():
    assert tiny()(images(2, 3, 64, 64)).isfinite().all()


def test_every_parameter_gets_a_finite_gradient_that_is_not_all_zero():
    model = tiny()
    torch.nn.functional.cross_entropy(model(images(4, 3, 64, 64)), torch.arange(4)).backward()
    trained = [name for name, grad in gradients(model).items() if grad is not None and grad.isfinite().all() and grad.any()]
    assert trained == list(gradients(model))


def test_features_are_channels_first_maps_at_strides_4_8_16_and_32():
    maps = tiny().features(images(2, 3, 64, 96))
    assert [tuple(x.shape) for x in maps] == [(2, 16, 16, 24), (2, 32, 8, 12), (2, 64, 4, 6), (2, 128, 2, 3)]


def test_features_are_contiguous_in_memory():
    assert all(x.is_contiguous() for x in tiny().features(images(1, 3, 64, 64)))


def test_the_embedding_is_the_normalised_last_map_averaged_over_positions():
    model = tiny().eval()
    image = images(2, 3, 64, 64)
    last_BHWC = model.features(image)[-1].permute(0, 2, 3, 1)
    torch.testing.assert_close(model.embedding(image), model.norm(last_BHWC).mean(dim=(1, 2)), atol=1e-6, rtol=0)


def test_logits_are_the_head_of_the_embedding():
    model = tiny().eval()
    image = images(2, 3, 64, 64)
    assert torch.equal(model(image), model.head(model.embedding(image)))


def test_without_classes_the_logits_are_the_embedding():
    model = tiny(num_classes=0).eval()
    image = images(2, 3, 64, 64)
    assert torch.equal(model(image), model.embedding(image))
    assert model(image).shape == (2, 128)


@pytest.mark.parametrize("in_channels", [1, 5])
def test_images_may_have_other_than_three_channels(in_channels):
    assert tiny(in_channels=in_channels)(images(2, in_channels, 32, 32)).shape == (2, 5)


def test_queries_keys_and_values_can_have_no_bias():
    model = tiny(qkv_bias=False)
    assert not [name for name in model.state_dict() if name.endswith("qkv.bias")]
    assert model(images(1, 3, 50, 42)).isfinite().all()


@pytest.mark.parametrize("ratio", [2.0, 3.5])
def test_the_hidden_channels_of_the_mlp_follow_its_ratio(ratio):
    widths = [block.mlp.fc1.out_features for stage in tiny(mlp_ratio=ratio).stages for block in stage.blocks[:1]]
    assert widths == [int(ratio * channels) for channels in (16, 32, 64, 128)]


def test_an_image_gets_the_same_logits_alone_and_in_a_batch():
    model = tiny().eval()
    batch = images(3, 3, 64, 64)
    alone = torch.cat([model(image[None]) for image in batch])
    torch.testing.assert_close(model(batch), alone, atol=1e-6, rtol=0)


def test_images_of_a_batch_do_not_affect_each_other():
    model = tiny().eval()
    batch = images(2, 3, 64, 64)
    other = torch.stack([batch[0], images(3, 64, 64, seed=1)])
    assert torch.equal(model(batch)[0], model(other)[0])


def test_the_backends_give_the_same_logits():
    image = images(2, 3, 60, 52)
    reference, auto, sdpa = (tiny(attention_backend=name)(image) for name in ("reference", "auto", "sdpa"))
    torch.testing.assert_close(auto, reference, atol=1e-5, rtol=0)
    torch.testing.assert_close(sdpa, reference, atol=1e-5, rtol=0)


def train_once(activation_checkpointing):
    model = tiny(activation_checkpointing=activation_checkpointing, drop_path_rate=0.5).train()
    calls = []
    for stage in model.stages:
        for block in stage.blocks:
            block.register_forward_pre_hook(lambda *_: calls.append(1))
    torch.manual_seed(7)
    logits = model(images(4, 3, 64, 64))
    logits.square().sum().backward()
    return logits, gradients(model), len(calls)


def test_activation_checkpointing_changes_neither_logits_nor_gradients_even_with_drop_path():
    plain, plain_gradients, _ = train_once(activation_checkpointing=False)
    recomputed, recomputed_gradients, _ = train_once(activation_checkpointing=True)
    assert torch.equal(recomputed, plain)
    for name, grad in plain_gradients.items():
        torch.testing.assert_close(recomputed_gradients[name], grad, atol=1e-6, rtol=1e-5)


def test_activation_checkpointing_runs_each_block_twice_instead_of_storing_its_activations():
    assert (train_once(False)[2], train_once(True)[2]) == (8, 16)


def test_a_state_dict_contains_parameters_only():
    model = tiny()
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


def test_running_the_model_adds_nothing_to_its_state_dict():
    model = tiny()
    before = set(model.state_dict())
    model(images(1, 3, 50, 42))
    assert set(model.state_dict()) == before


def test_a_saved_state_dict_gives_the_same_logits_in_another_model():
    model, file, image = tiny().eval(), io.BytesIO(), images(2, 3, 64, 64)
    torch.save(model.state_dict(), file)
    file.seek(0)
    torch.manual_seed(1)
    other = SwinTransformer(SwinConfig(**TINY)).eval()
    assert not torch.equal(other(image), model(image))
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert torch.equal(other(image), model(image))


def test_a_deep_copy_is_the_same_network_with_weights_of_its_own():
    model, image = tiny().eval(), images(2, 3, 64, 64)
    twin, logits = copy.deepcopy(model), model(image)
    assert torch.equal(twin(image), logits)
    torch.nn.init.ones_(twin.head.bias)
    assert torch.equal(model(image), logits)
