"""Finding and reading checkpoints: damaged, unknown and unsafe files are refused, and code in them does not run."""

import pickle
import random
from pathlib import Path

import pytest
import torch

from swin_lab.errors import UserError
from swin_lab.metadata import METADATA_KEY, Metadata, RunMetadata
from swin_lab.weights import read_source
from swin_lab.weights.files import find_file

METADATA = Metadata(
    class_names=("a", "b"),
    model={"_target_": "custom.Net", "depths": [2, 2]},
    run=RunMetadata(precision="32-true", device_batch=4, config={}),
)


@pytest.fixture
def intact(tmp_path):
    state = {"network.head.weight": torch.arange(6.0).reshape(2, 3), "val_loss.value": torch.zeros(1)}
    torch.save({METADATA_KEY: METADATA.as_dict(), "state_dict": state}, tmp_path / "intact.ckpt")
    return tmp_path / "intact.ckpt"


def run_directory(top, *names):
    (top / "checkpoints").mkdir()
    for name in names:
        (top / "checkpoints" / name).write_bytes(b"x")


def assert_refused(file):
    """Checks that a file is refused in one to three lines that name it; returns the message."""

    def read_all():
        return read_source(file).network_tensors()

    with pytest.raises(UserError) as raised:
        read_all()
    message = str(raised.value)
    assert 1 <= len(message.splitlines()) <= 3
    assert str(file) in message
    return message


def test_a_file_is_found_by_its_path(intact):
    assert find_file(str(intact)) == intact


def test_a_relative_path_becomes_absolute(intact, monkeypatch):
    monkeypatch.chdir(intact.parent)
    assert find_file("intact.ckpt") == intact


def test_a_tilde_is_the_home_folder(intact, monkeypatch):
    monkeypatch.setenv("HOME", str(intact.parent))
    assert find_file("~/intact.ckpt") == intact


def test_the_best_checkpoint_of_a_run_directory_is_found(tmp_path):
    run_directory(tmp_path, "best.ckpt", "last.ckpt")
    assert find_file(str(tmp_path)) == tmp_path / "checkpoints" / "best.ckpt"


def test_without_a_best_checkpoint_the_last_one_is_found(tmp_path):
    run_directory(tmp_path, "last.ckpt")
    assert find_file(str(tmp_path)) == tmp_path / "checkpoints" / "last.ckpt"


def test_the_best_checkpoint_of_the_folder_checkpoints_is_found(tmp_path):
    run_directory(tmp_path, "best.ckpt", "last.ckpt")
    assert find_file(str(tmp_path / "checkpoints")) == tmp_path / "checkpoints" / "best.ckpt"


def test_a_folder_without_checkpoints_is_refused(tmp_path):
    run_directory(tmp_path, "epoch=3.ckpt")
    with pytest.raises(UserError, match=r"no checkpoints/best\.ckpt or checkpoints/last\.ckpt"):
        find_file(str(tmp_path))


def test_a_path_that_does_not_exist_is_named_as_given():
    with pytest.raises(UserError, match=r"nowhere/best\.ckpt does not exist"):
        find_file("nowhere/best.ckpt")


def test_a_checkpoint_has_its_metadata_and_the_network_s_tensors(intact):
    contents = read_source(intact)
    tensors = contents.network_tensors()
    assert contents.metadata == METADATA
    assert list(tensors) == ["head.weight"]
    assert torch.equal(tensors["head.weight"], torch.arange(6.0).reshape(2, 3))


def test_an_empty_file_is_refused_as_empty(tmp_path):
    (tmp_path / "a.ckpt").touch()
    assert "is empty" in assert_refused(tmp_path / "a.ckpt")


@pytest.mark.parametrize("size", [1, 30, 0.3, 0.7, 0.99])
def test_a_truncated_checkpoint_is_refused(intact, size):
    content = intact.read_bytes()
    intact.write_bytes(content[: size if size >= 1 else int(len(content) * size)])
    assert_refused(intact)


@pytest.mark.parametrize("size", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_checkpoint_in_the_old_format_of_torch_is_refused(tmp_path, size):
    file = tmp_path / "old.pth"
    torch.save({"model": {"w": torch.zeros(9)}}, file, _use_new_zipfile_serialization=False)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * size)])
    assert_refused(file)


@pytest.mark.parametrize("seed", range(40))
def test_random_bytes_are_refused(tmp_path, seed):
    rng = random.Random(seed)
    (tmp_path / "a.ckpt").write_bytes(rng.randbytes(rng.choice([1, 10, 100, 1000])))
    assert_refused(tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    "text",
    [
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n",
        "<!DOCTYPE html><html><body>404: Not Found</body></html>",
        '{"model": "swin"}',
        "model: swin\n",
        "# a comment\n",
        "a b",
        "tar",
        "}",
        "\n",
    ],
)
def test_a_text_file_is_refused(tmp_path, text):
    (tmp_path / "a.ckpt").write_text(text)
    assert_refused(tmp_path / "a.ckpt")


def test_only_the_first_line_of_a_long_error_of_torch_is_shown(intact, monkeypatch):
    def long_error(*_args, **_kwargs):
        raise RuntimeError("it is broken\n" + "at this line\n" * 9)

    monkeypatch.setattr(torch, "load", long_error)
    assert assert_refused(intact).endswith("it is broken")


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, created):
        self.created = created

    def __reduce__(self):
        return Path.touch, (self.created,)


@pytest.mark.parametrize("how", ["zip", "old", "pickle"])
def test_code_in_a_checkpoint_is_not_executed(tmp_path, how):
    file, created = tmp_path / "a.ckpt", tmp_path / "created"
    content = {METADATA_KEY: {"model": Malicious(created)}, "state_dict": {}}
    if how == "pickle":
        file.write_bytes(pickle.dumps(content, protocol=2))  # the protocol that torch writes
    else:
        torch.save(content, file, _use_new_zipfile_serialization=how == "zip")
    assert "objects" in assert_refused(file)
    assert not created.exists()


def test_the_code_of_that_test_runs_when_it_is_unpickled(tmp_path):
    pickle.loads(pickle.dumps(Malicious(tmp_path / "created")))
    assert (tmp_path / "created").exists()


def test_a_file_that_was_not_written_by_a_run_has_no_metadata(tmp_path):
    torch.save({"model": {"w": torch.zeros(1)}, "epoch": 3}, tmp_path / "a.ckpt")
    assert read_source(tmp_path / "a.ckpt").metadata is None


def test_a_checkpoint_of_another_format_is_refused_with_the_next_step(tmp_path):
    torch.save({METADATA_KEY: METADATA.as_dict() | {"format": 1}, "state_dict": {}}, tmp_path / "a.ckpt")
    message = assert_refused(tmp_path / "a.ckpt")
    assert "metadata format 1; this version reads 2" in message
    assert "swin-lab convert" in message


@pytest.mark.parametrize("content", [torch.zeros(2), [1, 2]], ids=["tensor", "list"])
def test_contents_that_are_not_a_dict_are_refused_with_their_type(tmp_path, content):
    torch.save(content, tmp_path / "a.ckpt")
    assert type(content).__name__ in assert_refused(tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    "content",
    [{METADATA_KEY: {"run": {}}}, {METADATA_KEY: METADATA.as_dict(), "state_dict": 3}],
    ids=["none", "a-number"],
)
def test_metadata_without_weights_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.ckpt")
    assert_refused(tmp_path / "a.ckpt")


def test_a_directory_is_refused(tmp_path):
    assert_refused(tmp_path)
