"""JSON beside the weights and in their metadata: its size, its class names, and the files that it lists."""

import json

import pytest
from conftest import Command
from parts import native
from safetensors.torch import load_file, save_file

from swin_lab import save_weights
from swin_lab.errors import UserError
from swin_lab.metadata import METADATA_KEY
from swin_lab.weights import files, open_checkpoint, read_source


def folder_of_transformers(folder, **changes):
    """Writes a folder of transformers without metadata of swin_lab; returns it."""
    save_weights(native(), folder / "a", "huggingface")
    weights, config = folder / "a" / "model.safetensors", folder / "a" / "config.json"
    save_file(load_file(weights), weights, {"format": "pt"})
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    return folder / "a"


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["a\x1b[31m", "b", "c", "d", "e"], "control"),
        (["a\nb", "b", "c", "d", "e"], "line breaks"),
        (["a", "a", "c", "d", "e"], "the same name"),
        (["", "b", "c", "d", "e"], "not empty"),
        ([None, {}, "c", "d", "e"], "not strings"),
    ],
)
def test_class_names_that_cannot_be_used_are_left_out_with_a_note(cli: Command, tmp_path, names, why):
    folder = folder_of_transformers(tmp_path, id2label=dict(enumerate(names)))
    checkpoint = open_checkpoint(folder)
    assert checkpoint.class_names is None
    assert why in " ".join(checkpoint.notes)
    outcome = cli("inspect", str(folder))
    assert all(line.isprintable() for line in outcome.out.splitlines())


@pytest.mark.parametrize("part", ["/etc/passwd", "../a.safetensors", "b/../../a.safetensors", ".."])
def test_a_part_outside_the_folder_is_refused_as_that(tmp_path, part):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": part}}))
    with pytest.raises(UserError, match="outside the folder"):
        read_source(tmp_path)


@pytest.mark.parametrize("part", ["a" * 5000, "a\0b", "\udcff", "a\x1b"])
def test_a_part_whose_name_is_none_does_not_exist(tmp_path, part):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": part}}))
    with pytest.raises(UserError, match="does not exist") as refusal:
        read_source(tmp_path)
    assert str(refusal.value).isprintable()


def test_config_json_is_not_read_beside_metadata(tmp_path):
    save_weights(native(), tmp_path / "a", "huggingface")
    (tmp_path / "a" / "config.json").write_text("{")
    assert read_source(tmp_path / "a").config == {}


def test_metadata_is_bounded_before_it_is_parsed(tmp_path, monkeypatch):
    save_file(native().state_dict(), tmp_path / "a.safetensors", {METADATA_KEY: "[" + "[]," * 2_000_000 + "0]"})
    monkeypatch.setattr(files.json, "loads", lambda _: pytest.fail("it was parsed"))
    with pytest.raises(UserError, match="has more than"):
        read_source(tmp_path / "a.safetensors")


def test_a_large_config_json_is_not_parsed(tmp_path, monkeypatch):
    folder = folder_of_transformers(tmp_path)
    (folder / "config.json").write_text('{"a": [' + "[]," * 2_000_000 + "0]}")
    monkeypatch.setattr(files.json, "loads", lambda _: pytest.fail("it was parsed"))
    with pytest.raises(UserError, match="has more than"):
        read_source(folder)
