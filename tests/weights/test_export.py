"""Programs for other runtimes: each is verified against the model before it is saved."""

import io
import json

import onnx
import onnxruntime
import pytest
import torch

from swin_lab import SwinTransformer
from swin_lab.errors import UserError
from swin_lab.metadata import Metadata
from swin_lab.models import SwinConfig
from swin_lab.preprocessing import Preprocessing
from swin_lab.weights import export, export_model

TINY = {
    "img_size": (20, 28),
    "embed_dim": 8,
    "depths": (1, 2),
    "num_heads": (1, 2),
    "window_size": 4,
    "num_classes": 3,
}
"""5x7 patches: no window divides them, so that padding and shift are part of the program."""


def tiny(version):
    torch.manual_seed(0)
    model = SwinTransformer(SwinConfig(version=version, **TINY)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.class_names = ("ant", "bee", "cat")
    model.preprocessing = Preprocessing(
        img_size=(20, 28), channels=3, crop_pct=0.9, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)
    )
    return model


@pytest.fixture(scope="module", params=[1, 2], ids=["V1", "V2"])
def exported(request, tmp_path_factory):
    """Returns (model, ONNX file, torch.export file)."""
    folder = tmp_path_factory.mktemp("exported")
    model = tiny(request.param)
    export_model(model, folder / "tiny.onnx")
    export_model(model, folder / "tiny.pt2")
    return model, folder / "tiny.onnx", folder / "tiny.pt2"


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_onnxruntime_gives_the_model_s_logits_at_any_batch(exported, batch):
    model, file, _ = exported
    image = torch.randn(batch, 3, 20, 28)
    (logits,) = onnxruntime.InferenceSession(str(file)).run(["logits"], {"image": image.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), model(image).detach(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_exported_program_gives_the_model_s_logits_at_any_batch(exported, batch):
    model, _, file = exported
    image = torch.randn(batch, 3, 20, 28)
    program = torch.export.load(io.BytesIO(file.read_bytes())).module()
    torch.testing.assert_close(program(image), model(image), atol=1e-5, rtol=0)


def test_the_metadata_contains_class_names_preprocessing_and_config(exported):
    model, onnx_file, program_file = exported
    (entry,) = (entry for entry in onnx.load(onnx_file).metadata_props if entry.key == "swin_lab")
    extra = {"swin_lab.json": ""}
    torch.export.load(io.BytesIO(program_file.read_bytes()), extra_files=extra)
    for text in (entry.value, extra["swin_lab.json"]):
        metadata = Metadata.from_dict(json.loads(text), "the file")
        assert metadata.class_names == ("ant", "bee", "cat")
        assert metadata.preprocessing == model.preprocessing
        assert SwinConfig(**{key: value for key, value in metadata.model.items() if key != "_target_"}) == model.config


def test_the_onnx_file_has_no_external_data(exported):
    _, file, _ = exported
    onnx.checker.check_model(onnx.load(file, load_external_data=False))
    assert sorted(other.name for other in file.parent.iterdir()) == ["tiny.onnx", "tiny.pt2"]


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_a_program_with_other_logits_is_not_saved(tmp_path, monkeypatch, suffix):
    for name in ("_write_onnx", "_write_program"):
        monkeypatch.setattr(export, name, lambda _model, _example, _part: lambda image: torch.ones(len(image), 3))
    with pytest.raises(UserError, match="differ"):
        export_model(tiny(1), tmp_path / f"wrong{suffix}")
    assert not list(tmp_path.iterdir())


def test_without_onnx_the_package_to_install_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"onnxruntime.*swin-lab\[export\]"):
        export_model(tiny(1), tmp_path / "tiny.onnx")


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "mine.onnx").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        export_model(tiny(1), tmp_path / "mine.onnx")
    assert (tmp_path / "mine.onnx").read_text() == "mine"
