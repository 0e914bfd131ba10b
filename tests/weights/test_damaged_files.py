"""200 damaged files: each is refused, or its report names the damage."""

import random

import pytest
import torch
from parts import native, same_tensors
from safetensors.torch import load_file, save_file

from swin_lab import save_weights
from swin_lab.errors import UserError
from swin_lab.weights import load
from swin_lab.weights.layouts import LAYOUT_NAMES


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


def shape_mismatch(tensors, name, chance):
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
    shape_mismatch,
    further_stage,
)
DAMAGES = (truncated, flipped, in_a_list, *map(on_tensors, TENSOR_DAMAGES))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Writes files of every layout and both kinds, without metadata; returns them and the state_dict in them."""
    folder, model = tmp_path_factory.mktemp("whole"), native(1)
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
def test_a_damaged_file_is_refused_in_a_few_lines_or_its_report_lists_the_damage(whole, tmp_path, seed, strict):
    """None of 200 cases raises another error, and none is loaded in part without a line in the report."""
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
    reported = any(label in str(report) for label in ("\nnew ", "\nunused ", "\nwarning ", "\nleft out "))
    assert reported or same_tensors(loaded.state_dict(), state)
    if strict:
        assert same_tensors(loaded.state_dict(), state)


def test_the_files_of_that_test_load_before_they_are_damaged(whole):
    files, state = whole
    for file in files:
        assert same_tensors(load(file)[0].state_dict(), state), file
