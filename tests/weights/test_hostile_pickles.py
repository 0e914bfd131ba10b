"""Pickles that torch's restricted reader accepts, and that would cost time, memory or a traceback."""

import zipfile
from collections import OrderedDict

import pytest
import torch
from parts import native

from swin_lab import load_model
from swin_lab.errors import UserError
from swin_lab.weights import read_source


def zipped(folder, pickle):
    """Writes a torch file with a pickle made by hand."""
    with zipfile.ZipFile(folder / "a.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + pickle)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")
    return folder / "a.pth"


def test_a_dict_that_occurs_often_is_visited_once(tmp_path):
    nested = {i: torch.zeros(1) for i in range(200)}
    for _ in range(5):
        nested = dict.fromkeys(range(200), nested)  # 200^6 paths lead to a tensor.
    torch.save(nested, tmp_path / "a.pth")
    assert len(read_source(tmp_path / "a.pth").state) == 200


def test_a_dict_that_contains_itself_is_read(tmp_path):
    state = {"weight": torch.zeros(1)}
    state["self"] = state
    torch.save(state, tmp_path / "a.pth")
    read = read_source(tmp_path / "a.pth").state["self"]
    assert read["self"] is read


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (b"c__builtin__\nbytearray\nK\x08\x85R", "bytearray"),
        (b"cbuiltins\nbytearray\nK\x08\x85R", "bytearray"),
        (b"ctorch\nFloatTensor\nK\x08\x85R", "torch.FloatTensor"),
        (b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x08\x00\x00\x00punycode\x86R", "punycode"),
    ],
)
def test_calls_that_take_unlimited_memory_or_time_are_refused(tmp_path, call, name, is_zip):
    content = b"}X\x01\x00\x00\x00a" + call + b"s."
    file = zipped(tmp_path, content)
    if not is_zip:
        torch.save(1, file, _use_new_zipfile_serialization=False)
        file.write_bytes(file.read_bytes().replace(b"\x80\x02K\x01.", b"\x80\x02" + content))
    with pytest.raises(UserError, match=f"is not loaded: .*{name}"):
        read_source(file)


@pytest.mark.parametrize("nested", [True, False])
def test_attributes_of_a_dict_do_not_hide_its_methods(tmp_path, nested):
    shadowed = b"ccollections\nOrderedDict\n)R}(X\x05\x00\x00\x00itemsK\x05X\x06\x00\x00\x00valuesK\x05ub"
    file = zipped(tmp_path, (b"}X\x05\x00\x00\x00model" + shadowed + b"s." if nested else shadowed + b"."))
    with pytest.raises(UserError, match="no tensors by name"):
        load_model(file)


def test_attributes_of_a_tensor_do_not_hide_its_methods(tmp_path):
    state = OrderedDict(native().state_dict())
    state["head.bias"] = torch.nn.Parameter(state["head.bias"])
    state["head.bias"].numel = 4
    torch.save(dict(state), tmp_path / "a.pth")
    assert torch.equal(load_model(tmp_path / "a.pth").head.bias, state["head.bias"])


@pytest.mark.parametrize("key", ["\x1b[31ma", "a\nerror: b\nc\nd\ne", "a" * 100_000, "\x07\u2028"])
def test_names_in_a_file_are_printed_in_three_short_lines_without_control_characters(tmp_path, key):
    torch.save({key: 1}, tmp_path / "a.pth")
    with pytest.raises(UserError) as refusal:
        load_model(tmp_path / "a.pth")
    lines = str(refusal.value).split("\n")
    assert len(lines) <= 3
    assert all(line.isprintable() and len(line) <= 1000 for line in lines)
