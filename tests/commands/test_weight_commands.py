"""`swin-lab inspect`, `convert` and `export`."""

from pathlib import Path
from typing import get_args

import pytest
import torch

from swin_lab import SwinConfig, SwinTransformer, load_model, save_weights
from swin_lab.commands.weights import LayoutName
from swin_lab.weights.layouts import LAYOUT_NAMES

TINY = {
    "img_size": 32,
    "embed_dim": 8,
    "depths": (1, 2),
    "num_heads": (1, 2),
    "window_size": 4,
    "num_classes": 3,
}


@pytest.fixture
def weights(cli):
    """Writes tiny.safetensors; returns the network in it."""
    torch.manual_seed(0)
    model = SwinTransformer(SwinConfig(**TINY)).eval()
    model.class_names = ("ant", "bee", "cat")
    save_weights(model, "tiny.safetensors")
    return model


def assert_refused(outcome, *parts):
    assert outcome.code == 2
    assert 1 <= len(outcome.err.splitlines()) <= 4
    assert "Traceback" not in outcome.err
    for part in parts:
        assert part in outcome.err


def test_inspect_prints_what_a_file_contains(cli, weights):
    outcome = cli("inspect", "tiny.safetensors")
    assert outcome.code == 0
    out = outcome.out
    for part in ("layout swin_lab", "Swin V1, C=8, depths 1-2, heads 1-2, windows 4, 32 pixels, 3 classes", "ant, bee, cat"):
        assert part in out


def test_inspect_lists_missing_tensors(cli, weights):
    state = weights.state_dict()
    del state["norm.weight"]
    torch.save(state, "part.pth")
    outcome = cli("inspect", "part.pth")
    assert outcome.code == 0
    out = outcome.out
    assert "missing    norm.weight" in out


@pytest.mark.parametrize("layout", ["timm", "torchvision", "huggingface"])
def test_convert_verifies_against_the_library_itself(cli, weights, layout):
    out_name = "folder" if layout == "huggingface" else "out.safetensors"
    outcome = cli("convert", "tiny.safetensors", out_name, "--layout", layout, "--verify")
    assert outcome.code == 0, outcome.err
    out = outcome.out
    assert "read back bit for bit" in out
    difference = next(line for line in out.splitlines() if "largest logit difference" in line)
    assert float(difference.split()[-1]) <= 1e-5
    assert Path(out_name).exists()


@pytest.mark.parametrize("layout", ["official", "mmpretrain"])
def test_convert_reports_that_no_library_can_verify(cli, weights, layout):
    outcome = cli("convert", "tiny.safetensors", "out.pth", "--layout", layout, "--verify")
    assert outcome.code == 0
    out = outcome.out
    assert "read back bit for bit" in out
    assert "no installable library" in out


def test_a_converted_file_gives_the_same_logits_bit_for_bit(cli, weights):
    cli("convert", "tiny.safetensors", "out.pth", "--layout", "official")
    image = torch.rand(2, 3, 32, 32)
    assert torch.equal(load_model("out.pth")(image), weights(image))


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("inspect", "none.pth"), ("none.pth", "does not exist")),
        (("inspect", "swin_tiny_patch4_window7_224"), ("name of a model", "timm/")),
        (("convert", "tiny.safetensors", "out.pth", "--layout", "tim"), ("--layout", "tim is unknown; did you mean timm?")),
        (("convert", "tiny.safetensors", "tiny.safetensors"), ("exists already", "nothing was written")),
        (("convert", "tiny.safetensors", "out.zip"), ("out.zip", ".safetensors")),
        (("convert", "tiny.safetensors", "no/out.pth"), ("is not a folder",)),
        (("convert", "tiny.safetensors", "out.pth", "--name", "swin_tinny"), ("swin_tinny", "unknown")),
        (("convert", "tiny.safetensors", "out.pth", "--ema"), ("EMA weights",)),
        (("export", "tiny.safetensors", "out.trt"), ("out.trt", ".onnx")),
        (("export", "tiny.safetensors", "out.pt2", "--img-size", "0"), ("img_size",)),
        (("export", "tiny.safetensors", "out.pt2", "--img-size", "big"), ("img_size=big",)),
        (("export", "tiny.safetensors", "out.pt2", "--img-size", "1x2x3"), ("img_size=1x2x3", "192x256")),
    ],
)
def test_wrong_inputs_are_answered_in_a_few_lines(cli, weights, arguments, parts):
    before = sorted(Path().iterdir())
    assert_refused(cli(*arguments), *parts)
    assert sorted(Path().iterdir()) == before


def test_every_layout_that_can_be_written_can_be_chosen():
    assert get_args(LayoutName) == LAYOUT_NAMES


@pytest.mark.parametrize("name", ["out.pth", "out.safetensors"])
def test_a_file_that_cannot_be_written_is_refused_in_one_line(cli, weights, name):
    outcome = cli("convert", "tiny.safetensors", f"/proc/{name}")
    assert (outcome.code, outcome.err) == (2, f"error: cannot write /proc/{name}: No such file or directory\n")
