"""Files as users have them: with further objects, with code, of another kind, without weights."""

import argparse
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from parts import assert_refused, native, same_tensors, transformers_reference

from swin_lab.weights import load


@pytest.fixture
def model():
    return native(1)


class CfgNode(dict):
    """Is pickled like the class of yacs."""


@pytest.fixture
def yacs(monkeypatch):
    """Provides a module `yacs.config` while a file is written; it is absent when the file is read."""
    module = types.ModuleType("yacs.config")
    module.CfgNode = CfgNode
    CfgNode.__module__ = "yacs.config"
    monkeypatch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", module)
    yield
    CfgNode.__module__ = __name__


@pytest.mark.parametrize("zipped", [True, False])
def test_an_official_file_with_its_configuration_object_loads(model, yacs, tmp_path, zipped):
    config = CfgNode({"MODEL": CfgNode({"TYPE": "swin", "SWIN": CfgNode({"DEPTHS": [2, 2, 6, 2]})})})
    config.__dict__["__deprecated_keys__"] = set()
    content = {"model": model.state_dict(), "config": config, "epoch": 299}
    torch.save(content, tmp_path / "official.pth", _use_new_zipfile_serialization=zipped)
    del sys.modules["yacs.config"]
    assert same_tensors(load(tmp_path / "official.pth")[0].state_dict(), model.state_dict())


@pytest.mark.parametrize(
    "further", [argparse.Namespace(lr=1e-3), np.float64(81.2), Path("/data")], ids=["Namespace", "numpy", "path"]
)
def test_files_with_further_objects_of_training_scripts_load(model, tmp_path, further):
    torch.save({"state_dict": model.state_dict(), "further": further}, tmp_path / "run.pth.tar")
    assert same_tensors(load(tmp_path / "run.pth.tar")[0].state_dict(), model.state_dict())


class Burglar:
    """Creates a file when it is unpickled."""

    def __init__(self, loot):
        self.loot = loot

    def __reduce__(self):
        return Path.touch, (self.loot,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_named_and_not_run(model, tmp_path, zipped):
    file, loot = tmp_path / "evil.pth", tmp_path / "loot"
    torch.save({"model": model.state_dict(), "x": Burglar(loot)}, file, _use_new_zipfile_serialization=zipped)
    assert_refused(file, "evil.pth is not loaded", "getattr", "torch.save(model.state_dict()")
    assert not loot.exists()


def test_a_pickled_model_is_refused_and_its_class_named(model, tmp_path):
    torch.save(model, tmp_path / "whole.pth")
    assert_refused(tmp_path / "whole.pth", "swin_lab.models.")


def test_a_torchscript_archive_is_refused(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "script.pt")
    assert_refused(tmp_path / "script.pt", "TorchScript archive, which contains code")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"weights, honestly", "is text, not weights"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_that_are_not_weights_are_refused_with_the_reason(tmp_path, content, part, suffix):
    file = tmp_path / f"a{suffix}"
    file.write_bytes(content)
    assert_refused(file, str(file), part)


@pytest.mark.parametrize("content", [{"model": {}, "epoch": 3}, {"a": 1}, {}, [1], torch.zeros(2)], ids=str)
def test_a_file_without_named_tensors_is_refused_with_its_contents(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    assert_refused(tmp_path / "a.pth", "a.pth", "tensors by name")


def test_a_missing_shard_is_named(tmp_path):
    transformers_reference(1).save_pretrained(tmp_path / "parts", max_shard_size="100KB")
    lost = sorted((tmp_path / "parts").glob("*.safetensors"))[1]
    lost.unlink()
    assert_refused(tmp_path / "parts", lost.name, "does not exist")


def test_a_damaged_config_json_is_named(tmp_path):
    transformers_reference(1).save_pretrained(tmp_path / "hf")
    (tmp_path / "hf" / "config.json").write_text("{")
    assert_refused(tmp_path / "hf", "config.json is damaged")


def test_the_message_for_an_empty_folder_names_the_expected_files(tmp_path):
    assert_refused(tmp_path, "best.ckpt", "model.safetensors")


def test_the_name_of_a_model_is_refused_with_its_hub_id():
    assert_refused("swin_tiny_patch4_window7_224", "create_model", "timm/swin_tiny_patch4_window7_224.ms_in1k")
