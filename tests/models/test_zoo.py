"""Models by name."""

import inspect
from dataclasses import fields

import pytest
import torch

import swin_lab
from swin_lab import SwinConfig, SwinTransformer, create_model, list_models
from swin_lab.errors import UserError
from swin_lab.models import model_config

MICRO = "swin_micro_patch4_window4_32"


def test_the_package_offers_its_models_directly():
    assert swin_lab.create_model is create_model
    assert swin_lab.SwinTransformer is SwinTransformer


def test_a_misspelt_argument_is_a_type_error_that_names_it():
    with pytest.raises(TypeError, match="windows_size"):
        create_model(MICRO, windows_size=4)


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(UserError, match=r"swin_tiny_patch4_windw7_224.*did you mean swin_tiny_patch4_window7_224\?"):
        create_model("swin_tiny_patch4_windw7_224")


def test_a_name_without_a_near_one_is_refused_with_those_of_the_same_beginning():
    with pytest.raises(UserError, match=r"choose one of .* or 27 others") as refusal:
        create_model("swinv2_###########################################")
    assert all(f"swinv2_base_window{window}" in str(refusal.value) for window in ("12_192", "16_256", "8_256"))
    assert len(list_models()) == 35


def test_the_base_file_of_the_variants_is_not_a_model():
    with pytest.raises(UserError, match="_swin"):
        create_model("_swin")
    assert not [name for name in list_models() if name.startswith("_")]


def test_names_are_listed_in_order():
    assert list_models() == sorted(list_models())


def test_names_are_listed_by_pattern():
    assert list_models("swin_tiny*") == ["swin_tiny_c24_patch4_window8_256", "swin_tiny_patch4_window7_224"]
    assert list_models("swin_*384") == ["swin_base_patch4_window12_384", "swin_large_patch4_window12_384"]
    assert len(list_models("swinv2*")) == 18
    assert list_models("no such*") == []


def test_create_model_takes_every_hyper_parameter():
    assert set(inspect.signature(create_model).parameters) == {"name", *(field.name for field in fields(SwinConfig))}


def test_an_argument_replaces_the_value_of_the_variant():
    model = create_model(MICRO, num_classes=7, depths=[1, 3], num_heads=[4, 8], window_size=[2, 4], in_channels=1)
    assert model.head.out_features == 7
    assert [len(stage.blocks) for stage in model.stages] == [1, 3]
    assert [stage.blocks[0].attn.window for stage in model.stages] == [(2, 2), (4, 4)]
    assert model(torch.ones(1, 1, 32, 32)).shape == (1, 7)


def test_false_and_zero_replace_the_value_of_the_variant():
    model = create_model(MICRO, num_classes=0, qkv_bias=False, drop_path_rate=0.0)
    assert isinstance(model.head, torch.nn.Identity)
    block = model.stages[-1].blocks[-1]
    assert block.attn.qkv.bias is None
    assert block.drop_path.p == 0


def test_a_thousand_classes_are_the_default():
    assert create_model(MICRO).head.out_features == 1000


def test_the_configuration_of_a_model_makes_the_model():
    config = model_config(MICRO)
    shapes = {name: p.shape for name, p in SwinTransformer(config).named_parameters()}
    assert shapes == {name: p.shape for name, p in create_model(MICRO).named_parameters()}
