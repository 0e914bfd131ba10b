"""Weights of the hub: found, downloaded once, and clear errors when they cannot be."""

import types

import httpx
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


@pytest.mark.parametrize("given", ["folder/none.pth", "./a/b", "/a/b", "a/b/c", "none.pth"])
def test_paths_are_not_taken_for_hub_ids(given, monkeypatch):
    monkeypatch.setattr(hub, "HfApi", Api([], RepositoryNotFoundError("404", response=response(404))))
    assert_refused(given, "does not exist")
