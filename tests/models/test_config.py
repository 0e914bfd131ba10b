"""Hyper-parameters: invalid ones are refused before a network is built, and what follows from valid ones."""

import json
from dataclasses import FrozenInstanceError, fields, replace

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from swin_lab import SwinConfig, SwinTransformer, create_model, list_models
from swin_lab.errors import UserError
from swin_lab.models import count_macs, model_config
from swin_lab.paths import CONF

POSITIVE, PER_STAGE = (
    "must be a positive integer",
    "a list with one entry per stage, each a positive integer or [height, width]",
)
EACH_POSITIVE, RATE = "must be a list, each entry a positive integer", "must be a number of at least 0 and below 1"
VERSIONS = "must be 1 (Swin Transformer) or 2 (Swin Transformer V2)"
NO_HEAD, SIDES = "must be a positive integer, or 0 for a model without head", "must be a positive integer or [height, width]"

UNUSUAL = SwinConfig(
    version=2,
    img_size=[224, 192],
    window_size=[7, [7, 6], 7, 7],
    pretrained_window_sizes=[0, [7, 6], 5, 0],
    num_classes=0,
    qkv_bias=False,
    mlp_ratio=3.5,
)

REFUSED = [
    ({"num_heads": [3, 6, 12, 25]}, "num_heads=[3, 6, 12, 25]: 25 heads do not divide the 768 channels", "24"),
    ({"embed_dim": 100}, "3 heads do not divide the 100 channels of stage 1 (embed_dim=100)", "[1, 2, 4, 5"),
    ({"depths": [2, 2]}, "depths=[2, 2] has 2 stages and num_heads=[3, 6, 12, 24] has 4", "one entry per stage"),
    ({"depths": []}, "depths=[]", "for example [2,2,6,2]"),
    ({"num_heads": []}, "num_heads=[]", "one entry per stage"),
    ({"depths": [2, 0, 6, 2]}, "depths=[2, 0, 6, 2]", EACH_POSITIVE),
    ({"depths": [2, 2, -6, 2]}, "depths=[2, 2, -6, 2]", EACH_POSITIVE),
    ({"depths": [2, 2, 6.0, 2]}, "depths=[2, 2, 6.0, 2]", EACH_POSITIVE),
    ({"depths": 4}, "depths=4", EACH_POSITIVE),
    ({"num_heads": 4}, "num_heads=4", EACH_POSITIVE),
    ({"num_heads": "4"}, "num_heads='4'", EACH_POSITIVE),
    ({"num_heads": [3, 0, 12, 24]}, "num_heads=[3, 0, 12, 24]", EACH_POSITIVE),
    ({"window_size": 0}, "window_size=0 must be a positive integer", PER_STAGE),
    ({"window_size": -7}, "window_size=-7 must be a positive integer", PER_STAGE),
    ({"window_size": 7.0}, "window_size=7.0 must be a positive integer", PER_STAGE),
    ({"window_size": True}, "window_size=true must be a positive integer", PER_STAGE),
    ({"window_size": "7"}, "window_size='7' must be a positive integer", PER_STAGE),
    ({"window_size": [7, 7, 7.5, 7]}, "window_size=[7, 7, 7.5, 7]", PER_STAGE),
    ({"window_size": [7, 7, 0, 7]}, "window_size=[7, 7, 0, 7]", PER_STAGE),
    ({"window_size": [4, 8]}, "window_size=[4, 8] has 2 entries for 4 stages", "[[4, 8], [4, 8], [4, 8], [4, 8]]"),
    ({"window_size": [[4, 8, 2]] * 4}, "window_size=[[4, 8, 2], ", PER_STAGE),
    ({"patch_size": 0}, "patch_size=0", POSITIVE),
    ({"patch_size": -4}, "patch_size=-4", POSITIVE),
    ({"patch_size": 4.0}, "patch_size=4.0", POSITIVE),
    ({"embed_dim": 0}, "embed_dim=0", POSITIVE),
    ({"embed_dim": -96}, "embed_dim=-96", POSITIVE),
    ({"in_channels": 0}, "in_channels=0", POSITIVE),
    ({"in_channels": -3}, "in_channels=-3", POSITIVE),
    ({"img_size": 0}, "img_size=0", SIDES),
    ({"img_size": [224, -224]}, "img_size=[224, -224]", SIDES),
    ({"img_size": 224.0}, "img_size=224.0", SIDES),
    ({"img_size": [224, 224, 3]}, "img_size=[224, 224, 3]", SIDES),
    ({"num_classes": -1}, "num_classes=-1", NO_HEAD),
    ({"num_classes": 10.5}, "num_classes=10.5", NO_HEAD),
    ({"num_classes": None}, "num_classes=null", NO_HEAD),
    ({"drop_path_rate": 1.5}, "drop_path_rate=1.5", RATE),
    ({"drop_path_rate": 1.0}, "drop_path_rate=1.0", RATE),
    ({"drop_path_rate": -0.1}, "drop_path_rate=-0.1", RATE),
    ({"drop_path_rate": float("nan")}, "drop_path_rate=nan", RATE),
    ({"mlp_ratio": 0}, "mlp_ratio=0", "must be a positive number"),
    ({"mlp_ratio": -4.0}, "mlp_ratio=-4.0", "must be a positive number"),
    ({"mlp_ratio": 0.001}, "mlp_ratio=0.001 gives an MLP without channels", "4.0"),
    ({"qkv_bias": 1}, "qkv_bias=1", "must be true or false"),
    ({"version": 3}, "version=3", VERSIONS),
    ({"version": True}, "version=true", VERSIONS),
    ({"version": 1.0}, "version=1.0", VERSIONS),
    ({"pretrained_window_sizes": 7}, "pretrained_window_sizes=7", "is for version=2"),
    ({"version": 2, "pretrained_window_sizes": [4]}, "pretrained_window_sizes=[4] has 1 entries", "one entry per stage"),
    ({"version": 2, "pretrained_window_sizes": [4, -1, 4, 4]}, "pretrained_window_sizes=[4, -1, 4, 4]", "non-negative integer"),
    ({"img_size": 10**21}, "img_size=1000000000000000000000 is too large", "exceeds 16384, the largest supported value"),
    ({"img_size": [224, 20_000]}, "img_size=[224, 20000] is too large: 20000 exceeds 16384", "largest supported"),
    ({"patch_size": 10**12}, "patch_size=1000000000000 is too large", "largest supported"),
    ({"in_channels": 10**12}, "in_channels=1000000000000 is too large", "largest supported"),
    ({"num_classes": 10**11}, "num_classes=100000000000 is too large", "largest supported"),
    ({"embed_dim": 99_999_999}, "embed_dim=99999999 is too large", "largest supported"),
    ({"depths": [10**9, 2, 2, 2]}, "depths=[1000000000, 2, 2, 2] is too large", "largest supported"),
    ({"depths": [900, 900, 6, 2]}, "depths=[900, 900, 6, 2] has 1808 blocks", "at most 1000"),
    ({"depths": [1] * 99, "num_heads": [3] * 99}, "depths has 99 entries", "at most 16 stages"),
    ({"num_heads": [3, 6, 12, 10**9]}, "num_heads=[3, 6, 12, 1000000000] is too large", "largest supported"),
    ({"window_size": 10**9}, "window_size=1000000000 is too large", "largest supported"),
    ({"window_size": 999, "img_size": 4096}, "window_size=999 gives windows of 999 tokens along a side", "at most 128"),
    ({"version": 2, "pretrained_window_sizes": 10**9}, "pretrained_window_sizes=1000000000 is too large", "largest"),
    ({"mlp_ratio": 1e5}, "mlp_ratio=100000.0 is too large", "largest supported"),
    ({"embed_dim": 9600}, "embed_dim=9600 with depths=[2, 2, 6, 2] and num_classes=1000 gives ", "at most 10,000,000,000"),
    ({"attention_backend": "flash"}, "'flash'", "choose one of auto, products, reference, sdpa, triton"),
]


@pytest.mark.parametrize(("wrong", "complaint", "remedy"), REFUSED, ids=[str(wrong) for wrong, _, _ in REFUSED])
def test_the_message_names_the_argument_its_value_and_a_remedy(wrong, complaint, remedy):
    with pytest.raises(UserError) as refusal:
        SwinConfig(**wrong)
    message = str(refusal.value)
    assert complaint in message
    assert remedy in message
    assert message.count("\n") < 3


def test_a_variant_by_name_is_checked_the_same_way():
    with pytest.raises(UserError, match="num_heads"):
        create_model("swin_micro_patch4_window4_32", num_heads=[3, 4])


# Derived values


def squares(*sides):
    return tuple((side, side) for side in sides)


@pytest.mark.parametrize(
    ("name", "maps", "windows", "channels"),
    [  # arXiv 2103.14030, Table 7, and arXiv 2111.09883; the windows as in the official configurations (timm for S3)
        ("swin_tiny_patch4_window7_224", (56, 28, 14, 7), (7, 7, 7, 7), (96, 192, 384, 768)),
        ("swin_large_patch4_window12_384", (96, 48, 24, 12), (12, 12, 12, 12), (192, 384, 768, 1536)),
        ("swin_s3_small_224", (56, 28, 14, 7), (14, 14, 14, 7), (96, 192, 384, 768)),
        ("swinv2_tiny_window16_256", (64, 32, 16, 8), (16, 16, 16, 8), (96, 192, 384, 768)),
        ("swinv2_base_window12to24_192to384", (96, 48, 24, 12), (24, 24, 24, 12), (128, 256, 512, 1024)),
    ],
)
def test_maps_windows_and_channels_of_published_variants(name, maps, windows, channels):
    config = model_config(name)
    assert config.maps == squares(*maps)
    assert config.windows == squares(*windows)
    assert config.channels == channels


@pytest.mark.parametrize("name", list_models("swinv2*"))
def test_the_bias_of_v2_is_scaled_to_the_pretrained_windows_or_else_to_the_windows(name):
    config = model_config(name)
    assert config.pretrained_windows == (squares(12, 12, 12, 6) if "12to" in name else config.windows)


def test_maps_round_up_at_every_stage():
    config = SwinConfig(img_size=[33, 70], window_size=20)
    assert config.image_size == (33, 70)
    assert config.maps == ((9, 18), (5, 9), (3, 5), (2, 3))
    assert config.windows == config.maps


def test_one_number_is_a_square():
    assert SwinConfig(img_size=96).image_size == (96, 96)
    assert SwinConfig(window_size=[7, [2, 5], 7, 7]).windows == ((7, 7), (2, 5), (7, 7), (7, 7))


def test_an_entry_of_zero_stands_for_the_window_of_its_stage():
    config = SwinConfig(version=2, img_size=256, window_size=16, pretrained_window_sizes=[12, 0, [12, 8], 0])
    assert config.pretrained_windows == ((12, 12), (16, 16), (12, 8), (8, 8))


def test_derived_values_of_every_variant_are_read_without_building_a_network(monkeypatch):
    built = []
    monkeypatch.setattr(SwinTransformer, "__init__", lambda *_: built.append(1))
    for name in list_models():
        config = model_config(name)
        assert all((config.image_size, config.maps, config.windows, config.pretrained_windows, config.channels))
        assert count_macs(config) > 0
    assert built == []


@pytest.mark.parametrize("config", [*map(model_config, list_models()), UNUSUAL], ids=[*list_models(), "unusual"])
def test_the_number_of_parameters_is_that_of_the_network(config):
    with torch.device("meta"):
        network = SwinTransformer(config)
    assert config.num_parameters == sum(parameter.numel() for parameter in network.parameters())


# A value object


def test_equal_hyper_parameters_are_equal_and_have_one_hash():
    lists = SwinConfig(depths=[2, 2, 18, 2], window_size=[7, [7, 7], 7, 7])
    tuples = SwinConfig(depths=(2, 2, 18, 2), window_size=(7, (7, 7), 7, 7))
    assert lists == tuples
    assert hash(lists) == hash(tuples)
    assert lists != SwinConfig()


def test_reading_a_derived_value_changes_neither_equality_nor_hash():
    read, untouched = SwinConfig(), SwinConfig()
    assert read.windows
    assert read.maps
    assert read == untouched
    assert hash(read) == hash(untouched)


def test_a_configuration_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        SwinConfig().embed_dim = 128


def test_replace_derives_everything_anew_and_leaves_the_original_unchanged():
    original = SwinConfig()
    assert original.windows == squares(7, 7, 7, 7)
    larger = replace(original, img_size=384, window_size=12, embed_dim=128, num_heads=[4, 8, 16, 32])
    assert larger.windows == squares(12, 12, 12, 12)
    assert larger.channels == (128, 256, 512, 1024)
    assert original == SwinConfig()


def test_replace_checks_the_new_values():
    with pytest.raises(UserError, match=r"depths=\[2, 2\] has 2 stages"):
        replace(SwinConfig(), depths=[2, 2])


@pytest.mark.parametrize("config", [*map(model_config, list_models()), UNUSUAL], ids=[*list_models(), "unusual"])
@pytest.mark.parametrize(("write", "read"), [(json.dumps, json.loads), (yaml.safe_dump, yaml.safe_load)], ids=["JSON", "YAML"])
def test_as_dict_survives_a_round_trip(config, write, read):
    assert read(write(config.as_dict())) == config.as_dict()
    assert SwinConfig(**read(write(config.as_dict()))) == config


def test_a_network_has_the_configuration_that_it_was_built_from():
    config = model_config("swin_micro_patch4_window4_32")
    assert SwinTransformer(config).config is config


# conf/model


def swin_files():
    """Returns every file of conf/model that describes a SwinTransformer."""
    bases = {"_swin", "_swinv2"}
    files = sorted((CONF / "model").glob("*.yaml"))
    return [file for file in files if file.stem in bases or bases & set(OmegaConf.load(file).get("defaults") or [])]


@pytest.mark.parametrize("file", swin_files(), ids=lambda file: file.stem)
def test_a_file_of_conf_model_has_known_keys_only(file):
    assert set(OmegaConf.load(file)) - {"defaults", "_target_"} <= {field.name for field in fields(SwinConfig)}


@pytest.mark.parametrize("file", [file for file in swin_files() if not file.stem.startswith("_")], ids=lambda file: file.stem)
def test_a_file_of_conf_model_gives_a_valid_configuration(file):
    config = model_config(file.stem)
    own = {key: value for key, value in OmegaConf.to_container(OmegaConf.load(file)).items() if key != "defaults"}
    assert {key: config.as_dict()[key] for key in own} == own
    assert config.num_classes == 1000
