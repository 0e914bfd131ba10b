"""Weights in a network with other windows, channels or size, and the report of the transfer."""

import pytest
import torch
import torch.nn.functional as F
from parts import TINY, images, max_difference, native, same_tensors, sizes
from timm.models.swin_transformer_v2 import SwinTransformerV2 as TimmV2

from swin_lab import SwinTransformer, create_model, list_models, load_model, save_weights
from swin_lab.errors import UserError
from swin_lab.models import SwinConfig
from swin_lab.ops.geometry import log_spaced_offsets, relative_position_index
from swin_lab.weights import archive, load, open_checkpoint, transfer
from swin_lab.weights.adapt import resize_table
from swin_lab.weights.layouts import layout_to_write
from swin_lab.weights.save import to_layout


@pytest.fixture(params=[1, 2], ids=["V1", "V2"])
def version(request):
    return request.param


@pytest.fixture
def saved(version, tmp_path):
    """Returns a network and its file in the official layout."""
    model = native(version)
    return model, save_weights(model, tmp_path / "tiny.pth", "official")


# Architecture from tensors alone


@pytest.mark.parametrize("name", list_models())
def test_the_variant_is_detected_from_an_official_file(name, tmp_path, monkeypatch):
    """Files that repeat one value are refused above 1 GiB, which SwinV2-H needs."""
    monkeypatch.setattr(archive, "ALWAYS_ALLOWED", 2**31)
    with torch.device("meta"):
        model = create_model(name, num_classes=3)
    hollow = {k: torch.zeros(1, dtype=torch.half).expand(v.shape) for k, v in model.state_dict().items()}
    torch.save({"model": to_layout_of(model, hollow)}, tmp_path / "official.pth")
    checkpoint = open_checkpoint(tmp_path / "official.pth")
    assert sizes(checkpoint.config) == sizes(model.config)
    assert name in checkpoint.variants
    assert checkpoint.missing == checkpoint.unexpected == []


def to_layout_of(model, tensors):
    """Returns tensors under their official names, with the indices and offsets of a file of the official code."""
    layout, last = layout_to_write("official", model.config.version), len(model.stages) - 1
    named = {layout.to_library(key, last): tensor for key, tensor in tensors.items()}
    for i, window in enumerate(model.config.windows):
        block = f"layers.{i}.blocks.0.attn."
        named[f"{block}relative_position_index"] = relative_position_index(window, torch.device("cpu"))
        if model.config.version == 2:
            offsets = log_spaced_offsets(window, model.config.pretrained_windows[i], torch.device("cpu"))
            named[f"{block}relative_coords_table"] = offsets.reshape(1, 2 * window[0] - 1, 2 * window[1] - 1, 2)
    return named


def test_non_square_windows_are_detected_from_the_index(tmp_path):
    model = native(1, window_size=[[2, 4], [2, 4], [4, 2], [2, 2]])
    torch.save({"model": to_layout_of(model, model.state_dict())}, tmp_path / "official.pth")
    assert open_checkpoint(tmp_path / "official.pth").config.windows == model.config.windows


def test_the_message_for_a_v2_file_without_offsets_lists_the_possible_variants(tmp_path):
    model = create_model("swinv2_tiny_window8_256", num_classes=3)
    file = save_weights(model, tmp_path / "timm.pth", "timm")
    with pytest.raises(UserError, match=r"name=\.\.\., one of swinv2_tiny_window16_256, swinv2_tiny_window8_256"):
        load(file)
    assert sizes(load(file, name="swinv2_tiny_window8_256")[0].config) == sizes(model.config)


def test_a_name_that_differs_from_the_file_is_refused(tmp_path):
    file = save_weights(native(1), tmp_path / "tiny.pth", "timm")
    with pytest.raises(UserError, match=r"this is not a swin_tiny_patch4_window7_224: embed_dim is 16 in the file, 96 in"):
        load(file, name="swin_tiny_patch4_window7_224")
    with pytest.raises(UserError, match="did you mean swin_tiny_patch4_window7_224"):
        load(file, name="swin_tinny_patch4_window7_224")


# Windows


@pytest.mark.parametrize(("old", "new"), [((7, 7), (12, 12)), ((12, 12), (7, 7)), ((2, 4), (3, 3))])
def test_bicubic_tables_are_those_of_the_official_code(old, new):
    table = images((2 * old[0] - 1) * (2 * old[1] - 1), 3)
    image = table.permute(1, 0).reshape(1, 3, 2 * old[0] - 1, 2 * old[1] - 1)
    size = (2 * new[0] - 1, 2 * new[1] - 1)
    expected = F.interpolate(image, size=size, mode="bicubic").reshape(3, -1).permute(1, 0)
    assert torch.equal(resize_table(table, old, new, "bicubic"), expected)


def test_geometric_tables_keep_the_bias_of_the_nearest_offsets():
    table = images(13 * 13, 2)
    grown = resize_table(table, (7, 7), (12, 12), "geometric").reshape(23, 23, 2)
    near = table.reshape(13, 13, 2)[5:8, 5:8]
    torch.testing.assert_close(grown[10:13, 10:13], near, atol=1e-5, rtol=0)
    torch.testing.assert_close(grown[::22, ::22], table.reshape(13, 13, 2)[::12, ::12], atol=1e-5, rtol=0)


def test_geometric_tables_of_cubic_functions_are_these_functions():
    """Within 1e-3 of values up to 2: cubic splines through points of a cubic are that cubic; lines would be off by 0.05.

    The old offsets of 7x7, 0 to 6, lie at 0, 1, 1 + q, 1 + q + q^2, ... 11 of 12x12, as in the official SimMIM code.
    """
    low, high = 1.0, 3.0
    for _ in range(60):
        q = (low + high) / 2
        low, high = (q, high) if sum(q**i for i in range(6)) < 11 else (low, q)
    outwards = [sum(q**i for i in range(steps)) for steps in range(7)]
    old = torch.tensor([-x for x in reversed(outwards[1:])] + outwards) / 11
    new = torch.arange(-11, 12) / 11

    def function(x):
        return (x[:, None] ** 3 - x[:, None] ** 2 * x[None] + 0.5 * x[None] ** 2).reshape(-1, 1)

    torch.testing.assert_close(resize_table(function(old), (7, 7), (12, 12), "geometric"), function(new), atol=1e-3, rtol=0)


def test_an_unknown_interpolation_is_refused(saved):
    with pytest.raises(UserError, match="did you mean bicubic"):
        load(saved[1], bias_interpolation="bicubik")


def test_other_windows_resize_the_tables_of_v1(tmp_path):
    model = native(1)
    file = save_weights(model, tmp_path / "tiny.pth", "official")
    grown, report = load(file, img_size=128, window_size=4)
    for i, stage in enumerate(grown.stages):
        for block, old in zip(stage.blocks, model.stages[i].blocks, strict=True):
            expected = resize_table(old.attn.relative_position_bias_table, (2, 2), (4, 4), "bicubic")
            assert torch.equal(block.attn.relative_position_bias_table, expected)
    assert "6 tables 3x3 -> 7x7 (bicubic)" in str(report)


def test_another_image_size_alone_changes_no_weight(saved):
    model, file = saved
    larger, report = load(file, img_size=128)
    assert same_tensors(model.state_dict(), larger.state_dict())
    assert larger.preprocessing.img_size == (128, 128)
    assert report.resized == []


def test_v2_keeps_the_coordinates_of_its_training_in_larger_windows(tmp_path):
    model = native(2)
    file = save_weights(model, tmp_path / "tiny.pth", "official")
    grown, report = load(file, img_size=128, window_size=4)
    assert grown.config.pretrained_windows == ((2, 2),) * 4
    assert same_tensors(model.state_dict(), grown.state_dict())
    assert "windows 2 -> 4: the bias keeps the coordinates of its training" in str(report)
    reference = TimmV2(**TINY | {"img_size": 128, "window_size": 4, "pretrained_window_sizes": (2, 2, 2, 2)})
    reference.load_state_dict(to_layout(grown, layout_to_write("timm", 2)), strict=True)
    assert max_difference(grown, reference, images(1, 3, 128, 128)) <= 1e-5


@pytest.mark.parametrize("layout", ["official", "swin_lab", "huggingface", "mmpretrain"])
def test_a_second_change_of_windows_keeps_the_windows_of_the_first_training(layout, tmp_path):
    file = save_weights(native(2), tmp_path / "a.safetensors")
    middle, _ = load(file, img_size=128, window_size=4)
    second = save_weights(middle, tmp_path / ("b" if layout == "huggingface" else "b.pth"), layout)
    last, _ = load(second, img_size=256, window_size=8)
    assert last.config.pretrained_windows == ((2, 2),) * 4
    assert sizes(load(second)[0].config) == sizes(middle.config)


# Channels


def test_grey_images_get_the_sum_of_the_colours(saved):
    model, file = saved
    grey, report = load(file, in_channels=1)
    torch.testing.assert_close(grey.embed.proj.weight, model.embed.proj.weight.sum(1, keepdim=True), atol=1e-6, rtol=0)
    image = images(2, 1, 64, 64)
    torch.testing.assert_close(grey(image), model(image.expand(2, 3, 64, 64)), atol=1e-5, rtol=0)
    assert "patch embedding from 3 to 1 input channels" in str(report)


def test_five_channels_repeat_the_colours_at_the_same_total(saved):
    model, file = saved
    many, _ = load(file, in_channels=5)
    expected = model.embed.proj.weight[:, [0, 1, 2, 0, 1]] * 3 / 5
    torch.testing.assert_close(many.embed.proj.weight, expected, atol=1e-6, rtol=0)
    assert many.preprocessing is None  # images have one or three channels


def test_grey_weights_cannot_be_adapted_to_rgb(version, tmp_path):
    file = save_weights(native(version, in_channels=1), tmp_path / "grey.pth", "official")
    with pytest.raises(UserError, match="the file has 1 input channels"):
        load(file, in_channels=3)


# The report


def test_load_model_prints_its_report_every_time(saved, capsys):
    for _ in range(2):
        load_model(saved[1])
        printed = capsys.readouterr()
        assert printed.out == ""
        for part in ("layout official", "tensors", "head       kept (5 classes)", "relative_position_index"):
            assert part in printed.err


def test_missing_and_unknown_tensors_are_an_error_with_the_first_ten_names(saved):
    file = saved[1]
    tensors = torch.load(file, weights_only=True)["model"]
    renamed = {k.replace(".mlp.", ".mpl.") if k.startswith("layers.1") else k: v for k, v in tensors.items()}
    torch.save(renamed, file)
    with pytest.raises(UserError) as refusal:
        load(file)
    message = str(refusal.value)
    assert "lacks 8 of the network's tensors: stages.1.blocks.0.mlp.fc1.weight" in message
    assert "contains 8 tensors that no Swin Transformer has: layers.1.blocks.0.mpl.fc1.weight" in message
    assert "strict=false" in message
    assert len(message.splitlines()) <= 4


def test_without_strict_matching_tensors_are_loaded_and_the_rest_is_reported(saved):
    model, file = saved
    tensors = torch.load(file, weights_only=True)["model"]
    del tensors["norm.weight"]
    torch.save(tensors | {"extra.weight": torch.ones(2)}, file)
    loaded, report = load(file, strict=False)
    assert torch.equal(loaded.stages[0].blocks[0].mlp.fc1.weight, model.stages[0].blocks[0].mlp.fc1.weight)
    total = len(model.state_dict()) - 1
    assert f"loaded     {total} of {total} tensors" in str(report)
    assert "new        norm.weight" in str(report)
    assert "unused     extra.weight" in str(report)


def test_a_refused_transfer_leaves_the_network_unchanged(saved):
    model, file = saved
    tensors = torch.load(file, weights_only=True)["model"]
    tensors["norm.weight"] = torch.full_like(tensors["norm.weight"], torch.nan)
    torch.save(tensors, file)
    network = SwinTransformer(SwinConfig(version=model.config.version, **TINY))
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(UserError, match=r"norm\.weight contains 128 values that are NaN or infinite"):
        transfer(open_checkpoint(file), network)
    assert same_tensors(before, network.state_dict())


def test_half_precision_is_converted_and_reported(saved):
    file = saved[1]
    halves = {k: v.half() if v.is_floating_point() else v for k, v in torch.load(file, weights_only=True)["model"].items()}
    torch.save(halves, file)
    loaded, report = load(file)
    assert loaded.norm.weight.dtype == torch.float32
    assert "float16 converted to float32" in str(report)


# Real windows


@pytest.mark.slow
def test_swin_t_goes_from_224_with_window_7_to_384_with_window_12(tmp_path):
    model = create_model("swin_tiny_patch4_window7_224")
    file = save_weights(model, tmp_path / "tiny.pth", "official")
    larger, report = load(file, img_size=384, window_size=12)
    assert larger.config.windows == ((12, 12),) * 4
    assert "12 tables 13x13 -> 23x23 (bicubic)" in str(report)
    assert "173 of 173" in str(report)
