"""Zip archives of torch that are damaged, ambiguous or grow without limit, and files under the name of another kind."""

import io
import json
import struct
import zipfile

import pytest
import torch
from parts import assert_refused, native, same_tensors
from safetensors.torch import save, save_file

from swin_lab.metadata import METADATA_KEY
from swin_lab.weights import archive, load


@pytest.fixture
def file(tmp_path):
    torch.save({"model": native(1).state_dict()}, tmp_path / "a.pth")
    return tmp_path / "a.pth"


def test_a_byte_that_changed_inside_a_tensor_is_noticed(file):
    """torch does not compare the checksums of its archive."""
    value = native(1).state_dict()["head.weight"].numpy().tobytes()[:16]
    content = bytearray(file.read_bytes())
    content[content.index(value)] ^= 1
    file.write_bytes(content)
    torch.load(file)
    assert_refused(file, "is damaged", "CRC")


def test_a_file_that_torch_wrote_without_checksums_is_loaded(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"model": native(1).state_dict()}, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert same_tensors(load(tmp_path / "a.pth")[0].state_dict(), native(1).state_dict())


def rewritten(file, compression=zipfile.ZIP_STORED, further=()):
    """Writes the records of an archive again, and further ones."""
    written = io.BytesIO()
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(written, "w", compression) as new:
        for record in old.infolist():
            new.writestr(record.filename, old.read(record))
        for name, content in further:
            new.writestr(name, content)
    file.write_bytes(written.getvalue())


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_records_of_one_name_are_refused(file):
    rewritten(file, further=[("a/data.pkl", b"\x80\x02}.")])
    assert_refused(file, "2 records named a/data.pkl")


def test_an_archive_that_grows_without_limit_is_refused(file, monkeypatch):
    monkeypatch.setattr(archive, "ALWAYS_ALLOWED", 0)
    rewritten(file, zipfile.ZIP_DEFLATED, [("a/data/999", bytes(2**24))])
    assert_refused(file, "in memory")


def test_an_archive_without_contents_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as empty:
        empty.writestr("a/b", "c")
    assert_refused(tmp_path / "a.pth", "a.pth")


# Kinds of files


@pytest.mark.parametrize("length", [ord("<"), ord("<") + 256 * ord("!"), 0x80, 0x280], ids=["<", "<!", "pickle", "pickle 2"])
def test_a_safetensors_file_whose_header_begins_like_another_kind_of_file_is_loaded(tmp_path, length):
    """The header begins with its length, which may be the number of a character."""
    state = native(1).state_dict()
    content = save(state)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    text = json.dumps(header).encode()
    length += -(-max(0, len(text) - length) // 2**16) * 2**16  # The first two bytes stay the same.
    body = content[8 + int.from_bytes(content[:8], "little") :]
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", length) + text.ljust(length) + body)
    assert same_tensors(load(tmp_path / "a.safetensors")[0].state_dict(), state)


@pytest.mark.parametrize("page", [b"<!DOCTYPE html>", b"\n <html>", b"\xef\xbb\xbf<?xml version='1.0'?>"])
def test_a_web_page_is_called_one(tmp_path, page):
    (tmp_path / "a.safetensors").write_bytes(page)
    assert_refused(tmp_path / "a.safetensors", "is a web page")


def test_a_text_file_is_called_one(tmp_path):
    (tmp_path / "a.pth").write_text("error: no such file\n")
    assert_refused(tmp_path / "a.pth", "is text, not weights")


def test_a_safetensors_file_under_the_name_of_another_kind_is_loaded(tmp_path):
    save_file(native(1).state_dict(), tmp_path / "a.pth")
    assert same_tensors(load(tmp_path / "a.pth")[0].state_dict(), native(1).state_dict())


def test_a_torch_file_that_is_named_safetensors_is_refused_with_the_next_step(file):
    assert_refused(file.rename(file.with_suffix(".safetensors")), "rename it to a.pth")


HEADERS = {
    "too large": {"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}},
    "nothing of a huge shape": {"a": {"dtype": "F32", "shape": [0, 10**18], "data_offsets": [0, 0]}},
    "nested metadata": {"__metadata__": {METADATA_KEY: "[" * 100_000}},
    "a long number": {"__metadata__": {METADATA_KEY: '{"format":' + "9" * 6000 + "}"}},
    "no object": {"__metadata__": {METADATA_KEY: "NaN"}},
    "empty": {},
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_damaged_header_of_safetensors_is_refused(tmp_path, header):
    text = json.dumps(header).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    assert_refused(tmp_path / "a.safetensors", "a.safetensors")


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody-of-this-name/a.pth", "/dev/zero"])
def test_a_path_that_cannot_be_read_is_refused(name):
    assert_refused(name, name[:50])


@pytest.mark.parametrize("content", ["[" * 100_000, '{"image_size": ' + "9" * 5000 + "}", "\ufeff{}"])
def test_a_damaged_description_beside_the_weights_is_named(tmp_path, content):
    save_file(native(1).state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(content)
    assert_refused(tmp_path, "config.json is damaged")
