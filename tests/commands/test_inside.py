"""`swin-lab explain` and `swin-lab look`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from swin_lab import SwinConfig, SwinTransformer, save_weights
from swin_lab.preprocessing import Preprocessing

GREY = (0.5, 0.5, 0.5)


@pytest.fixture
def files(cli):
    """Writes tiny.safetensors with two stages and three classes, and two images named photo.png."""
    torch.manual_seed(0)
    sizes = {"img_size": 32, "embed_dim": 8, "depths": (1, 2), "num_heads": (1, 2), "window_size": 4, "num_classes": 3}
    model = SwinTransformer(SwinConfig(**sizes)).eval()
    model.class_names = ("ant", "bee", "cat")
    model.preprocessing = Preprocessing(
        img_size=(32, 32), channels=3, crop_pct=1.0, interpolation="bicubic", mean=GREY, std=GREY
    )
    save_weights(model, "tiny.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    for folder in (Path(), Path("other")):
        folder.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / "photo.png")
    Path("text.png").write_text("no image")
    return model


def cells(out: str, step: str) -> list[str]:
    """Returns the cells of the first row of a step."""
    line = next(line for line in out.splitlines() if line.strip().startswith(step))
    return line.strip().removeprefix(step).split()


def test_explain_prints_the_numbers_of_the_textbook(cli):
    outcome = cli("explain", "swin_micro_patch4_window4_32")
    assert outcome.code == 0, outcome.err
    assert cells(outcome.out, "patch partition")[:2] == ["32x32x3", "8x8x48"]
    assert cells(outcome.out, "linear embedding")[:2] == ["8x8x48", "8x8x64"]
    assert cells(outcome.out, "2x2 neighbours")[:2] == ["8x8x64", "4x4x256"]
    assert cells(outcome.out, "patch merging")[:2] == ["4x4x256", "4x4x128"]
    assert cells(outcome.out, "1  W-MSA") == ["8x8", "4x4", "4", "16", "256", "1,024", "4,096"]
    assert cells(outcome.out, "1  SW-MSA") == ["8x8", "4x4", "2x2", "4", "16", "256", "1,024", "4,096"]
    assert cells(outcome.out, "sum")[0] == "664,664"


def test_explain_of_swin_mlp_prints_weights_and_no_dot_products(cli):
    outcome = cli("explain", "swin_mlp_tiny_c24_patch4_window8_256")
    assert outcome.code == 0, outcome.err
    assert cells(outcome.out, "window MLP") == ["map", "padded", "window", "shift", "windows", "tokens", "heads", "weights"]
    assert cells(outcome.out, "3  SW-MLP") == ["16x16", "24x24", "8x8", "4x4", "9", "64", "16", "4,096"]
    assert cells(outcome.out, "sum")[:3] == ["20,386,632", "4.032", "G"]
    assert "products" not in outcome.out
    assert "(a grouped\n1-D convolution)" in outcome.out


def test_look_refuses_a_swin_mlp_and_writes_nothing(cli, files):
    save_weights(SwinTransformer(replace(files.config, token_mixer="mlp")), "mlp.safetensors")
    outcome = cli("look", "mlp.safetensors", "photo.png")
    assert (outcome.code, "Swin-MLP, which has no attention" in outcome.err) == (2, True)
    assert not Path("look").exists()


def test_explain_names_padding_and_equal_blocks(cli):
    outcome = cli("explain", "swinv2_base_window12to24_192to384", "--img-size", 300, 500)
    assert outcome.code == 0, outcome.err
    assert "300x500x3" in outcome.out
    assert cells(outcome.out, "W-MSA x9")[0] == "19x32x512"
    assert cells(outcome.out, "1  W-MSA")[:2] == ["75x125", "96x144"]


def test_explain_reads_a_checkpoint_and_classifies_an_image_and_draws_it(cli, files):
    outcome = cli("explain", "tiny.safetensors", "--image", "photo.png", "--img-size", 40, 48, "-o", "figure.png")
    assert outcome.code == 0, outcome.err
    assert cells(outcome.out, "sum")[0] == f"{sum(parameter.numel() for parameter in files.parameters()):,}"
    assert any(outcome.out.splitlines()[-2].startswith(f"predicted  {name}, ") for name in files.class_names)
    with Image.open("figure.png") as figure:
        assert figure.format == "PNG"


def test_explain_draws_vectors(cli):
    assert cli("explain", "swin_micro_patch4_window4_32", "-o", "figure.svg").code == 0
    assert Path("figure.svg").read_text().startswith("<?xml")


def test_look_writes_one_figure_per_image_and_one_of_the_bias(cli, files):
    outcome = cli("look", "tiny.safetensors", "photo.png", "other/photo.png", "-o", "maps")
    assert outcome.code == 0, outcome.err
    names = {"attention_photo.png", "attention_photo_2.png", "position_bias.png"}
    assert {file.name for file in Path("maps").iterdir()} == names
    for name in names:
        with Image.open(Path("maps") / name) as figure:
            assert min(figure.size) > 200


@pytest.mark.parametrize(
    "options",
    [
        ["--stage", "2", "--block", "2", "--class", "cat"],
        ["--stage", "2", "--head", "2", "--class", "2"],
        ["--stage", "2", "--block", "2", "--head", "1", "--pixel", "31", "0"],
    ],
)
def test_look_draws_what_is_chosen(cli, files, options):
    outcome = cli("look", "tiny.safetensors", "photo.png", *options)
    assert outcome.code == 0, outcome.err
    assert Path("look/attention_photo.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("explain", "swin_tinny_patch4_window7_224"), ("is unknown", "did you mean swin_tiny_patch4_window7_224?")),
        (("explain", "nowhere.pth"), ("nowhere.pth does not exist",)),
        (("explain", "swin_micro_patch4_window4_32", "--img-size", "0", "32"), ("img_size",)),
        (("explain", "swin_micro_patch4_window4_32", "--img-size", "32", "99999"), ("img_size",)),
        (("explain", "swin_micro_patch4_window4_32", "--image", "photo.png"), ("without weights", "-o FIGURE")),
        (("explain", "swin_micro_patch4_window4_32", "--ema"), ("--ema",)),
        (("explain", "tiny.safetensors", "-o", "photo.png"), ("give a new .png",)),
        (("explain", "tiny.safetensors", "-o", "figure.doc"), ("give a new .png",)),
        (("explain", "tiny.safetensors", "--image", "text.png"), ("text.png cannot be read",)),
        (("look", "swin_micro_patch4_window4_32", "photo.png"), ("is the name of a model",)),
        (("look", "tiny.safetensors", "text.png"), ("text.png cannot be read", "not an image")),
        (("look", "tiny.safetensors", "nowhere.png"), ("nowhere.png cannot be read",)),
        (("look", "tiny.safetensors", "photo.png", "-o", "other"), ("is not an empty folder",)),
        (("look", "tiny.safetensors", "photo.png", "-o", "no/where"), ("is not a folder",)),
        (("look", "tiny.safetensors", "photo.png", "--stage", "3"), ("--stage=3 does not exist; the network has 2 stages",)),
        (("look", "tiny.safetensors", "photo.png", "--stage", "1", "--block", "2"), ("--block=2", "stage 1 has 1 block")),
        (("look", "tiny.safetensors", "photo.png", "--stage", "2", "--head", "3"), ("--head=3", "stage 2 has 2 heads")),
        (("look", "tiny.safetensors", "photo.png", "--block", "1"), ("--stage N",)),
        (("look", "tiny.safetensors", "photo.png", "--class", "bea"), ("class 'bea' does not exist", "did you mean bee?")),
        (("look", "tiny.safetensors", "photo.png", "--class", "3"), ("class '3' does not exist",)),
        (("look", "tiny.safetensors", "photo.png", "--pixel", "32", "0"), ("--pixel 32 0 is outside", "32x32")),
    ],
)
def test_wrong_input_is_refused_and_nothing_is_written(cli, files, arguments, parts):
    before = sorted(Path().rglob("*"))
    outcome = cli(*arguments)
    assert outcome.code == 2
    assert 1 <= len(outcome.err.splitlines()) <= 3
    for part in parts:
        assert part in outcome.err
    assert sorted(Path().rglob("*")) == before


def test_a_run_of_another_library_is_refused_or_converted(monkeypatch):
    """A Swin Transformer of timm is converted; a ConvNeXt has no windows."""
    from swin_lab.errors import UserError
    from swin_lab.models.external.timm_model import TimmModel
    from swin_lab.run import swin_network
    from swin_lab.run.restore import Restored

    preprocessing = Preprocessing(img_size=(224, 224), channels=3, crop_pct=1.0, interpolation="bicubic", mean=GREY, std=GREY)
    restored = {
        name: Restored(TimmModel(name, 3), preprocessing, ("ant", "bee", "cat"), [])
        for name in ("convnext_atto", "swin_tiny_patch4_window7_224")
    }
    monkeypatch.setattr(swin_network, "read_source", lambda source: source)
    monkeypatch.setattr(swin_network, "restore", lambda contents, *_: restored[contents])
    with pytest.raises(UserError, match="contains a TimmModel; this command is for Swin Transformers only"):
        swin_network.open_swin("convnext_atto", name=None, ema=False)
    opened = swin_network.open_swin("swin_tiny_patch4_window7_224", name=None, ema=False)
    image = torch.randn(1, 3, 224, 224)
    expected = restored["swin_tiny_patch4_window7_224"].network.eval()(image)
    torch.testing.assert_close(opened.network(image), expected, atol=1e-5, rtol=0)
