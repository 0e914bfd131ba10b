"""Files as people have them: with objects beside the weights, damaged, of another kind, on the hub; and 200 damaged ones."""

import argparse
import random
import sys
import types
from pathlib import Path

import httpx
import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from parts import ours, same_tensors, transformers_peer
from safetensors.torch import load_file, save_file

from swin_lab import load_model, save_weights
from swin_lab.errors import UserError
from swin_lab.weights import hub, load
from swin_lab.weights.layouts import LAYOUT_NAMES


@pytest.fixture
def model():
    return ours(1)


def assert_refused(file, *parts):
    with pytest.raises(UserError) as refusal:
        load(file)
    message = str(refusal.value)
    assert 1 <= len(message.splitlines()) <= 4
    for part in parts:
        assert part in message


class CfgNode(dict):
    """Looks as yacs' does to pickle."""


@pytest.fixture
def yacs(monkeypatch):
    """A module `yacs.config` that is there while a file is written, and not when it is read."""
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
    "beside", [argparse.Namespace(lr=1e-3), np.float64(81.2), Path("/data")], ids=["Namespace", "numpy", "path"]
)
def test_what_training_scripts_keep_beside_the_weights_is_no_hindrance(model, tmp_path, beside):
    torch.save({"state_dict": model.state_dict(), "beside": beside}, tmp_path / "run.pth.tar")
    assert same_tensors(load(tmp_path / "run.pth.tar")[0].state_dict(), model.state_dict())


class Burglar:
    """On unpickling it would create a file."""

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


def test_a_whole_pickled_model_says_what_it_holds(model, tmp_path):
    torch.save(model, tmp_path / "whole.pth")
    assert_refused(tmp_path / "whole.pth", "swin_lab.models.")


def test_a_torchscript_archive_is_refused_as_such(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "script.pt")
    assert_refused(tmp_path / "script.pt", "TorchScript archive, which holds code")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"weights, honestly", "damaged or no checkpoint"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_no_weight_file_is_told_apart(tmp_path, content, part, suffix):
    file = tmp_path / f"a{suffix}"
    file.write_bytes(content)
    assert_refused(file, str(file), "damaged" if suffix == ".safetensors" and content[:1] == b"w" else part)


@pytest.mark.parametrize("content", [{"model": {}, "epoch": 3}, {"a": 1}, {}, [1], torch.zeros(2)], ids=str)
def test_a_file_without_tensors_by_name_says_what_it_holds(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    assert_refused(tmp_path / "a.pth", "a.pth", "holds")


def test_a_folder_that_lacks_one_of_its_files_names_it(tmp_path):
    transformers_peer(1).save_pretrained(tmp_path / "parts", max_shard_size="100KB")
    lost = sorted((tmp_path / "parts").glob("*.safetensors"))[1]
    lost.unlink()
    assert_refused(tmp_path / "parts", lost.name, "not there")


def test_a_damaged_config_json_is_named(tmp_path):
    transformers_peer(1).save_pretrained(tmp_path / "hf")
    (tmp_path / "hf" / "config.json").write_text("{")
    assert_refused(tmp_path / "hf", "config.json is damaged")


def test_an_empty_folder_says_what_it_could_hold(tmp_path):
    assert_refused(tmp_path, "best.ckpt", "model.safetensors")


def test_the_name_of_a_model_is_no_file():
    assert_refused("swin_tiny_patch4_window7_224", "create_model", "timm/swin_tiny_patch4_window7_224.ms_in1k")


# The hub


class Api:
    """The hub as far as it is asked: files of one model."""

    def __init__(self, files, error=None):
        self.files, self.error = files, error

    def __call__(self):
        return self

    def model_info(self, hub_id, timeout):
        if self.error is not None:
            raise self.error
        return types.SimpleNamespace(siblings=[types.SimpleNamespace(rfilename=name) for name in self.files])


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A folder as the hub's client would leave it, and the names that were asked for."""
    transformers_peer(1).save_pretrained(tmp_path / "cache")
    asked = []

    def download(hub_id, name):
        asked.append((hub_id, name))
        return str(tmp_path / "cache" / name)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    monkeypatch.setattr(hub, "HfApi", Api(["model.safetensors", "pytorch_model.bin", "config.json", "README.md"]))
    return tmp_path / "cache", asked


def test_a_model_of_the_hub_is_fetched_with_its_configuration(repository):
    folder, asked = repository
    loaded, report = load("microsoft/swin-any")
    assert asked == [("microsoft/swin-any", "model.safetensors"), ("microsoft/swin-any", "config.json")]
    assert same_tensors(loaded.state_dict(), load(folder)[0].state_dict())
    assert "microsoft/swin-any" in str(report)


def test_without_network_the_cache_serves(repository, monkeypatch):
    folder, _ = repository
    monkeypatch.setattr(hub, "HfApi", Api([], httpx.ConnectError("no route")))
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda _id, name: str(folder / name))
    assert same_tensors(load("microsoft/swin-any")[0].state_dict(), load(folder)[0].state_dict())


def response(status):
    return httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co"))


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (httpx.ConnectError("no route to host"), "no route to host"),
        (huggingface_hub.errors.OfflineModeIsEnabled("offline"), "offline"),
        (RepositoryNotFoundError("404", response=response(404)), "there is no such model, and no such file or folder here"),
        (GatedRepoError("403", response=response(403)), "hf auth login"),
    ],
    ids=["no network", "offline", "no such model", "gated"],
)
def test_what_cannot_be_fetched_says_which_file_to_place_where(monkeypatch, error, part):
    monkeypatch.setattr(hub, "HfApi", Api([], error))
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_: None)
    assert_refused("someone/swin-none", part, "download model.safetensors and config.json", "give the folder")


def test_a_model_of_the_hub_without_weights_says_so(monkeypatch):
    monkeypatch.setattr(hub, "HfApi", Api(["README.md"]))
    assert_refused("someone/swin-none", "neither model.safetensors nor pytorch_model.bin")


@pytest.mark.parametrize("given", ["folder/none.pth", "./a/b", "/a/b", "a/b/c", "none.pth"])
def test_paths_are_told_from_hub_ids(given, monkeypatch):
    monkeypatch.setattr(hub, "HfApi", Api([], RepositoryNotFoundError("404", response=response(404))))
    assert_refused(given, "no such file or folder")


# Damage


def tensors_of(file):
    content = load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
    return next((v for v in content.values() if isinstance(v, dict)), content)


def write(tensors, file):
    if file.suffix == ".safetensors":
        save_file({k: v.contiguous() for k, v in tensors.items()}, file)
    else:
        torch.save(tensors, file)


def truncated(file, chance):
    content = file.read_bytes()
    file.write_bytes(content[: chance.randrange(len(content))])


def flipped(file, chance):
    content = bytearray(file.read_bytes())
    for _ in range(20):
        content[chance.randrange(min(len(content), 5000))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)


def on_tensors(change):
    def damage(file, chance):
        tensors = tensors_of(file)
        names = [name for name in tensors if not name.endswith(("index", "table", "attn_mask")) or "bias_table" in name]
        change(tensors, chance.choice(names), chance)
        write(tensors, file)

    return damage


def of_another_type(tensors, name, chance):
    tensors[name] = tensors[name].to(chance.choice([torch.int64, torch.bool, torch.complex64, torch.uint8]))


def missing(tensors, name, chance):
    del tensors[name]


def several_missing(tensors, name, chance):
    for gone in chance.sample(list(tensors), 12):
        del tensors[gone]


def renamed(tensors, name, chance):
    tensors[name.replace(".", "_", 1) + chance.choice("xyz")] = tensors.pop(name)


def duplicated(tensors, name, chance):
    tensors[f"module.{name}"] = tensors[name] + 1


def not_a_number(tensors, name, chance):
    tensors[name] = tensors[name].clone()
    tensors[name].view(-1)[0] = chance.choice([float("nan"), float("inf")])


def misshapen(tensors, name, chance):
    shapes = (tensors[name][..., None], tensors[name].flatten()[:1], torch.zeros(0), torch.zeros(()))
    tensors[name] = chance.choice(shapes).clone()


def further_stage(tensors, name, chance):
    tensors[name.replace("layers.1", "layers.7").replace("stages.1", "stages.7") + ".more"] = torch.ones(2)


def in_a_list(file, chance):
    torch.save(list(tensors_of(file).values()), file) if file.suffix != ".safetensors" else truncated(file, chance)


TENSOR_DAMAGES = (
    of_another_type,
    missing,
    several_missing,
    renamed,
    duplicated,
    not_a_number,
    misshapen,
    further_stage,
)
DAMAGES = (truncated, flipped, in_a_list, *map(on_tensors, TENSOR_DAMAGES))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Files of every layout and both kinds, without a card; and the state of the network in them."""
    folder, model = tmp_path_factory.mktemp("whole"), ours(1)
    files = []
    for name in LAYOUT_NAMES:
        source = save_weights(model, folder / (name if name == "huggingface" else f"{name}.pth"), name)
        tensors = load_file(source / "model.safetensors") if name == "huggingface" else tensors_of(source)
        for suffix in (".pth", ".safetensors"):
            files.append(folder / f"{name}_plain{suffix}")
            write(tensors, files[-1])
    return files, model.state_dict()


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("seed", range(100))
def test_a_damaged_file_is_refused_in_a_few_lines_or_its_report_tells_the_damage(whole, tmp_path, seed, strict):
    """200 cases: none ends in another error, none is loaded in part without a word."""
    files, state = whole
    chance = random.Random(seed)
    source = chance.choice(files)
    file = tmp_path / f"damaged{source.suffix}"
    file.write_bytes(source.read_bytes())
    DAMAGES[seed % len(DAMAGES)](file, chance)
    try:
        loaded, report = load(file, strict=strict)
    except UserError as error:
        refusal = str(error).splitlines()
    else:
        refusal = None
    if refusal is not None:
        assert 1 <= len(refusal) <= 5
        return
    told = any(label in str(report) for label in ("\nnew ", "\nunused ", "\nwarning ", "\nleft out "))
    assert told or same_tensors(loaded.state_dict(), state)
    if strict:
        assert same_tensors(loaded.state_dict(), state)


def test_all_kinds_of_files_of_that_test_load_when_they_are_whole(whole):
    files, state = whole
    for file in files:
        assert same_tensors(load(file)[0].state_dict(), state), file


# Writing


@pytest.mark.parametrize(
    ("name", "layout", "part"),
    [
        ("a.pth", "tim", "did you mean timm"),
        ("a.zip", "timm", "choose the ending"),
        ("a.pth", "huggingface", "is a folder"),
        ("none/a.pth", "timm", "is no folder"),
    ],
)
def test_what_cannot_be_written_is_refused(model, tmp_path, name, layout, part):
    with pytest.raises(UserError, match=part):
        save_weights(model, tmp_path / name, layout)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "folder"])
def test_nothing_is_overwritten(model, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        save_weights(model, tmp_path / name, "huggingface" if name == "folder" else "timm")
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize(
    ("layout", "changes", "part"),
    [
        ("torchvision", {"window_size": [2, 2, 4, 2]}, "one window for all stages"),
        ("torchvision", {"in_channels": 1}, "3 input channels"),
        ("torchvision", {"qkv_bias": False}, "always has a bias"),
        ("torchvision", {"num_classes": 0}, "always has a head"),
        ("torchvision", {"version": 2, "pretrained_window_sizes": 4}, "pretrained_window_sizes"),
        ("huggingface", {"window_size": [2, 2, 4, 2]}, "one square window"),
        ("official", {"window_size": [[2, 4]] * 4}, "one square window"),
    ],
)
def test_a_layout_that_cannot_express_the_model_says_why(tmp_path, layout, changes, part):
    with pytest.raises(UserError, match=part):
        save_weights(ours(**{"version": 1} | changes), tmp_path / ("a" if layout == "huggingface" else "a.pth"), layout)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_full_disk_leaves_no_part_of_a_file(model, tmp_path, monkeypatch, name):
    def full(*_arguments, **_keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="No space left on device"):
        save_weights(model, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_file_of_ours_says_all_of_itself(model, tmp_path):
    prepared = {"img_size": [64, 64], "channels": 3, "crop_pct": 0.9, "interpolation": "bicubic", "mean": [0.5], "std": [0.2]}
    model.card = {"class_names": list("abcde"), "preprocessing": prepared}
    for suffix in (".pth", ".safetensors"):
        back = load_model(save_weights(model, tmp_path / f"a{suffix}"))
        assert back.card == model.card
        assert back.config == model.config
