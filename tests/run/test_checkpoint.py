"""Finding and reading checkpoints: what is damaged, foreign or dangerous is refused in words, and no code of it runs."""

import pickle
import random
from pathlib import Path

import pytest
import torch

from swin_lab.card import CARD
from swin_lab.errors import UserError
from swin_lab.run.checkpoint import card_of_run, refuse_foreign_classes, tensors_of_run
from swin_lab.weights.files import find_file, read

CARD_OF_A_RUN = {
    "format": 1,
    "class_names": ["a", "b"],
    "model": {"depths": [2, 2]},
    "preprocessing": {},
    "precision": "32-true",
    "device_batch": 4,
    "config": {},
}


@pytest.fixture
def whole(tmp_path):
    state = {"network.head.weight": torch.arange(6.0).reshape(2, 3), "val_loss.value": torch.zeros(1)}
    torch.save({CARD: CARD_OF_A_RUN, "state_dict": state}, tmp_path / "whole.ckpt")
    return tmp_path / "whole.ckpt"


def run_directory(top, *names):
    (top / "checkpoints").mkdir()
    for name in names:
        (top / "checkpoints" / name).write_bytes(b"x")


def assert_refused(file):
    """The message with which a file is refused: one to three lines that name it."""

    def read_all():
        contents = read(file)
        return card_of_run(contents), tensors_of_run(contents)

    with pytest.raises(UserError) as raised:
        read_all()
    message = str(raised.value)
    assert 1 <= len(message.splitlines()) <= 3
    assert str(file) in message
    return message


def test_a_file_is_itself(whole):
    assert find_file(str(whole)) == whole


def test_a_relative_path_becomes_absolute(whole, monkeypatch):
    monkeypatch.chdir(whole.parent)
    assert find_file("whole.ckpt") == whole


def test_a_tilde_is_the_home_folder(whole, monkeypatch):
    monkeypatch.setenv("HOME", str(whole.parent))
    assert find_file("~/whole.ckpt") == whole


def test_of_a_run_directory_the_best_checkpoint_is_meant(tmp_path):
    run_directory(tmp_path, "best.ckpt", "last.ckpt")
    assert find_file(str(tmp_path)) == tmp_path / "checkpoints" / "best.ckpt"


def test_of_a_run_without_a_best_checkpoint_the_last_is_meant(tmp_path):
    run_directory(tmp_path, "last.ckpt")
    assert find_file(str(tmp_path)) == tmp_path / "checkpoints" / "last.ckpt"


def test_the_folder_of_the_checkpoints_itself_may_be_given(tmp_path):
    run_directory(tmp_path, "best.ckpt", "last.ckpt")
    assert find_file(str(tmp_path / "checkpoints")) == tmp_path / "checkpoints" / "best.ckpt"


def test_a_folder_without_checkpoints_is_no_run_directory(tmp_path):
    run_directory(tmp_path, "epoch=3.ckpt")
    with pytest.raises(UserError, match=r"no checkpoints/best\.ckpt or checkpoints/last\.ckpt"):
        find_file(str(tmp_path))


def test_a_path_that_does_not_exist_is_named_as_given():
    with pytest.raises(UserError, match=r"nowhere/best\.ckpt: there is no such file or folder"):
        find_file("nowhere/best.ckpt")


def test_a_whole_checkpoint_gives_its_card_and_the_network_s_tensors_alone(whole):
    contents = read(whole)
    tensors = tensors_of_run(contents)
    assert card_of_run(contents) == CARD_OF_A_RUN
    assert list(tensors) == ["head.weight"]
    assert torch.equal(tensors["head.weight"], torch.arange(6.0).reshape(2, 3))


def test_an_empty_file_is_called_empty(tmp_path):
    (tmp_path / "a.ckpt").touch()
    assert "is empty" in assert_refused(tmp_path / "a.ckpt")


@pytest.mark.parametrize("kept", [1, 30, 0.3, 0.7, 0.99])
def test_a_checkpoint_that_ends_too_early_is_refused(whole, kept):
    content = whole.read_bytes()
    whole.write_bytes(content[: kept if kept >= 1 else int(len(content) * kept)])
    assert_refused(whole)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.99])
def test_a_checkpoint_of_old_torch_that_ends_too_early_is_refused(tmp_path, kept):
    file = tmp_path / "old.pth"
    torch.save({"model": {"w": torch.zeros(9)}}, file, _use_new_zipfile_serialization=False)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])
    assert_refused(file)


@pytest.mark.parametrize("seed", range(40))
def test_random_bytes_are_refused(tmp_path, seed):
    chance = random.Random(seed)
    (tmp_path / "a.ckpt").write_bytes(chance.randbytes(chance.choice([1, 10, 100, 1000])))
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


def test_of_a_long_story_that_torch_tells_only_the_first_line_is_passed_on(whole, monkeypatch):
    def long_story(*_args, **_kwargs):
        raise RuntimeError("it is broken\n" + "at this line\n" * 9)

    monkeypatch.setattr(torch, "load", long_story)
    assert assert_refused(whole).endswith("it is broken")


class Burglar:
    """On unpickling it would create a file."""

    def __init__(self, loot):
        self.loot = loot

    def __reduce__(self):
        return Path.touch, (self.loot,)


@pytest.mark.parametrize("how", ["zip", "old", "pickle"])
def test_code_in_a_checkpoint_is_not_executed(tmp_path, how):
    file, loot = tmp_path / "a.ckpt", tmp_path / "loot"
    content = {CARD: {"model": Burglar(loot)}, "state_dict": {}}
    if how == "pickle":
        file.write_bytes(pickle.dumps(content, protocol=2))  # torch's own
    else:
        torch.save(content, file, _use_new_zipfile_serialization=how == "zip")
    assert "objects" in assert_refused(file)
    assert not loot.exists()


def test_the_burglar_of_that_test_would_have_done_it(tmp_path):
    pickle.loads(pickle.dumps(Burglar(tmp_path / "loot")))
    assert (tmp_path / "loot").exists()


def test_weights_that_come_from_no_run_have_no_card(tmp_path):
    torch.save({"model": {"w": torch.zeros(1)}, "epoch": 3}, tmp_path / "a.ckpt")
    assert card_of_run(read(tmp_path / "a.ckpt")) is None


@pytest.mark.parametrize("content", [torch.zeros(2), [1, 2]], ids=["tensor", "list"])
def test_what_is_no_dict_is_told_apart_by_what_it_holds(tmp_path, content):
    torch.save(content, tmp_path / "a.ckpt")
    assert type(content).__name__ in assert_refused(tmp_path / "a.ckpt")


@pytest.mark.parametrize("content", [{CARD: {"config": {}}}, {CARD: CARD_OF_A_RUN, "state_dict": 3}], ids=["none", "a-number"])
def test_a_card_without_weights_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.ckpt")
    assert_refused(tmp_path / "a.ckpt")


def test_a_directory_is_refused(tmp_path):
    assert_refused(tmp_path)


def test_classes_of_this_project_are_built():
    nodes = {"model": {"_target_": "swin_lab.models.SwinTransformer"}, "data": {"_target_": "swin_lab.data.Digits"}}
    refuse_foreign_classes(Path("a.ckpt"), nodes)


@pytest.mark.parametrize("target", ["os.system", "swin_lab.models.SwinTransformer.__init__", "swin_lab.evil", None])
def test_a_class_from_elsewhere_needs_trust(target):
    with pytest.raises(UserError, match=r"(?s)a\.ckpt wants to build its model .*trust=true"):
        refuse_foreign_classes(Path("a.ckpt"), {"model": {"_target_": target}})


@pytest.mark.parametrize("wrap", [lambda node: node, lambda node: [node], lambda node: {"deeper": node}])
def test_a_class_from_elsewhere_inside_a_node_of_ours_needs_trust_too(wrap):
    """Hydra builds nested nodes first: such a value would be called before our class could refuse it."""
    node = {"_target_": "swin_lab.models.SwinTransformer", "img_size": wrap({"_target_": "os.mkdir", "path": "loot"})}
    with pytest.raises(UserError, match=r"os\.mkdir"):
        refuse_foreign_classes(Path("a.ckpt"), {"model": node})
