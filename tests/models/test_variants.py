"""The numbers of the published variants: parameters, maps, windows and the files in conf/model."""

from dataclasses import dataclass
from functools import cache

import pytest
import torch
from omegaconf import OmegaConf

from swin_lab import SwinConfig, create_model, list_models
from swin_lab.models import model_config
from swin_lab.paths import CONF
from swin_lab.training.optim import parameter_groups

IMAGENET_22K = 21841


@dataclass(frozen=True)
class Published:
    parameters: int
    tensors: int
    side: int
    """Height and width of the image in pixels."""
    last_map: tuple[int, int]
    """Side in tokens, and channels."""
    without_head: int | None = None
    with_22k_head: int | None = None


PUBLISHED = {
    "swin_tiny_patch4_window7_224": Published(28_288_354, 173, 224, (7, 768), 27_519_354, 44_315_083),
    "swin_small_patch4_window7_224": Published(49_606_258, 329, 224, (7, 768), 48_837_258, 65_632_987),
    "swin_base_patch4_window7_224": Published(87_768_224, 329, 224, (7, 1024), 86_743_224, 109_130_249),
    "swin_large_patch4_window7_224": Published(196_532_476, 329, 224, (7, 1536), 194_995_476, 228_565_093),
    "swin_base_patch4_window12_384": Published(87_903_584, 329, 384, (12, 1024), 86_878_584, 109_265_609),
    "swin_large_patch4_window12_384": Published(196_735_516, 329, 384, (12, 1536), 195_198_516, 228_768_133),
    "swin_tiny_c24_patch4_window8_256": Published(28_306_432, 173, 256, (8, 768), 27_537_432),
    "swin_s3_tiny_224": Published(28_328_674, 173, 224, (7, 768)),
    "swin_s3_small_224": Published(49_737_298, 329, 224, (7, 768)),
    "swin_s3_base_224": Published(71_125_762, 485, 224, (7, 768)),
    "swin_mlp_tiny_c24_patch4_window8_256": Published(20_386_632, 137, 256, (8, 768)),
    "swin_mlp_tiny_c12_patch4_window8_256": Published(21_152_072, 137, 256, (8, 768)),
    "swin_mlp_tiny_c6_patch4_window8_256": Published(22_682_952, 137, 256, (8, 768)),
    "swin_mlp_base_patch4_window7_224": Published(60_659_416, 257, 224, (7, 1024)),
    "swinv2_tiny_window8_256": Published(28_347_154, 221, 256, (8, 768), 27_578_154),
    "swinv2_tiny_window16_256": Published(28_347_154, 221, 256, (8, 768), 27_578_154),
    "swinv2_small_window8_256": Published(49_728_418, 425, 256, (8, 768), 48_959_418),
    "swinv2_small_window16_256": Published(49_728_418, 425, 256, (8, 768), 48_959_418),
    "swinv2_base_window8_256": Published(87_918_816, 425, 256, (8, 1024), 86_893_816),
    "swinv2_base_window16_256": Published(87_918_816, 425, 256, (8, 1024), 86_893_816),
    "swinv2_base_window12_192": Published(87_918_816, 425, 192, (6, 1024), 86_893_816, 109_280_841),
    "swinv2_base_window12to16_192to256": Published(87_918_816, 425, 256, (8, 1024), 86_893_816),
    "swinv2_base_window12to24_192to384": Published(87_918_816, 425, 384, (12, 1024), 86_893_816),
    "swinv2_large_window12_192": Published(196_739_932, 425, 192, (6, 1536), 195_202_932, 228_772_549),
    "swinv2_large_window12to16_192to256": Published(196_739_932, 425, 256, (8, 1536), 195_202_932),
    "swinv2_large_window12to24_192to384": Published(196_739_932, 425, 384, (12, 1536), 195_202_932),
    "swin_base_patch4_window6_192": Published(87_750_176, 329, 192, (6, 1024), 86_725_176),
    "swinv2_small_window12_192": Published(49_728_418, 425, 192, (6, 768), 48_959_418),
    "swinv2_huge_window12_192": Published(658_027_922, 425, 192, (6, 2816), 655_210_922),
    "swinv2_small_window12to14_192to224": Published(49_728_418, 425, 224, (7, 768), 48_959_418),
    "swinv2_base_window12to14_192to224": Published(87_918_816, 425, 224, (7, 1024), 86_893_816),
    "swinv2_large_window12to14_192to224": Published(196_739_932, 425, 224, (7, 1536), 195_202_932),
    "swinv2_huge_window12to14_192to224": Published(658_027_922, 425, 224, (7, 2816), 655_210_922),
}
"""The values were read from the official code, timm and torchvision; swin_lab/models contains none of them."""


@cache
def built(name, num_classes=1000):
    with torch.device("meta"):
        return create_model(name, num_classes=num_classes).eval()


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_number_of_parameters_is_the_published_one(name):
    assert parameters(built(name)) == PUBLISHED[name].parameters


@pytest.mark.parametrize("name", [name for name, row in PUBLISHED.items() if row.without_head])
def test_the_number_of_parameters_without_head_is_the_published_one(name):
    assert parameters(built(name, num_classes=0)) == PUBLISHED[name].without_head


@pytest.mark.parametrize("name", [name for name, row in PUBLISHED.items() if row.with_22k_head])
def test_the_number_of_parameters_with_the_head_of_imagenet_22k_is_the_published_one(name):
    assert parameters(built(name, num_classes=IMAGENET_22K)) == PUBLISHED[name].with_22k_head


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_number_of_parameter_tensors_is_the_published_one(name):
    assert len(list(built(name).parameters())) == PUBLISHED[name].tensors


@pytest.mark.parametrize("name", PUBLISHED)
def test_maps_halve_and_channels_double_from_stage_to_stage(name):
    row = PUBLISHED[name]
    maps = built(name).features(torch.empty(1, 3, row.side, row.side, device="meta"))
    side, channels = row.last_map
    assert [tuple(x.shape) for x in maps] == [(1, channels // k, side * k, side * k) for k in (8, 4, 2, 1)]


@pytest.mark.parametrize("name", PUBLISHED)
def test_there_are_a_thousand_logits_by_default(name):
    side = PUBLISHED[name].side
    with torch.device("meta"):
        model = create_model(name)
    assert model(torch.empty(2, 3, side, side, device="meta")).shape == (2, 1000)


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("swin_tiny_patch4_window7_224", [7, 7, 7, 7]),
        ("swin_large_patch4_window12_384", [12, 12, 12, 12]),
        ("swin_tiny_c24_patch4_window8_256", [8, 8, 8, 8]),
        ("swin_mlp_base_patch4_window7_224", [7, 7, 7, 7]),
        ("swin_s3_tiny_224", [7, 7, 14, 7]),
        ("swin_s3_small_224", [14, 14, 14, 7]),
        ("swin_s3_base_224", [7, 7, 14, 7]),
        ("swinv2_tiny_window8_256", [8, 8, 8, 8]),
        ("swinv2_tiny_window16_256", [16, 16, 16, 8]),
        ("swinv2_base_window12_192", [12, 12, 12, 6]),
        ("swinv2_large_window12to24_192to384", [24, 24, 24, 12]),
    ],
)
def test_every_block_has_the_window_of_its_stage(name, sides):
    for stage, side in zip(built(name).stages, sides, strict=True):
        for block in stage.blocks:
            assert block.attn.window == (side, side)
            if "mlp" in name:
                assert block.attn.weight.shape == (block.attn.num_heads * side**2, side**2, 1)
                continue
            table = block.attn.bias_table() if "v2" in name else block.attn.relative_position_bias_table
            assert table.shape[0] == (2 * side - 1) ** 2


@pytest.mark.parametrize("name", list_models("swinv2*"))
def test_v2_scales_its_bias_to_the_windows_it_was_trained_with(name):
    config = model_config(name)
    assert config.pretrained_windows == (((12, 12),) * 3 + ((6, 6),) if "12to" in name else config.windows)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_second_block_shifts_by_half_a_window(name):
    for stage in built(name).stages:
        for j, block in enumerate(stage.blocks):
            assert block.attn.shift == ((block.attn.window[0] // 2,) * 2 if j % 2 else (0, 0))


def test_heads_have_32_channels_but_in_c24_c12_and_c6():
    for name in PUBLISHED:
        config = model_config(name)
        per_head = {channels / heads for channels, heads in zip(config.channels, config.num_heads, strict=True)}
        assert per_head == {next((n for n in (24, 12, 6) if f"_c{n}_" in name), 32)}


@pytest.mark.parametrize(
    ("name", "decayed"),
    [
        ("swin_tiny_patch4_window7_224", 53),
        ("swin_small_patch4_window7_224", 101),
        ("swin_base_patch4_window7_224", 101),
        ("swin_large_patch4_window7_224", 101),
        ("swinv2_tiny_window8_256", 53),
        ("swinv2_small_window8_256", 101),
        ("swinv2_base_window8_256", 101),
    ],
)
def test_as_many_tensors_decay_as_in_the_official_code(name, decayed):
    group, plain = (entry["params"] for entry in parameter_groups(built(name), 0.05))
    assert (len(group), len(group) + len(plain)) == (decayed, PUBLISHED[name].tensors)
    elements = {"tiny": 28_199_424, "small": 49_433_088, "base": 87_537_664, "large": 196_187_136}
    assert sum(parameter.numel() for parameter in group) == elements[name.split("_")[1]]


@pytest.mark.parametrize(
    ("name", "rate"),
    [("tiny", 0.2), ("small", 0.3), ("base", 0.5), ("large", 0.2)],
)
def test_drop_path_is_that_of_the_paper(name, rate):
    assert model_config(f"swin_{name}_patch4_window7_224").drop_path_rate == rate


def test_every_listed_swin_is_in_the_table_of_published_numbers():
    own = {"swin_micro_patch4_window4_32", "swin_mini_patch2_window4_32"}
    assert set(list_models()) == {*PUBLISHED, *own}


def test_the_base_file_has_the_defaults_of_the_configuration_except_the_number_of_classes():
    base = OmegaConf.to_container(OmegaConf.load(CONF / "model" / "_swin.yaml"))
    assert base.pop("_target_") == "swin_lab.models.SwinTransformer"
    assert base.pop("num_classes") is None
    expected = SwinConfig().as_dict()
    del expected["num_classes"]
    assert base == expected
