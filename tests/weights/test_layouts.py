"""Every layout is read and written: files as its library writes them, logits within 1e-5 (fp32), round trips bit for bit."""

import json
import subprocess
import sys

import pytest
import torch
from parts import (
    REFERENCE_MODELS,
    TINY,
    images,
    logits,
    max_difference,
    native,
    same_tensors,
    sizes,
    timm_reference,
    transformers_reference,
)
from safetensors.torch import load_file, save_file

from swin_lab import save_weights
from swin_lab.errors import UserError
from swin_lab.weights import load
from swin_lab.weights.layouts import LAYOUT_NAMES, layout_to_write
from swin_lab.weights.save import to_layout

both_versions = pytest.mark.parametrize("version", [1, 2])
GIVEN = {"window_size": 2, "img_size": 64}
"""Values that V2 files without buffers do not contain."""


def parameters(model):
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def written(reference, name, folder):
    """Writes a reference model as its own library does, and returns the file."""
    if name == "huggingface":
        reference.save_pretrained(folder / "reference")
        return folder / "reference"
    torch.save(reference.state_dict(), folder / "reference.pth")
    return folder / "reference.pth"


@both_versions
@pytest.mark.parametrize("name", REFERENCE_MODELS)
def test_a_file_of_a_reference_model_gives_its_logits(name, version, tmp_path):
    reference = REFERENCE_MODELS[name](version)
    model, report = load(written(reference, name, tmp_path), **GIVEN)
    assert max_difference(model, reference) <= 1e-5
    assert report.checkpoint.layout.name == name
    assert report.new == []


@both_versions
@pytest.mark.parametrize("name", ["timm", "torchvision"])
def test_the_reference_model_loads_a_written_file_without_missing_tensors(name, version, tmp_path):
    model, reference = native(version), REFERENCE_MODELS[name](version)
    file = save_weights(model, tmp_path / "native.pth", name)
    reference.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert max_difference(reference, model) <= 1e-5


@both_versions
def test_from_pretrained_of_transformers_loads_a_written_folder(version, tmp_path):
    model = native(version)
    folder = save_weights(model, tmp_path / "native", "huggingface")
    transformers = pytest.importorskip("transformers")
    kind = transformers.SwinForImageClassification if version == 1 else transformers.Swinv2ForImageClassification
    reference, info = kind.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert max_difference(reference, model) <= 1e-5


@both_versions
@pytest.mark.parametrize("name", REFERENCE_MODELS)
def test_weights_of_a_reference_model_are_equal_after_reading_and_writing(name, version, tmp_path):
    reference = REFERENCE_MODELS[name](version)
    model, _ = load(written(reference, name, tmp_path), **GIVEN)
    again = REFERENCE_MODELS[name](version)
    file = save_weights(model, tmp_path / ("back" if name == "huggingface" else "back.pth"), name)
    if name == "huggingface":
        again = type(again).from_pretrained(file)
    else:
        again.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert same_tensors(parameters(reference), parameters(again))


@both_versions
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("name", LAYOUT_NAMES)
def test_native_weights_are_equal_after_writing_and_reading_every_layout(name, suffix, version, tmp_path):
    model = native(version)
    file = save_weights(model, tmp_path / ("out" if name == "huggingface" else f"out{suffix}"), name)
    back, report = load(file, **(GIVEN if name == "timm" else {}))
    assert same_tensors(model.state_dict(), back.state_dict())
    assert sizes(back.config) == sizes(model.config)
    assert report.loaded == len(model.state_dict())


@both_versions
def test_names_of_transformers_state_dict_are_read(version, tmp_path):
    reference = transformers_reference(version)
    torch.save(reference.state_dict(), tmp_path / "in_memory.pth")
    assert max_difference(load(tmp_path / "in_memory.pth", **GIVEN)[0], reference) <= 1e-5


@both_versions
def test_sharded_transformers_weights_are_read(version, tmp_path):
    reference = transformers_reference(version)
    reference.save_pretrained(tmp_path / "parts", max_shard_size="100KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    assert max_difference(load(tmp_path / "parts")[0], reference) <= 1e-5


def test_old_transformers_folders_with_pytorch_model_bin_and_indices_are_read(tmp_path):
    reference = transformers_reference(1)
    reference.save_pretrained(tmp_path / "new")
    tensors = load_file(tmp_path / "new" / "model.safetensors")
    tensors["swin.encoder.layers.0.blocks.0.attention.self.relative_position_index"] = torch.zeros(4, 4, dtype=torch.int64)
    (tmp_path / "old").mkdir()
    torch.save(tensors, tmp_path / "old" / "pytorch_model.bin")
    (tmp_path / "old" / "config.json").write_text((tmp_path / "new" / "config.json").read_text())
    assert max_difference(load(tmp_path / "old")[0], reference) <= 1e-5


@both_versions
def test_a_transformers_backbone_without_head_is_loaded_without_head(version, tmp_path):
    reference = transformers_reference(version)
    (reference.swin if version == 1 else reference.swinv2).save_pretrained(tmp_path / "bare")
    model, report = load(tmp_path / "bare")
    assert model.config.num_classes == 0
    hidden = (reference.swin if version == 1 else reference.swinv2)(images()).pooler_output
    torch.testing.assert_close(model.embedding(images()), hidden, atol=1e-5, rtol=0)
    assert report.head == "none in the file or the model"


# The official layout, by its key table and shapes


def official_shapes(version):
    """Returns every key of the official code's state dict for TINY, derived ones included, written by hand."""
    shapes = {"patch_embed.proj.weight": (16, 3, 4, 4), "patch_embed.proj.bias": (16,)}
    shapes |= {"patch_embed.norm.weight": (16,), "patch_embed.norm.bias": (16,)}
    for s, (depth, heads, side) in enumerate(zip((1, 2, 2, 1), (1, 2, 2, 4), (16, 8, 4, 2), strict=True)):
        C = 16 * 2**s
        for b in range(depth):
            block = f"layers.{s}.blocks.{b}."
            if b == 1:
                shapes[f"{block}attn_mask"] = ((side // 2) ** 2, 4, 4)
            for norm in ("norm1", "norm2"):
                shapes |= {f"{block}{norm}.weight": (C,), f"{block}{norm}.bias": (C,)}
            shapes |= {f"{block}attn.qkv.weight": (3 * C, C), f"{block}attn.proj.weight": (C, C)}
            shapes |= {f"{block}attn.proj.bias": (C,), f"{block}attn.relative_position_index": (4, 4)}
            shapes |= {f"{block}mlp.fc1.weight": (4 * C, C), f"{block}mlp.fc1.bias": (4 * C,)}
            shapes |= {f"{block}mlp.fc2.weight": (C, 4 * C), f"{block}mlp.fc2.bias": (C,)}
            if version == 1:
                shapes |= {f"{block}attn.qkv.bias": (3 * C,), f"{block}attn.relative_position_bias_table": (9, heads)}
            else:
                shapes |= {f"{block}attn.q_bias": (C,), f"{block}attn.v_bias": (C,)}
                shapes |= {f"{block}attn.logit_scale": (heads, 1, 1), f"{block}attn.cpb_mlp.0.weight": (512, 2)}
                shapes |= {f"{block}attn.cpb_mlp.0.bias": (512,), f"{block}attn.cpb_mlp.2.weight": (heads, 512)}
                shapes[f"{block}attn.relative_coords_table"] = (1, 3, 3, 2)
        if s < 3:
            normed = 4 * C if version == 1 else 2 * C
            shapes[f"layers.{s}.downsample.reduction.weight"] = (2 * C, 4 * C)
            shapes |= {f"layers.{s}.downsample.norm.weight": (normed,), f"layers.{s}.downsample.norm.bias": (normed,)}
    return shapes | {"norm.weight": (128,), "norm.bias": (128,), "head.weight": (5, 128), "head.bias": (5,)}


@both_versions
def test_an_official_file_has_exactly_the_keys_and_shapes_of_the_official_code(version, tmp_path):
    file = save_weights(native(version), tmp_path / "official.pth", "official")
    content = torch.load(file, weights_only=True)
    assert list(content) == ["model"]
    assert {name: tuple(tensor.shape) for name, tensor in content["model"].items()} == official_shapes(version)


@both_versions
def test_a_file_of_the_official_code_loads_every_parameter(version, tmp_path):
    """The official code cannot be installed. Old timm had the same names, so that timm's network gives the expected logits."""
    reference = timm_reference(version)
    renamed = {}
    for name, tensor in reference.state_dict().items():
        parts = name.split(".")
        if ".downsample." in name:
            parts[1] = str(int(parts[1]) - 1)
        renamed[".".join(parts).replace("head.fc", "head")] = tensor
    torch.save({"model": renamed, "epoch": 3, "max_accuracy": 81.2, "lr_scheduler": {"a": 1}}, tmp_path / "official.pth")
    model, report = load(tmp_path / "official.pth", **GIVEN)
    assert max_difference(model, reference) <= 1e-5
    assert report.checkpoint.layout.name == "official"
    assert report.checkpoint.key == "model"


def test_the_old_name_of_the_bias_mlp_is_read(tmp_path):
    model = native(2)
    tensors = to_layout(model, layout_to_write("official", 2))
    torch.save({"model": {name.replace("cpb_mlp", "rpe_mlp"): tensor for name, tensor in tensors.items()}}, tmp_path / "a.pth")
    assert same_tensors(load(tmp_path / "a.pth")[0].state_dict(), model.state_dict())


@both_versions
def test_the_encoder_of_a_simmim_file_is_loaded_and_the_rest_left_out(version, tmp_path):
    model = native(version, num_classes=0)
    tensors = {f"encoder.{k}": v for k, v in to_layout(model, layout_to_write("official", version)).items()}
    tensors |= {"encoder.mask_token": torch.zeros(1, 1, 16), "decoder.0.weight": torch.zeros(3072, 128, 1, 1)}
    torch.save({"model": tensors}, tmp_path / "simmim.pth")
    back, report = load(tmp_path / "simmim.pth", num_classes=7)
    assert all(torch.equal(tensor, back.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert "2 tensors outside the network" in str(report)
    assert "new (7 classes): the file has none" in str(report)


# mmpretrain, whose merging is nn.Unfold


class UnfoldMerging(torch.nn.Module):
    """Merges patches as mmpretrain does: nn.Unfold lists the neighbours of each channel next to each other."""

    def __init__(self, channels, version):
        super().__init__()
        self.version = version
        self.norm = torch.nn.LayerNorm(4 * channels if version == 1 else 2 * channels)
        self.reduction = torch.nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x_BHWC):
        B, H, W, _ = x_BHWC.shape
        x = torch.nn.Unfold(kernel_size=2, stride=2)(x_BHWC.permute(0, 3, 1, 2)).transpose(1, 2)
        x = self.reduction(self.norm(x)) if self.version == 1 else self.norm(self.reduction(x))
        return x.reshape(B, H // 2, W // 2, -1)


@both_versions
def test_merging_written_for_mmpretrain_computes_the_same_with_unfold(version, tmp_path):
    model = native(version)
    file = save_weights(model, tmp_path / "mm.pth", "mmpretrain")
    tensors = torch.load(file, weights_only=True)["state_dict"]
    for s, channels in ((1, 16), (2, 32), (3, 64)):
        place = f"backbone.stages.{s - 1 if version == 1 else s}.downsample."
        merging = UnfoldMerging(channels, version)
        merging.load_state_dict({k.removeprefix(place): v for k, v in tensors.items() if k.startswith(place)}, strict=True)
        x_BHWC = images(2, 8, 6, channels)
        torch.testing.assert_close(merging(x_BHWC), model.stages[s].merge(x_BHWC), atol=1e-5, rtol=0)


@both_versions
def test_the_other_names_of_mmpretrain_are_those_of_its_code(version, tmp_path):
    file = save_weights(native(version), tmp_path / "mm.pth", "mmpretrain")
    names = set(torch.load(file, weights_only=True)["state_dict"])
    block = "backbone.stages.2.blocks.1."
    expected = {f"{block}{part}" for part in ("norm1.weight", "norm2.bias", "ffn.layers.0.0.weight", "ffn.layers.1.bias")}
    expected |= {f"{block}attn.w_msa.{part}" for part in ("qkv.weight", "proj.bias", "relative_position_index")}
    expected |= {"backbone.patch_embed.projection.weight", "backbone.patch_embed.norm.bias", "backbone.norm3.weight"}
    own = ("relative_position_bias_table",) if version == 1 else ("logit_scale", "q_bias", "cpb_mlp.2.weight")
    assert expected | {"head.fc.weight"} | {f"{block}attn.w_msa.{part}" for part in own} <= names


# What stands in front of the names, and around the tensors


@pytest.mark.parametrize(
    "wrapper", ["model.", "net.", "module.", "network.", "_orig_mod.", "model.module.", "module._orig_mod."]
)
@pytest.mark.parametrize("name", LAYOUT_NAMES)
def test_prefixes_of_names_are_removed(name, wrapper, tmp_path):
    model = native(1)
    tensors = to_layout(model, layout_to_write(name, 1))
    torch.save({"state_dict": {wrapper + key: tensor for key, tensor in tensors.items()}}, tmp_path / "wrapped.ckpt")
    assert same_tensors(load(tmp_path / "wrapped.ckpt")[0].state_dict(), model.state_dict())


def test_the_prefix_of_torch_compile_inside_names_is_removed(tmp_path):
    model = native(1)
    torch.save({f"net._orig_mod.{k}": v for k, v in model.state_dict().items()}, tmp_path / "compiled.pth")
    assert same_tensors(load(tmp_path / "compiled.pth")[0].state_dict(), model.state_dict())


def test_tensors_of_a_lightning_module_outside_its_network_are_left_out_and_reported(tmp_path):
    model = native(1)
    tensors = {f"net.{k}": v for k, v in model.state_dict().items()}
    torch.save({"state_dict": tensors | {"criterion.weight": torch.ones(5)}, "epoch": 1}, tmp_path / "lightning.ckpt")
    back, report = load(tmp_path / "lightning.ckpt")
    assert same_tensors(back.state_dict(), model.state_dict())
    assert "1 tensors outside the network (criterion)" in str(report)


@pytest.mark.parametrize("key", ["model_ema", "state_dict_ema", "ema"])
def test_raw_or_averaged_weights_are_loaded_as_requested(key, tmp_path):
    raw, averaged = native(1, seed=1), native(1, seed=2)
    file = tmp_path / "both.pth"
    torch.save(
        {
            "model": raw.state_dict(),
            key: {"n_averaged": torch.ones(1)} | {f"module.{k}": v for k, v in averaged.state_dict().items()},
        },
        file,
    )
    plain, report = load(file)
    assert same_tensors(plain.state_dict(), raw.state_dict())
    assert "also contains EMA weights" in str(report)
    assert same_tensors(load(file, ema=True)[0].state_dict(), averaged.state_dict())


def test_in_a_checkpoint_of_lightning_s_averaging_the_state_dict_is_the_average(tmp_path):
    raw, averaged = native(1, seed=1), native(1, seed=2)
    content = {
        name: {f"net.{k}": v for k, v in model.state_dict().items()}
        for name, model in (("state_dict", averaged), ("current_model_state", raw))
    }
    torch.save(content, tmp_path / "both.ckpt")
    assert same_tensors(load(tmp_path / "both.ckpt")[0].state_dict(), raw.state_dict())
    assert same_tensors(load(tmp_path / "both.ckpt", ema=True)[0].state_dict(), averaged.state_dict())


def test_a_missing_average_is_refused(tmp_path):
    save_weights(native(1), tmp_path / "raw.pth")
    with pytest.raises(UserError, match="no EMA weights"):
        load(tmp_path / "raw.pth", ema=True)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)).state_dict(), tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"not weights of a Swin Transformer.*0\.weight"):
        load(tmp_path / "other.pth")


def test_windows_of_a_timm_safetensors_file_are_read_from_config_json(tmp_path):
    """V2 parameters alone do not determine the windows; on the hub, config.json names the variant."""
    from swin_lab import create_model

    model = randomised = create_model("swinv2_tiny_window16_256", num_classes=3)
    (tmp_path / "hub").mkdir()
    save_file(to_layout(randomised, layout_to_write("timm", 2)), tmp_path / "hub" / "model.safetensors")
    config = {
        "architecture": "swinv2_tiny_window16_256",
        "num_classes": 3,
        "pretrained_cfg": {"crop_pct": 0.9, "mean": [0.5] * 3},
    }
    (tmp_path / "hub" / "config.json").write_text(json.dumps(config))
    back, _ = load(tmp_path / "hub")
    assert sizes(back.config) == sizes(model.config)
    assert (back.preprocessing.crop_pct, back.preprocessing.mean) == (0.9, (0.5,) * 3)


def test_loading_needs_neither_transformers_nor_onnx(tmp_path):
    save_weights(native(1), tmp_path / "a.safetensors", "timm")
    blocked = (
        "import sys\nfor name in ('transformers', 'onnx', 'onnxruntime', 'lightning', 'hydra'): sys.modules[name] = None\n"
    )
    code = blocked + f"import swin_lab; print(swin_lab.load_model({str(tmp_path / 'a.safetensors')!r}).config.num_classes)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "5", done.stderr
    assert logits(native(1), images()).shape == (2, TINY["num_classes"])
