"""The network as a backbone: maps, their description, norms, and frozen stages."""

import pytest
import torch

from swin_lab import Backbone, SwinConfig, SwinTransformer, create_model, list_models
from swin_lab.errors import UserError

TINY = {
    "img_size": 64,
    "embed_dim": 8,
    "depths": (1, 2, 1, 1),
    "num_heads": (1, 2, 2, 4),
    "window_size": 4,
    "num_classes": 5,
}
both_versions = pytest.mark.parametrize("version", [1, 2])


def tiny(**changes):
    torch.manual_seed(0)
    return SwinTransformer(SwinConfig(**TINY | changes))


def images(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@both_versions
@pytest.mark.parametrize("size", [(64, 64), (50, 70), (33, 128)])
def test_feature_info_describes_the_maps_at_any_size(version, size):
    model = tiny(version=version)
    for info, x in zip(model.feature_info, model.features(images(2, 3, *size)), strict=True):
        assert x.shape == (2, info.channels, -(-size[0] // info.stride), -(-size[1] // info.stride))
    assert [info.stride for info in model.feature_info] == [4, 8, 16, 32]


@pytest.mark.parametrize("stages", [[0], [3], [1, 3], [0, 1, 2, 3]])
def test_chosen_stages_are_those_of_all_stages(stages):
    model, image = tiny().eval(), images(1, 3, 64, 64)
    everything = model.features(image)
    chosen = model.features(image, stages)
    assert all(torch.equal(x, everything[i]) for i, x in zip(stages, chosen, strict=True))


def test_later_stages_are_not_computed():
    model = tiny()
    model.stages[2].register_forward_hook(lambda *_: pytest.fail("stage 2 was computed"))
    model.features(images(1, 3, 64, 64), [0, 1])


@pytest.mark.parametrize("stages", [[], [4], [-1], [1, 0], [1, 1], [0.5], [True], 2, "01"])
def test_stages_that_do_not_exist_are_refused(stages):
    for use in (lambda: tiny().features(images(1, 3, 64, 64), stages), lambda: Backbone(tiny(), stages)):
        with pytest.raises(UserError, match="stages="):
            use()


def test_norm_is_a_boolean():
    with pytest.raises(UserError, match="norm=no must be true or false"):
        Backbone(tiny(), norm="no")


def test_without_norms_a_backbone_gives_the_features():
    image, model = images(1, 3, 50, 70), tiny().eval()
    expected = model.features(image)
    assert all(torch.equal(a, b) for a, b in zip(Backbone(model, norm=False)(image), expected, strict=True))


def test_each_map_passes_its_own_norm_and_the_last_that_of_the_network():
    model = tiny().eval()
    torch.nn.init.normal_(model.norm.weight)
    image, final = images(1, 3, 64, 64), model.norm
    maps_BHWC = [x.permute(0, 2, 3, 1) for x in model.features(image)]
    backbone = Backbone(model).eval()
    torch.nn.init.normal_(backbone.norms[1].weight)
    expected = [norm(x).permute(0, 3, 1, 2) for norm, x in zip([*backbone.norms[:3], final], maps_BHWC, strict=True)]
    for a, b in zip(backbone(image), expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


@both_versions
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("stages", [None, [0], [1, 2], [0, 3]])
def test_every_parameter_of_a_backbone_gets_a_gradient(version, norm, stages):
    """Otherwise distributed training would wait for gradients that are never computed."""
    backbone = Backbone(tiny(version=version), stages, norm)
    sum(x.square().sum() for x in backbone(images(2, 3, 64, 64))).backward()
    assert [name for name, parameter in backbone.named_parameters() if parameter.grad is None] == []


def test_a_backbone_describes_the_maps_it_gives():
    backbone = Backbone(tiny(), [1, 3])
    maps = backbone(images(1, 3, 64, 64))
    assert [(info.stage, info.channels, info.stride) for info in backbone.feature_info] == [(1, 16, 8), (3, 64, 32)]
    assert [x.shape[1] for x in maps] == [16, 64]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_frozen_stages_get_no_gradient_and_the_others_do(count):
    model = tiny()
    model.freeze_stages(count)
    model(images(2, 3, 64, 64)).sum().backward()
    frozen = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    starts = ("embed.", *(f"stages.{i}." for i in range(count)))
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith(starts)}


def test_in_frozen_stages_drop_path_is_off_even_in_training():
    model = tiny(drop_path_rate=0.9)
    model.freeze_stages(4)
    model.train()
    image = images(4, 3, 64, 64)
    assert torch.equal(model(image), model(image))
    assert model.training
    assert not model.stages[0].training


def test_freezing_no_stage_unfreezes_all():
    model = tiny()
    model.freeze_stages(3)
    model.freeze_stages(0)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.stages[0].training


def test_what_a_user_has_frozen_stays_frozen():
    model = tiny()
    model.head.requires_grad_(False)
    model.freeze_stages(1)
    model.freeze_stages(0)
    assert not model.head.weight.requires_grad


@pytest.mark.parametrize("count", [-1, 1.0, True, None])
def test_a_number_of_frozen_stages_that_is_no_count_is_refused(count):
    with pytest.raises(UserError, match=r"count=.* must be a non-negative integer"):
        tiny().freeze_stages(count)


def test_more_stages_than_the_model_has_cannot_be_frozen():
    with pytest.raises(UserError, match="5 stages cannot be frozen; the model has 4"):
        tiny().freeze_stages(5)


def test_a_backbone_freezes_its_stages_and_not_its_norms():
    backbone = Backbone(tiny())
    backbone.freeze_stages(4)
    assert {name.split(".")[0] for name, p in backbone.named_parameters() if p.requires_grad} == {"norms"}


@pytest.mark.parametrize("name", list_models())
def test_the_configuration_of_a_model_makes_another_one(name):
    with torch.device("meta"):
        model = create_model(name)
        twin = SwinTransformer(SwinConfig(**model.config.as_dict()))
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in twin.state_dict().items()}
    assert model.config == twin.config


@both_versions
def test_a_backbone_leaves_its_network_unchanged(version):
    model, image = tiny(version=version).eval(), images(1, 3, 64, 64)
    logits, tensors = model(image), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    backbone = Backbone(model, [0, 2]).train()
    backbone.freeze_stages(1)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(1)
    assert torch.equal(model(image), logits)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in model.state_dict().items())
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_network_serves_several_backbones():
    model, image = tiny().eval(), images(1, 3, 64, 64)
    assert torch.equal(Backbone(model, [3])(image)[0], Backbone(model, [3])(image)[0])


def test_the_network_of_a_backbone_is_refused():
    with pytest.raises(UserError, match="already that of a backbone"):
        Backbone(Backbone(tiny()).network)


@pytest.mark.parametrize("training", [True, False])
def test_a_backbone_is_in_the_mode_of_its_network(training):
    assert Backbone(tiny().train(training)).training == training
