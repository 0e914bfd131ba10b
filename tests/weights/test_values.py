"""Tensors whose values a network cannot take, and files that contain two different values for one tensor."""

import pytest
import torch
from parts import assert_refused, native, same_tensors, transformers_reference
from safetensors.torch import load_file, save_file
from torch._weights_only_unpickler import _get_allowed_globals

from swin_lab.weights import load
from swin_lab.weights.detect import MAX_TENSORS

HEAD = "head.weight"
REFUSED_BY_TORCH = "torch._utils._rebuild_nested_tensor" not in _get_allowed_globals()


@pytest.fixture
def state():
    return native(1).state_dict()


def saved(folder, content, name="a.pth"):
    torch.save(content, folder / name)
    return folder / name


NOT_PLAIN = {
    "sparse": (lambda w: w.to_sparse(), "is sparse"),
    "sparse rows": (lambda w: w.to_sparse_csr(), "is sparse"),
    "meta": (lambda w: w.to("meta"), "has no values (device meta)"),
    "quantized": (lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8), "is quantized"),
}


@pytest.mark.parametrize(("change", "part"), NOT_PLAIN.values(), ids=NOT_PLAIN)
@pytest.mark.parametrize("name", [HEAD, "stages.0.blocks.0.attn.relative_position_index"])
def test_a_tensor_without_ordinary_values_is_refused_by_name(state, tmp_path, change, part, name):
    assert_refused(saved(tmp_path, {"model": state | {name: change(state[HEAD])}}), f"{name} {part}")


@pytest.mark.parametrize("name", [HEAD, "stages.0.blocks.0.attn.relative_position_index"])
def test_a_nested_tensor_is_refused(state, tmp_path, name):
    """By its name; torch 2.15 refuses the function that rebuilds one, which the message then names instead."""
    nested = torch.nested.nested_tensor([state[HEAD][0], state[HEAD][1]])
    part = "_rebuild_nested_tensor" if REFUSED_BY_TORCH else f"{name} is a nested tensor"
    assert_refused(saved(tmp_path, {"model": state | {name: nested}}), part)


UNUSABLE = {
    "beyond float32": (lambda w: w.double() * 1e300, "beyond float32"),
    "NaN": (lambda w: w * float("nan"), "NaN or infinite"),
    "infinite": (lambda w: w / 0, "NaN or infinite"),
    "complex": (lambda w: w.to(torch.complex64).conj(), "dtype complex64"),
    "float4": (lambda w: w.to(torch.uint8).view(torch.float4_e2m1fn_x2), "dtype float4_e2m1fn_x2"),
}


@pytest.mark.parametrize(("change", "part"), UNUSABLE.values(), ids=UNUSABLE)
def test_values_that_no_weight_can_have_are_refused_by_name(state, tmp_path, change, part):
    assert_refused(saved(tmp_path, {"model": state | {HEAD: change(state[HEAD])}}), HEAD, part)


@pytest.mark.parametrize(
    "change",
    [lambda w: w.double(), torch.nn.Parameter, torch._neg_view, lambda w: w.T.contiguous().T],
    ids=["float64", "parameter", "negated", "transposed"],
)
def test_ordinary_values_in_an_unusual_form_are_loaded(state, tmp_path, change):
    tensor = change(state[HEAD])
    network, _ = load(saved(tmp_path, {"model": state | {HEAD: tensor}}))
    assert torch.equal(network.head.weight, tensor.resolve_neg().float())


def test_a_tensor_that_repeats_one_value_is_loaded(state, tmp_path):
    network, _ = load(saved(tmp_path, {"model": state | {HEAD: torch.ones(1).expand(state[HEAD].shape)}}))
    assert bool((network.head.weight == 1).all())


def test_repeated_values_that_need_far_more_memory_than_the_file_are_refused(state, tmp_path):
    views = {f"view{i}": torch.zeros(1).expand(10**6, 10**6) for i in range(2)}
    assert_refused(saved(tmp_path, {"model": state | views}), "in memory")


# Two values of one tensor

OTHER = {
    "compiled": lambda state: {"model": state | {f"_orig_mod.{HEAD}": state[HEAD] + 1}},
    "wrapped": lambda state: {"model": {f"module.{k}": v for k, v in state.items()} | {HEAD: state[HEAD] + 1}},
    "model and state_dict": lambda state: {"model": state, "state_dict": state | {HEAD: state[HEAD] + 1}},
    "model and net, wrapped": lambda state: {"model": state, "net": {f"module.{k}": v + 1 for k, v in state.items()}},
    "beside the model": lambda state: {"model": state, HEAD: state[HEAD] + 1},
}


@pytest.mark.parametrize("content", OTHER.values(), ids=OTHER)
def test_two_values_of_one_tensor_are_refused_by_name(state, tmp_path, content):
    assert_refused(saved(tmp_path, content(state)), HEAD if content is not OTHER["model and net, wrapped"] else "embed")


EQUAL = {
    "compiled": lambda state: {"model": state | {f"_orig_mod.{HEAD}": state[HEAD].clone()}},
    "model and state_dict": lambda state: {"model": state, "state_dict": {k: v.clone() for k, v in state.items()}},
    "beside the model": lambda state: {"model": state, HEAD: state[HEAD]},
}


@pytest.mark.parametrize("content", EQUAL.values(), ids=EQUAL)
def test_two_equal_values_of_one_tensor_are_loaded(state, tmp_path, content):
    assert same_tensors(load(saved(tmp_path, content(state)))[0].state_dict(), state)


def test_two_files_of_a_folder_with_different_values_are_refused(tmp_path):
    transformers_reference(1).save_pretrained(tmp_path / "parts", max_shard_size="100KB")
    first, second = sorted((tmp_path / "parts").glob("*.safetensors"))[:2]
    name, tensor = next(iter(load_file(first).items()))
    save_file(load_file(second) | {name: tensor + 1}, second, {"format": "pt"})
    assert_refused(tmp_path / "parts", f"two of its files contain different tensors {name}")


# Names


@pytest.mark.parametrize("name", ["a" * 1000, "a\x1b[2Jb", "a\nb", f"layers.0.blocks.{'9' * 5000}.norm1.weight"])
def test_a_damaged_name_is_refused(state, tmp_path, name):
    assert_refused(saved(tmp_path, {"model": state | {name: torch.zeros(1)}}), "the name of a tensor is damaged")


def test_an_index_of_many_digits_is_no_block(state, tmp_path):
    name = f"stages.0.blocks.{'9' * 100}.norm1.weight"
    assert_refused(saved(tmp_path, {"model": state | {name: torch.zeros(1)}}), "no Swin Transformer has", "999")


def test_a_file_of_very_many_tensors_is_refused_before_its_layout_is_searched(tmp_path):
    content = {f"model.net.network.x{i}": torch.zeros(()) for i in range(MAX_TENSORS + 1)}
    save_file(content, tmp_path / "a.safetensors")
    assert_refused(tmp_path / "a.safetensors", f"contains {MAX_TENSORS + 1} tensors")


@pytest.mark.parametrize("content", [{1: torch.zeros(1)}, {(1, 2): torch.zeros(1)}], ids=["number", "tuple"])
def test_tensors_under_keys_that_are_no_names_are_not_weights(tmp_path, content):
    assert_refused(saved(tmp_path, content), "no tensors by name")
