"""The cost of reading a weight file, and limits of the values in it."""

import json

import pytest
import torch
from parts import native, same_tensors
from safetensors.torch import save_file

from swin_lab import SwinTransformer, create_model, save_weights
from swin_lab.errors import UserError
from swin_lab.metadata import METADATA_KEY, Metadata
from swin_lab.weights import files, load, open_checkpoint, read_source, with_pretrained_windows


@pytest.fixture
def constructed(monkeypatch):
    """Returns a list that receives the configuration of every SwinTransformer that is built."""
    built, build = [], SwinTransformer.__init__

    def counted(self, config):
        built.append(config)
        build(self, config)

    monkeypatch.setattr(SwinTransformer, "__init__", counted)
    return built


@pytest.mark.parametrize("layout", ["swin_lab", "official"])
def test_loading_builds_two_networks_at_most_and_printing_none(tmp_path, constructed, layout):
    file = save_weights(create_model("swin_tiny_patch4_window7_224"), tmp_path / "tiny.pth", layout)
    constructed.clear()
    _, report = load(file)
    assert len(constructed) <= 2
    constructed.clear()
    assert "= swin_tiny_patch4_window7_224" in str(report)
    assert report.checkpoint.variants == ["swin_tiny_patch4_window7_224"]
    assert report.checkpoint.lines()
    assert not constructed


def test_a_file_is_read_once(tmp_path, monkeypatch):
    model = native(1)
    contents = read_source(save_weights(model, tmp_path / "tiny.pth"))
    monkeypatch.setattr(files, "_read_file", None)
    assert same_tensors(load(contents)[0].state_dict(), model.state_dict())
    assert open_checkpoint(contents).source == str(tmp_path / "tiny.pth")


def test_the_network_of_a_run_is_found_by_its_prefix(tmp_path):
    tensors = native(1).state_dict()
    torch.save(
        {"state_dict": {f"network.{k}": v for k, v in tensors.items()} | {"other": torch.ones(1)}}, tmp_path / "run.ckpt"
    )
    assert same_tensors(read_source(tmp_path / "run.ckpt").network_tensors(), tensors)


def test_a_file_without_the_tensors_of_a_run_is_refused(tmp_path):
    file = save_weights(native(1), tmp_path / "tiny.pth")
    with pytest.raises(UserError, match="not the checkpoint of a run"):
        read_source(file).network_tensors()


# Metadata


def with_metadata(tmp_path, values, suffix=".pth"):
    """Writes the weights of a tiny network with metadata of another origin."""
    file, tensors = tmp_path / f"claim{suffix}", native(1).state_dict()
    if suffix == ".pth":
        torch.save({"state_dict": tensors, METADATA_KEY: values}, file)
    else:
        save_file(tensors, file, {METADATA_KEY: json.dumps(values)})
    return file


def claim(**changes):
    """Returns metadata of a tiny network with some values changed."""
    model = {"_target_": "swin_lab.models.SwinTransformer"} | native(1).config.as_dict() | changes
    return Metadata(model=model).as_dict()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_an_older_format_is_refused_with_the_next_step(tmp_path, suffix):
    with pytest.raises(UserError, match=r"claim.* .metadata format 1.*\n.*swin-lab convert"):
        read_source(with_metadata(tmp_path, {"format": 1, "model": {}}, suffix))


def test_a_checkpoint_of_another_class_is_refused_with_its_name(tmp_path):
    file = with_metadata(tmp_path, Metadata(model={"_target_": "my.Net"}).as_dict())
    assert read_source(file).metadata.model == {"_target_": "my.Net"}
    with pytest.raises(UserError, match=r"claim.pth: the file contains a my\.Net"):
        open_checkpoint(file)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"depths": [1, 2, 5000, 1]}, "depths=[1, 2, 5000, 1] is too large"),
        ({"depths": [1] * 100_000, "num_heads": [1] * 100_000}, "depths has 100000 entries; at most 16 stages"),
        ({"img_size": 10**9}, "img_size=1000000000 is too large"),
        ({"embed_dim": 10**400}, "embed_dim=1000"),
        ({"embed_dim": 32_768}, "embed_dim=32768 with depths=[1, 2, 2, 1]"),
        ({"mlp_ratio": 1e5}, "mlp_ratio=100000.0 is too large"),
        ({"num_classes": 10**9}, "num_classes=1000000000 is too large"),
        ({"in_channels": 10**9}, "in_channels=1000000000 is too large"),
        ({"window_size": 1000, "patch_size": 1, "img_size": 16_384}, "window_size=1000 gives windows of 1000 tokens"),
        ({"version": 2, "pretrained_window_sizes": 10**9}, "pretrained_window_sizes=1000000000 is too large"),
        ({"num_heads": ["a"]}, "num_heads"),
        ({"colour": 1}, "unknown key 'colour'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_values_in_a_file_are_limited_before_anything_is_built(tmp_path, constructed, changes, part):
    values = claim() | {"model": claim()["model"] | changes}
    file = with_metadata(tmp_path, values)
    constructed.clear()
    with pytest.raises(UserError) as refusal:
        load(file)
    assert str(refusal.value).startswith(f"{file}: ")
    assert part in str(refusal.value)
    assert not constructed


def test_metadata_that_contradicts_the_tensors_is_refused_before_memory_is_allocated(tmp_path, constructed):
    file = with_metadata(tmp_path, claim(depths=[1, 2, 900, 1]))
    constructed.clear()
    with pytest.raises(UserError, match="lacks"):
        load(file)
    assert len(constructed) == 1  # on the meta device


# The model node of a run


@pytest.mark.parametrize("version", [1, 2])
def test_a_node_gets_the_pretrained_windows_of_v2(tmp_path, version):
    model = native(version)
    checkpoint = open_checkpoint(save_weights(model, tmp_path / "tiny.safetensors"))
    node = {"_target_": "swin_lab.models.SwinTransformer"} | model.config.as_dict()
    node |= {"img_size": 128, "window_size": 4, "num_classes": None, "pretrained_window_sizes": None}
    assert with_pretrained_windows(checkpoint, node) == ({} if version == 1 else {"pretrained_window_sizes": 2})


def test_a_node_of_another_network_is_refused(tmp_path):
    checkpoint = open_checkpoint(save_weights(native(1), tmp_path / "tiny.safetensors"))
    with pytest.raises(UserError, match="does not fit the model: embed_dim is 16 in the file and 96 in the model"):
        with_pretrained_windows(checkpoint, {"_target_": "swin_lab.models.SwinTransformer"})
