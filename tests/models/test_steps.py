"""The steps of a pass: shapes against hooks, cost and parameters against the network's own."""

from dataclasses import replace
from math import prod

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from swin_lab import create_model, list_models
from swin_lab.errors import UserError
from swin_lab.models import SwinTransformer, count_macs
from swin_lab.models.inspection import inspect
from swin_lab.models.steps import steps_of

SMALL = {"embed_dim": 16, "depths": (2, 3), "num_heads": (2, 4)}
CASES = [
    ("swin_micro_patch4_window4_32", {}, (32, 32)),
    ("swin_micro_patch4_window4_32", {}, (38, 45)),
    ("swin_tiny_patch4_window7_224", SMALL | {"img_size": 64}, (20, 52)),
    ("swinv2_tiny_window8_256", SMALL | {"img_size": 64}, (64, 64)),
    ("swinv2_tiny_window8_256", SMALL | {"img_size": 64, "window_size": 5, "num_classes": 0}, (36, 90)),
]


def on_meta(name: str, **given) -> SwinTransformer:
    with torch.device("meta"):
        return create_model(name, **({} if "mlp" in name else {"attention_backend": "reference"}), **given)


def ran(model: SwinTransformer, size: tuple[int, int]) -> dict[torch.nn.Module, list[tuple[tuple[int, ...], tuple[int, ...]]]]:
    """Returns the shapes of the first input and the output of every module that ran, without the batch."""
    shapes = {}

    def keep(module, arguments, output):
        shapes[module] = (tuple(arguments[0].shape[1:]), tuple(output.shape[1:]))

    hooks = [module.register_forward_hook(keep) for module in model.modules()]
    with torch.no_grad():
        model(torch.zeros(1, 3, *size))
    for hook in hooks:
        hook.remove()
    return shapes


def test_the_worked_example_has_the_numbers_of_the_textbook():
    steps = steps_of(on_meta("swin_micro_patch4_window4_32"))
    shapes = [step.before for step in steps] + [steps[-1].after]
    assert list(dict.fromkeys(shapes)) == [
        (32, 32, 3), (8, 8, 48), (8, 8, 64), (4, 4, 256), (4, 4, 128), (128,), (1000,),
    ]  # fmt: skip
    windows = next(step.windows for step in steps if step.name == "W-MSA")
    assert (windows.count, windows.tokens, windows.products_per_window) == (4, 16, 256)
    assert (windows.products, windows.global_products) == (1024, 4096)


@pytest.mark.parametrize("name", list_models())
def test_cost_and_parameters_of_the_steps_add_up_to_those_of_the_network(name):
    model = on_meta(name)
    steps = steps_of(model)
    assert sum(step.macs for step in steps) == count_macs(model.config)
    assert sum(step.parameters for step in steps) == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("name", "given", "size"), CASES)
def test_cost_at_another_size_is_that_of_a_network_for_this_size(name, given, size):
    model = on_meta(name, **given)
    config = replace(model.config, img_size=size, window_size=model.config.windows)
    assert sum(step.macs for step in steps_of(model, size)) == count_macs(config)
    assert sum(step.parameters for step in steps_of(model, size)) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("name", "given", "size"), CASES)
def test_shapes_are_those_of_a_real_pass(name, given, size):
    model = create_model(name, attention_backend="reference", **given).eval()
    shapes, steps = ran(model, size), steps_of(model, size)

    def shape(step_name: str, stage: int | None) -> set[tuple[int, ...]]:
        return {step.after for step in steps if (step.name, step.stage) == (step_name, stage)}

    assert shape("linear embedding", 0) == {shapes[model.embed][1]}
    for i, stage in enumerate(model.stages):
        if i > 0:
            assert shape("2x2 neighbours", i) == {
                shapes[stage.merge.reduction if name.startswith("swinv2") else stage.merge.norm][0]
            }
            assert shape("patch merging", i) == {shapes[stage.merge][1]}
        for kind, chosen in (("W-MSA", stage.blocks[::2]), ("SW-MSA", stage.blocks[1::2])):
            assert shape(kind, i) == {shapes[block.attn][1] for block in chosen}
            assert [step.count for step in steps if (step.name, step.stage) == (kind, i)] == [len(chosen)]
        assert shape("MLP", i) == {shapes[block.mlp][1] for block in stage.blocks}
    assert shape("norm", None) == {shapes[model.norm][1]}
    if model.config.num_classes:
        assert [shape("average pooling", None), shape("head", None)] == [{shapes[model.head][0]}, {shapes[model.head][1]}]


@pytest.mark.parametrize(("name", "given", "size"), CASES)
def test_windows_are_those_in_which_attention_is_computed(name, given, size):
    model = create_model(name, **given)
    found = inspect(model, torch.zeros(1, 3, *size)).attention
    expected = {(step.stage, step.name == "SW-MSA"): step.windows for step in steps_of(model, size) if step.windows is not None}
    for entry in found:
        windows = expected[entry.stage, entry.block % 2 == 1]
        assert (windows.map_size, windows.padded_size) == (entry.map_size, entry.padded_size)
        assert (windows.window, windows.shift) == (entry.window, entry.shift)
        assert (1, windows.count, windows.heads, windows.tokens, windows.tokens) == entry.weights_BGhTT.shape


@pytest.mark.parametrize(("name", "given", "size"), CASES)
def test_activations_are_the_results_of_all_layers(name, given, size):
    """Counted from hooks: outputs of linear layers and norms, inputs of projections and second MLP layers, and the weights."""
    model = create_model(name, attention_backend="reference", **given).eval()
    shapes = {module: tuple(map(torch.Size, both)) for module, both in ran(model, size).items()}
    weights = sum(entry.weights_BGhTT.numel() for entry in inspect(model, torch.zeros(1, 3, *size)).attention)
    count = weights + shapes[model.embed.proj][1].numel() + shapes[model.embed.norm][1].numel() + shapes[model.norm][1].numel()
    for stage in model.stages:
        if hasattr(stage.merge, "reduction"):
            count += 2 * shapes[stage.merge][1].numel()  # 2x2 neighbours, concatenated
            count += shapes[stage.merge.norm][1].numel() + shapes[stage.merge.reduction][1].numel()
        for block in stage.blocks:
            ends = [block.norm1, block.norm2, block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2]
            count += sum(shapes[module][1].numel() for module in ends) + 2 * shapes[block][1].numel()
            count += shapes[block.attn.proj][0].numel() + shapes[block.mlp.fc2][0].numel()
    count += model.config.channels[-1] + model.config.num_classes
    patches = shapes[model.embed][1].numel() // model.config.embed_dim * 3 * model.config.patch_size**2
    assert sum(step.activation_bytes for step in steps_of(model, size)) == 4 * (count + patches)


MLP = "swin_mlp_tiny_c24_patch4_window8_256"


@pytest.mark.parametrize("size", [(64, 64), (36, 90), (200, 250)])
def test_the_steps_of_swin_mlp_have_its_own_windows_and_the_products_that_torch_counts(size):
    """Also on maps that are smaller than the windows, which are then padded. The formula counts norms as well."""
    model = on_meta(MLP, embed_dim=32)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, 3, *size, device="meta"))
    steps = steps_of(model, size)
    elements = sum(step.count * prod(step.after) for step in steps if step.name.endswith(("MLP", "embedding")))
    merged = sum(prod(step.before) for step in steps if step.name == "patch merging")
    norms = elements + merged + next(step.macs for step in steps if step.name == "norm")
    assert sum(step.macs for step in steps) - norms == counter.get_total_flops() / 2
    assert {step.windows.window for step in steps if step.windows is not None} == {(8, 8)}
    assert {step.name for step in steps if step.windows is not None} == {"W-MLP", "SW-MLP"}


def test_activations_of_swin_mlp_contain_its_padded_windows():
    """Of one block of 16 x 16 tokens: norm and sum, and 24 x 24 places if windows of 8 are shifted."""
    steps = [step for step in steps_of(on_meta(MLP)) if step.stage == 2]
    regular, shifted = (next(step for step in steps if step.name == name) for name in ("W-MLP", "SW-MLP"))
    assert regular.activation_bytes == 4 * 3 * 384 * (2 * 16 * 16 + 16 * 16)
    assert shifted.activation_bytes == 4 * 3 * 384 * (2 * 16 * 16 + 24 * 24)


@pytest.mark.parametrize("size", [(0, 32), (32, 20_000), (-1, 32)])
def test_an_impossible_size_is_refused(size):
    with pytest.raises(UserError, match="img_size"):
        steps_of(on_meta("swin_micro_patch4_window4_32"), size)
