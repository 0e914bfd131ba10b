"""Writing weights: what cannot be written is refused, nothing is overwritten, no part of a file is left."""

from pathlib import Path

import pytest
import torch
from parts import native

from swin_lab import load_model, save_weights
from swin_lab.errors import UserError
from swin_lab.preprocessing import Preprocessing


@pytest.fixture
def model():
    return native(1)


@pytest.mark.parametrize(
    ("name", "layout", "part"),
    [
        ("a.pth", "tim", "did you mean timm"),
        ("a.zip", "timm", "choose the ending"),
        ("a.pth", "huggingface", "is a folder"),
        ("none/a.pth", "timm", "is not a folder"),
    ],
)
def test_targets_that_cannot_be_written_are_refused(model, tmp_path, name, layout, part):
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
def test_a_layout_that_cannot_express_the_model_is_refused_with_the_reason(tmp_path, layout, changes, part):
    with pytest.raises(UserError, match=part):
        save_weights(native(**{"version": 1} | changes), tmp_path / ("a" if layout == "huggingface" else "a.pth"), layout)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_full_disk_leaves_no_partial_file(model, tmp_path, monkeypatch, name):
    def full(*_arguments, **_keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="No space left on device"):
        save_weights(model, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_native_file_contains_class_names_preprocessing_and_config(model, tmp_path):
    model.class_names = tuple("abcde")
    model.preprocessing = Preprocessing(
        img_size=(64, 64), channels=3, crop_pct=0.9, interpolation="bicubic", mean=(0.5,) * 3, std=(0.2,) * 3
    )
    for suffix in (".pth", ".safetensors"):
        back = load_model(save_weights(model, tmp_path / f"a{suffix}"))
        assert (back.class_names, back.preprocessing, back.config) == (model.class_names, model.preprocessing, model.config)
