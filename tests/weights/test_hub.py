"""Weights of the hub: found, downloaded once, and clear errors when they cannot be."""

import types

import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from parts import assert_refused, same_tensors, transformers_reference

from swin_lab.weights import hub, load


class Api:
    """Replaces the hub's client: lists the files of one model."""

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
    """Returns a folder as the hub's client would download it, and the list of requested files."""
    transformers_reference(1).save_pretrained(tmp_path / "cache")
    requested = []

    def download(hub_id, name):
        requested.append((hub_id, name))
        return str(tmp_path / "cache" / name)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    monkeypatch.setattr(hub, "HfApi", Api(["model.safetensors", "pytorch_model.bin", "config.json", "README.md"]))
    return tmp_path / "cache", requested


def test_a_model_of_the_hub_is_fetched_with_its_configuration(repository):
    folder, requested = repository
    loaded, report = load("microsoft/swin-any")
    assert requested == [("microsoft/swin-any", "model.safetensors"), ("microsoft/swin-any", "config.json")]
    assert same_tensors(loaded.state_dict(), load(folder)[0].state_dict())
    assert "microsoft/swin-any" in str(report)


def test_without_network_the_hub_s_cache_is_used(repository, monkeypatch):
    folder, _ = repository
    monkeypatch.setattr(hub, "HfApi", Api([], OSError("no route")))
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda _id, name: str(folder / name))
    assert same_tensors(load("microsoft/swin-any")[0].state_dict(), load(folder)[0].state_dict())


def response(status):
    """Returns what the hub's errors read of a response, which is of requests or of httpx, depending on the release."""
    return types.SimpleNamespace(status_code=status, headers={}, request=None)


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (OSError("no route to host"), "no route to host"),
        (huggingface_hub.errors.OfflineModeIsEnabled("offline"), "offline"),
        (RepositoryNotFoundError("404", response=response(404)), "the hub has no such model, and the path does not exist"),
        (GatedRepoError("403", response=response(403)), "hf auth login"),
    ],
    ids=["no network", "offline", "no such model", "gated"],
)
def test_a_failed_download_says_which_file_to_place_where(monkeypatch, error, part):
    monkeypatch.setattr(hub, "HfApi", Api([], error))
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_: None)
    assert_refused("someone/swin-none", part, "download model.safetensors and config.json", "give the folder")


def test_a_hub_model_without_weights_is_refused(monkeypatch):
    monkeypatch.setattr(hub, "HfApi", Api(["README.md"]))
    assert_refused("someone/swin-none", "neither model.safetensors nor pytorch_model.bin")


FILES = [f"folder/x{suffix}" for suffix in (".PTH", ".onnx", ".npz", ".pkl", ".zip", ".Json")]


@pytest.mark.parametrize(
    "given",
    [
        "folder/none.pth",
        "weights/swin_tiny.safetensors",
        "./a/b",
        "/a/b",
        "a/b/c",
        "none.pth",
        "existing/name",
        *FILES,
    ],
)
def test_paths_are_not_looked_up_on_the_hub(given, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "existing").mkdir()
    monkeypatch.setattr(hub, "HfApi", lambda: pytest.fail("the hub was asked"))
    assert_refused(given, "does not exist")


@pytest.mark.parametrize("given", ["weights/swin_tiny.pth", "weights/swin_tinny", "swin_tin.pth"])
def test_for_a_mistyped_path_similar_files_in_its_folder_are_named(given, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    for folder in (tmp_path, tmp_path / "weights"):
        (folder / "swin_tiny_22k.pth").touch()
    assert_refused(given, f"{given} does not exist; did you mean", "swin_tiny_22k.pth?")


def test_for_a_path_in_a_missing_folder_the_folder_is_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert_refused("weihgts/swin_tiny.pth", f"there is no folder {tmp_path / 'weihgts'}")
