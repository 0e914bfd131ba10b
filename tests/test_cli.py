"""`swin-lab VERB`, as it is typed."""

from pathlib import Path

import pytest
import torch
from rich.console import Console

from swin_lab import SwinTransformer, list_models, load_model, save_weights
from swin_lab.cli import main

TINY = {
    "img_size": 32,
    "embed_dim": 8,
    "depths": (1, 2),
    "num_heads": (1, 2),
    "window_size": 4,
    "num_classes": 3,
}


@pytest.fixture
def typed(tmp_path, monkeypatch, capsys):
    """Runs a verb in an empty folder: typed("inspect", "FILE") -> (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments):
        capsys.readouterr()
        code = main(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def weights(typed):
    """A file of a tiny network; and the network."""
    torch.manual_seed(0)
    model = SwinTransformer(**TINY).eval()
    model.card = {"class_names": ["ant", "bee", "cat"], "preprocessing": None}
    save_weights(model, "tiny.safetensors")
    return model


def assert_refused(outcome, *parts):
    code, _, err = outcome
    assert code == 2
    assert 1 <= len(err.splitlines()) <= 4
    assert "Traceback" not in err
    for part in parts:
        assert part in err


def test_models_lists_every_variant_with_its_whole_name_in_80_columns(typed):
    code, out, _ = typed("models")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines() if line.startswith("swin")] == list_models()
    assert max(map(len, out.split("\n\n")[0].splitlines())) <= 80


def test_models_shows_what_is_published_of_a_variant(typed):
    _, out, _ = typed("models", "swin_base_patch4_window7_224")
    assert out.splitlines()[1].split() == ["swin_base_patch4_window7_224", "87.77", "M", "15.44", "224", "83.5", "85.2"]


def test_models_takes_a_pattern(typed):
    _, out, _ = typed("models", "swinv2_tiny*")
    assert [line.split()[0] for line in out.splitlines() if line.startswith("swin")] == list_models("swinv2_tiny*")


def test_a_pattern_that_fits_no_model_is_refused(typed):
    assert_refused(typed("models", "swim*"), "swim*", "lists all")


def test_inspect_says_what_a_file_holds(typed, weights):
    code, out, _ = typed("inspect", "tiny.safetensors")
    assert code == 0
    for part in ("layout swin_lab", "Swin V1, C=8, depths 1-2, heads 1-2, windows 4, 32 pixels, 3 classes", "ant, bee, cat"):
        assert part in out


def test_inspect_lists_what_a_file_lacks(typed, weights):
    state = weights.state_dict()
    del state["norm.weight"]
    torch.save(state, "part.pth")
    code, out, _ = typed("inspect", "part.pth")
    assert code == 0
    assert "lacks      norm.weight" in out


@pytest.mark.parametrize("layout", ["timm", "torchvision", "huggingface"])
def test_convert_verifies_against_the_library_itself(typed, weights, layout):
    out_name = "folder" if layout == "huggingface" else "out.safetensors"
    code, out, err = typed("convert", "tiny.safetensors", out_name, "--layout", layout, "--verify")
    assert code == 0, err
    assert "read back bit for bit" in out
    difference = next(line for line in out.splitlines() if "largest logit difference" in line)
    assert float(difference.split()[-1]) <= 1e-5
    assert Path(out_name).exists()


@pytest.mark.parametrize("layout", ["official", "mmpretrain"])
def test_convert_says_where_no_library_can_verify(typed, weights, layout):
    code, out, _ = typed("convert", "tiny.safetensors", "out.pth", "--layout", layout, "--verify")
    assert code == 0
    assert "read back bit for bit" in out
    assert "no installable library" in out


def test_a_converted_file_gives_the_same_logits_bit_for_bit(typed, weights):
    typed("convert", "tiny.safetensors", "out.pth", "--layout", "official")
    image = torch.rand(2, 3, 32, 32)
    assert torch.equal(load_model("out.pth")(image), weights(image))


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("inspect", "none.pth"), ("none.pth", "no such file")),
        (("inspect", "swin_tiny_patch4_window7_224"), ("name of a model", "timm/")),
        (("convert", "tiny.safetensors", "out.pth", "--layout", "tim"), ("layout=tim", "did you mean timm?")),
        (("convert", "tiny.safetensors", "tiny.safetensors"), ("exists already", "nothing was written")),
        (("convert", "tiny.safetensors", "out.zip"), ("out.zip", ".safetensors")),
        (("convert", "tiny.safetensors", "no/out.pth"), ("is no folder",)),
        (("convert", "tiny.safetensors", "out.pth", "--name", "swin_tinny"), ("swin_tinny", "unknown")),
        (("convert", "tiny.safetensors", "out.pth", "--ema"), ("moving average",)),
        (("export", "tiny.safetensors", "out.trt"), ("out.trt", ".onnx")),
        (("export", "tiny.safetensors", "out.pt2", "--img-size", "0"), ("img_size",)),
        (("export", "tiny.safetensors", "out.pt2", "--img-size", "1", "2", "3"), ("img_size",)),
    ],
)
def test_wrong_inputs_are_answered_in_a_few_lines(typed, weights, arguments, parts):
    before = sorted(Path().iterdir())
    assert_refused(typed(*arguments), *parts)
    assert sorted(Path().iterdir()) == before


def test_a_verb_that_does_not_exist_is_refused_with_the_verbs(typed, capsys):
    with pytest.raises(SystemExit) as left:
        main(["modles"])
    assert left.value.code == 2
    assert "models" in capsys.readouterr().err


def test_ctrl_c_ends_without_a_traceback(typed, monkeypatch):
    def interrupted(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(Console, "print", interrupted)
    code, _, err = typed("models")
    assert (code, err.strip()) == (130, "interrupted")
