"""Files of Swin-MLP: read in the official layout, written in it and in that of swin_lab, refused by libraries without it."""

import pytest
import torch
from parts import images, logits, native, same_tensors, sizes

from swin_lab import create_model, save_weights
from swin_lab.errors import UserError
from swin_lab.weights import export_model, load, open_checkpoint
from swin_lab.weights.layouts import LAYOUT_NAMES

VARIANT = "swin_mlp_tiny_c12_patch4_window8_256"


def swin_mlp(**changes):
    return native(1, token_mixer="mlp", **changes)


@pytest.fixture
def official(tmp_path):
    """Returns a model and its file in the official layout; there are windows of 2 and maps of 16, 8, 4 and 2 tokens."""
    model = swin_mlp()
    return model, save_weights(model, tmp_path / "official.pth", "official")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("layout", ["swin_lab", "official"])
def test_weights_are_equal_after_writing_and_reading(layout, suffix, tmp_path):
    model = swin_mlp()
    back, report = load(save_weights(model, tmp_path / f"out{suffix}", layout))
    assert same_tensors(model.state_dict(), back.state_dict())
    assert sizes(back.config) == sizes(model.config)
    assert (back.config.token_mixer, back.config.qkv_bias) == ("mlp", True)
    assert (report.loaded, report.checkpoint.layout.name) == (len(model.state_dict()), layout)
    assert "Swin-MLP, C=16" in str(report)


@pytest.mark.parametrize("layout", sorted(set(LAYOUT_NAMES) - {"swin_lab", "official"}))
def test_a_library_without_swin_mlp_is_refused_before_anything_is_written(layout, tmp_path):
    with pytest.raises(UserError, match=f"layout {layout} cannot .* it has no Swin-MLP. Choose layout swin_lab or official"):
        save_weights(swin_mlp(), tmp_path / ("out" if layout == "huggingface" else "out.pth"), layout)
    assert not list(tmp_path.iterdir())


def test_the_official_layout_has_one_square_window(tmp_path):
    with pytest.raises(UserError, match=r"it has one square window.*Choose layout swin_lab$"):
        save_weights(swin_mlp(window_size=[[2, 4]] * 4), tmp_path / "out.pth", "official")


def test_convert_to_timm_is_refused_in_one_line(cli, official):
    outcome = cli("convert", official[1], "timm.safetensors", "--layout", "timm")
    assert (outcome.code, "it has no Swin-MLP" in outcome.err) == (2, True)


def test_convert_writes_the_official_layout_and_inspect_names_the_variant(cli, tmp_path):
    save_weights(create_model(VARIANT), tmp_path / "a.safetensors")
    outcome = cli("convert", "a.safetensors", "b.pth", "--layout", "official", "--verify")
    assert outcome.code == 0, outcome.err
    assert "read back bit for bit" in outcome.out
    found = cli("inspect", "b.pth").out
    assert f"= {VARIANT}" in " ".join(found.split())
    assert "layout official" in found


def test_a_published_file_is_read_with_everything_around_its_tensors(official):
    model, file = official
    state = torch.load(file)["model"]
    torch.save({"model": state, "epoch": 299, "max_accuracy": 79.6, "config": {"a": 1}, "optimizer": {}}, file)
    back, report = load(file)
    assert same_tensors(model.state_dict(), back.state_dict())
    assert report.checkpoint.key == "model"


def test_a_state_dict_and_a_wrapped_one_are_read(official):
    model, file = official
    state = torch.load(file)["model"]
    for prefix in ("", "module."):
        back, _ = load({prefix + name: tensor for name, tensor in state.items()})
        assert same_tensors(model.state_dict(), back.state_dict())


def test_a_larger_image_and_another_head_change_no_other_weight(official):
    model, file = official
    larger, _ = load(file, img_size=128, num_classes=7)
    own = model.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in larger.state_dict().items() if not name.startswith("head"))
    assert larger.config.image_size == (128, 128)


@pytest.mark.parametrize("changes", [{"window_size": 4}, {"window_size": 1}, {"img_size": 32}])
def test_other_windows_are_refused_because_their_weights_cannot_be_resized(official, changes):
    with pytest.raises(UserError, match=r"windows are 2-2-2-2 in the file and .* in the model.*cannot be resized.\nKeep"):
        load(official[1], **changes)


def test_a_smaller_image_can_be_passed_to_the_network(official):
    model, file = official
    assert torch.equal(logits(load(file)[0], images(1, 3, 20, 33)), logits(model, images(1, 3, 20, 33)))


def test_weights_of_attention_do_not_fit(official, tmp_path):
    with pytest.raises(
        UserError, match="this is not a swin_tiny_patch4_window7_224: token_mixer is mlp in the file, attention"
    ):
        load(official[1], name="swin_tiny_patch4_window7_224")


@pytest.mark.parametrize("shape", [(8, 4), (8, 4, 2), (7, 4, 1), (0, 0, 1), ()])
def test_a_tensor_of_another_shape_is_refused(official, shape):
    _, file = official
    state = torch.load(file)["model"]
    state["layers.1.blocks.0.spatial_mlp.weight"] = torch.zeros(shape)
    torch.save({"model": state}, file)
    with pytest.raises(UserError):
        load(file)


def test_a_missing_bias_is_named(official):
    _, file = official
    state = torch.load(file)["model"]
    del state["layers.2.blocks.1.spatial_mlp.bias"]
    torch.save({"model": state}, file)
    assert open_checkpoint(file).missing == ["stages.2.blocks.1.attn.bias"]
    with pytest.raises(UserError, match=r"lacks 1 of the network's tensors: stages.2.blocks.1.attn.bias"):
        load(file)


@pytest.mark.parametrize("suffix", [pytest.param(".onnx", marks=pytest.mark.slow), ".pt2"])
def test_programs_are_exported_and_verified(suffix, tmp_path):
    model = swin_mlp(img_size=(20, 28), depths=(2,), num_heads=(2,), window_size=4)
    differences = export_model(model, tmp_path / f"tiny{suffix}")
    assert max(differences.values()) <= 1e-4


def test_the_name_of_a_variant_in_place_of_a_file_names_the_published_file():
    with pytest.raises(
        UserError, match=r"published ones are at https://github.com/.*/v1.0.5/swin_mlp_tiny_c12_patch4_window8_256.pth"
    ):
        load(VARIANT)
