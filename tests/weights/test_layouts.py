"""Every layout in both directions: files as its users have them, logits within 1e-5 (fp32), round trips to the last bit."""

import json
import subprocess
import sys

import pytest
import torch
import transformers
from parts import PEERS, TINY, furthest, images, logits, ours, same_tensors, timm_peer, transformers_peer
from safetensors.torch import load_file, save_file

from swin_lab import save_weights
from swin_lab.errors import UserError
from swin_lab.weights import load
from swin_lab.weights.layouts import LAYOUT_NAMES, layout_to_write
from swin_lab.weights.save import to_layout

both_versions = pytest.mark.parametrize("version", [1, 2])
GIVEN = {"window_size": 2, "img_size": 64}
"""What V2 files without buffers do not tell."""


def parameters(model):
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def written(peer, name, folder):
    """A peer's file as its own library writes it."""
    if name == "huggingface":
        peer.save_pretrained(folder / "peer")
        return folder / "peer"
    torch.save(peer.state_dict(), folder / "peer.pth")
    return folder / "peer.pth"


@both_versions
@pytest.mark.parametrize("name", PEERS)
def test_a_peer_s_file_gives_the_peer_s_logits(name, version, tmp_path):
    peer = PEERS[name](version)
    model, report = load(written(peer, name, tmp_path), **GIVEN)
    assert furthest(model, peer) <= 1e-5
    assert report.checkpoint.layout.name == name
    assert report.new == []


@both_versions
@pytest.mark.parametrize("name", ["timm", "torchvision"])
def test_what_we_write_the_peer_loads_without_a_missing_tensor(name, version, tmp_path):
    model, peer = ours(version), PEERS[name](version)
    file = save_weights(model, tmp_path / "ours.pth", name)
    peer.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert furthest(peer, model) <= 1e-5


@both_versions
def test_what_we_write_transformers_loads_by_from_pretrained(version, tmp_path):
    model = ours(version)
    folder = save_weights(model, tmp_path / "ours", "huggingface")
    kind = transformers.SwinForImageClassification if version == 1 else transformers.Swinv2ForImageClassification
    peer, info = kind.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert furthest(peer, model) <= 1e-5


@both_versions
@pytest.mark.parametrize("name", PEERS)
def test_a_peer_s_weights_come_back_bit_for_bit(name, version, tmp_path):
    peer = PEERS[name](version)
    model, _ = load(written(peer, name, tmp_path), **GIVEN)
    again = PEERS[name](version)
    file = save_weights(model, tmp_path / ("back" if name == "huggingface" else "back.pth"), name)
    if name == "huggingface":
        again = type(again).from_pretrained(file)
    else:
        again.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert same_tensors(parameters(peer), parameters(again))


@both_versions
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("name", LAYOUT_NAMES)
def test_ours_comes_back_bit_for_bit_from_every_layout(name, suffix, version, tmp_path):
    model = ours(version)
    file = save_weights(model, tmp_path / ("out" if name == "huggingface" else f"out{suffix}"), name)
    back, report = load(file, **(GIVEN if name == "timm" else {}))
    assert same_tensors(model.state_dict(), back.state_dict())
    assert back.shape == model.shape
    assert report.loaded == len(model.state_dict())


@both_versions
def test_transformers_names_in_memory_are_known_as_well(version, tmp_path):
    peer = transformers_peer(version)
    torch.save(peer.state_dict(), tmp_path / "in_memory.pth")
    assert furthest(load(tmp_path / "in_memory.pth", **GIVEN)[0], peer) <= 1e-5


@both_versions
def test_transformers_weights_in_several_files_are_put_together(version, tmp_path):
    peer = transformers_peer(version)
    peer.save_pretrained(tmp_path / "parts", max_shard_size="100KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    assert furthest(load(tmp_path / "parts")[0], peer) <= 1e-5


def test_old_folders_of_transformers_with_pytorch_model_bin_and_indices_are_known(tmp_path):
    peer = transformers_peer(1)
    peer.save_pretrained(tmp_path / "new")
    tensors = load_file(tmp_path / "new" / "model.safetensors")
    tensors["swin.encoder.layers.0.blocks.0.attention.self.relative_position_index"] = torch.zeros(4, 4, dtype=torch.int64)
    (tmp_path / "old").mkdir()
    torch.save(tensors, tmp_path / "old" / "pytorch_model.bin")
    (tmp_path / "old" / "config.json").write_text((tmp_path / "new" / "config.json").read_text())
    assert furthest(load(tmp_path / "old")[0], peer) <= 1e-5


@both_versions
def test_a_transformers_backbone_without_head_is_loaded_without_head(version, tmp_path):
    peer = transformers_peer(version)
    (peer.swin if version == 1 else peer.swinv2).save_pretrained(tmp_path / "bare")
    model, report = load(tmp_path / "bare")
    assert model.shape.num_classes == 0
    hidden = (peer.swin if version == 1 else peer.swinv2)(images()).pooler_output
    torch.testing.assert_close(model.embedding(images()), hidden, atol=1e-5, rtol=0)
    assert report.head == "none in file and model"


# The official layout, by its key table and shapes


def official_shapes(version):
    """Written out by hand from the official code for TINY: every key of its state dict, derived ones included."""
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
    file = save_weights(ours(version), tmp_path / "official.pth", "official")
    content = torch.load(file, weights_only=True)
    assert list(content) == ["model"]
    assert {name: tuple(tensor.shape) for name, tensor in content["model"].items()} == official_shapes(version)


@both_versions
def test_a_file_of_the_official_code_loads_every_parameter_into_its_place(version, tmp_path):
    """Old timm names are the same: its network, stage by stage, is what the logits are compared with."""
    peer = timm_peer(version)
    renamed = {}
    for name, tensor in peer.state_dict().items():
        parts = name.split(".")
        if ".downsample." in name:
            parts[1] = str(int(parts[1]) - 1)
        renamed[".".join(parts).replace("head.fc", "head")] = tensor
    torch.save({"model": renamed, "epoch": 3, "max_accuracy": 81.2, "lr_scheduler": {"a": 1}}, tmp_path / "official.pth")
    model, report = load(tmp_path / "official.pth", **GIVEN)
    assert furthest(model, peer) <= 1e-5
    assert report.checkpoint.layout.name == "official"
    assert report.checkpoint.key == "model"


def test_the_old_name_of_the_bias_mlp_is_known(tmp_path):
    model = ours(2)
    tensors = to_layout(model, layout_to_write("official", 2))
    torch.save({"model": {name.replace("cpb_mlp", "rpe_mlp"): tensor for name, tensor in tensors.items()}}, tmp_path / "a.pth")
    assert same_tensors(load(tmp_path / "a.pth")[0].state_dict(), model.state_dict())


@both_versions
def test_the_encoder_of_a_simmim_file_is_loaded_and_the_rest_left_out(version, tmp_path):
    model = ours(version, num_classes=0)
    tensors = {f"encoder.{k}": v for k, v in to_layout(model, layout_to_write("official", version)).items()}
    tensors |= {"encoder.mask_token": torch.zeros(1, 1, 16), "decoder.0.weight": torch.zeros(3072, 128, 1, 1)}
    torch.save({"model": tensors}, tmp_path / "simmim.pth")
    back, report = load(tmp_path / "simmim.pth", num_classes=7)
    assert all(torch.equal(tensor, back.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert "2 tensors outside the network" in str(report)
    assert "new (7 classes): the file has none" in str(report)


# mmpretrain, whose merging is nn.Unfold


class UnfoldMerging(torch.nn.Module):
    """As mmpretrain merges: nn.Unfold lists the neighbours of each channel side by side."""

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
def test_the_merging_we_write_for_mmpretrain_computes_the_same_by_unfolding(version, tmp_path):
    model = ours(version)
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
    file = save_weights(ours(version), tmp_path / "mm.pth", "mmpretrain")
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
def test_wrappers_in_front_of_the_names_are_seen_through(name, wrapper, tmp_path):
    model = ours(1)
    tensors = to_layout(model, layout_to_write(name, 1))
    torch.save({"state_dict": {wrapper + key: tensor for key, tensor in tensors.items()}}, tmp_path / "wrapped.ckpt")
    assert same_tensors(load(tmp_path / "wrapped.ckpt")[0].state_dict(), model.state_dict())


def test_torch_compile_s_prefix_in_the_middle_of_names_is_seen_through(tmp_path):
    model = ours(1)
    torch.save({f"net._orig_mod.{k}": v for k, v in model.state_dict().items()}, tmp_path / "compiled.pth")
    assert same_tensors(load(tmp_path / "compiled.pth")[0].state_dict(), model.state_dict())


def test_what_a_lightning_module_holds_beside_its_network_is_left_out_and_told(tmp_path):
    model = ours(1)
    tensors = {f"net.{k}": v for k, v in model.state_dict().items()}
    torch.save({"state_dict": tensors | {"criterion.weight": torch.ones(5)}, "epoch": 1}, tmp_path / "lightning.ckpt")
    back, report = load(tmp_path / "lightning.ckpt")
    assert same_tensors(back.state_dict(), model.state_dict())
    assert "1 tensors outside the network (criterion)" in str(report)


@pytest.mark.parametrize("key", ["model_ema", "state_dict_ema", "ema"])
def test_of_raw_and_averaged_weights_the_one_that_is_asked_for_is_loaded(key, tmp_path):
    raw, averaged = ours(1, seed=1), ours(1, seed=2)
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
    assert "also holds a moving average of the weights" in str(report)
    assert same_tensors(load(file, ema=True)[0].state_dict(), averaged.state_dict())


def test_in_a_checkpoint_of_lightning_s_averaging_the_state_dict_is_the_average(tmp_path):
    raw, averaged = ours(1, seed=1), ours(1, seed=2)
    content = {
        name: {f"net.{k}": v for k, v in model.state_dict().items()}
        for name, model in (("state_dict", averaged), ("current_model_state", raw))
    }
    torch.save(content, tmp_path / "both.ckpt")
    assert same_tensors(load(tmp_path / "both.ckpt")[0].state_dict(), raw.state_dict())
    assert same_tensors(load(tmp_path / "both.ckpt", ema=True)[0].state_dict(), averaged.state_dict())


def test_an_average_that_is_not_there_is_refused(tmp_path):
    save_weights(ours(1), tmp_path / "raw.pth")
    with pytest.raises(UserError, match="no moving average"):
        load(tmp_path / "raw.pth", ema=True)


def test_another_network_is_told_apart(tmp_path):
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)).state_dict(), tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"no weights of a Swin Transformer.*0\.weight"):
        load(tmp_path / "other.pth")


def test_safetensors_files_of_timm_say_their_windows_in_config_json(tmp_path):
    """As on the hub; V2 parameters alone do not tell them."""
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
    assert back.shape == model.shape
    assert (back.card["preprocessing"]["crop_pct"], back.card["preprocessing"]["mean"]) == (0.9, [0.5] * 3)


def test_loading_needs_neither_transformers_nor_onnx(tmp_path):
    save_weights(ours(1), tmp_path / "a.safetensors", "timm")
    blocked = (
        "import sys\nfor name in ('transformers', 'onnx', 'onnxruntime', 'lightning', 'hydra'): sys.modules[name] = None\n"
    )
    code = blocked + f"import swin_lab; print(swin_lab.load_model({str(tmp_path / 'a.safetensors')!r}).shape.num_classes)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "5", done.stderr
    assert logits(ours(1), images()).shape == (2, TINY["num_classes"])
