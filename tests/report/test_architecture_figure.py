"""The architecture figure of any network."""

import numpy as np
import pytest
import torch
from conftest import ROOT
from matplotlib.figure import Figure
from PIL import Image

import swin_lab
from swin_lab.report import draw_architecture, figures
from swin_lab.run.architecture import architecture_of

NAMES = ("swin_micro_patch4_window4_32", "swin_large_patch4_window12_384", "swinv2_base_window12to24_192to384")
MLP = "swin_mlp_base_patch4_window7_224"


def network(name: str, **given):
    with torch.device("meta"):
        return swin_lab.create_model(name, **({} if name == MLP else {"attention_backend": "reference"}), **given)


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draws a network; returns the figure."""
    kept: list[Figure] = []
    write = figures.write_figure

    def keep(figure: Figure, file, *, dpi: int) -> None:
        kept.append(figure)
        write(figure, file, dpi=40)

    monkeypatch.setattr("swin_lab.report.architecture.write_figure", keep)

    def draw(model, name="a network", **given) -> Figure:
        draw_architecture(architecture_of(model, name, **given), tmp_path / "a.png")
        return kept[-1]

    return draw


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize("name", [*NAMES, MLP])
def test_no_text_is_outside_the_figure(drawn, name):
    figure = drawn(network(name), name)
    page = figure.bbox
    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        assert page.x0 <= box.x0 <= box.x1 <= page.x1, text
        assert page.y0 <= box.y0 <= box.y1 <= page.y1, text


def test_its_numbers_are_those_of_the_network(drawn):
    model = network("swin_micro_patch4_window4_32", num_classes=10)
    written = texts(drawn(model))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    for part in (f"{parameters:,} parameters", "32 × 32 × 3", "8 × 8 × 64", "4 windows of 4 × 4", "4 × 4 × 128", "10 logits"):
        assert part in written


def test_swin_mlp_has_window_mlps_that_padding_shifts_and_no_masks(drawn):
    written = texts(drawn(network(MLP), img_size=(100, 100)))
    assert {"W-MLP", "SW-MLP", "Padding", "Weights", "1 window of 7 × 7"} <= set(written)
    assert not [part for part in written if "MSA" in part or part in ("Attention masks", "Cyclic shift")]


def test_another_size_has_other_maps_and_windows(drawn):
    written = texts(drawn(network("swin_micro_patch4_window4_32"), img_size=(24, 40)))
    assert {"24 × 40 × 3", "6 × 10 × 64", "6 windows of 4 × 4", "3 × 5 × 128", "2 windows of 3 × 4"} <= set(written)


def test_the_order_of_norm_and_attention_is_that_of_the_version(drawn):
    small = {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4]}
    for name, order in (("swin_tiny_patch4_window7_224", ["norm1", "attn"]), ("swinv2_tiny_window8_256", ["attn", "norm1"])):
        assert list(architecture_of(network(name, **small), name).blocks[0].branches[0]) == order


@pytest.mark.parametrize("given", [{"depths": [1], "num_heads": [1]}, {"depths": [1, 30, 1, 1, 1, 2, 1], "num_heads": [1] * 7}])
def test_any_number_of_stages_and_blocks_is_drawn(drawn, given):
    assert len(texts(drawn(network("swin_micro_patch4_window4_32", embed_dim=8, **given), "$odd_ name$"))) > 20


def test_an_image_is_drawn_instead_of_the_landscape(tmp_path):
    model = network("swin_micro_patch4_window4_32")
    for name, image in (("a.png", None), ("b.png", np.ones((32, 32, 1)))):
        draw_architecture(architecture_of(model, "x", None, image), tmp_path / name)
    one, two = (np.asarray(Image.open(tmp_path / name).convert("L"), int) for name in ("a.png", "b.png"))
    assert abs(one - two).max() > 50


def test_the_figure_of_the_readme_is_that_of_the_current_code(tmp_path):
    """The fonts are those of matplotlib, so that only the size and the colours of a few places are compared."""
    name = "swin_tiny_patch4_window7_224"
    draw_architecture(architecture_of(network(name), name), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as new, Image.open(ROOT / "docs" / "architecture.png") as shown:
        assert new.size == shown.size
        a, b = (np.asarray(image.convert("RGB").resize((180, 147)), float) for image in (new, shown))
    assert abs(a - b).mean() < 2
