"""Exports models for use without this package: torch.export programs and ONNX files, verified against the model."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from swin_lab.errors import UserError
from swin_lab.metadata import METADATA_KEY
from swin_lab.models import SwinTransformer
from swin_lab.weights.save import metadata_of, write_atomically

SUFFIXES = (".onnx", ".pt2")
VERIFIED_BATCHES = (1, 3)
"""Batch sizes at which logits are compared; neither is the one that is traced."""
TRACED_BATCH = 2
Runner = Callable[[Tensor], Tensor]

MAX_DIFFERENCE = 1e-4
"""Largest difference of logits, relative to the largest logit."""


def export_model(model: SwinTransformer, path: str | Path) -> dict[int, float]:
    """Writes a model as a program: images (batch, channels, height, width) -> logits (batch, classes), for any batch.

    Height and width are those of the model's `img_size`. The file's metadata contains, under "swin_lab", JSON with the model's
    hyper-parameters, class names and preprocessing; in a .pt2 file it is the extra file swin_lab.json.

    Args:
        model: the model to export; it is in evaluation mode afterwards.
        path: a new file ending in .onnx, or .pt2 for torch.export.

    Returns:
        For every batch size that was verified the largest difference of a logit from the model's own.

    Raises:
        UserError: the file exists, a package is missing, or the program's logits differ from the model's.
    """
    target = Path(path).expanduser().absolute()
    check_export_target(target)
    model.eval()
    height, width = model.config.image_size
    example = torch.zeros(TRACED_BATCH, model.config.in_channels, height, width)
    differences: dict[int, float] = {}

    def write(part: Path) -> None:
        run = _write_onnx(model, example, part) if target.suffix == ".onnx" else _write_program(model, example, part)
        for batch in VERIFIED_BATCHES:
            image = torch.randn(batch, *example.shape[1:], generator=torch.Generator().manual_seed(batch))
            with torch.no_grad():
                expected = model(image)
            differences[batch] = (run(image) - expected).abs().max().item()
            if not differences[batch] <= MAX_DIFFERENCE * max(1.0, expected.abs().max().item()):
                raise UserError(
                    f"{target.name} is not written: at batch {batch} its logits differ from the model's by "
                    f"{differences[batch]:.2g}; please report this with the versions of torch, onnx and onnxruntime"
                )

    write_atomically(target, write)
    return differences


def check_export_target(target: Path) -> None:
    """Raises UserError if the target exists or has the wrong ending, or a package is missing."""
    if target.suffix not in SUFFIXES:
        raise UserError(f"{target.name}: choose the ending .onnx, or .pt2 for torch.export")
    if target.exists():
        raise UserError(f"{target} exists already; nothing was written. Remove it or choose another name")
    if not target.parent.is_dir():
        raise UserError(f"{target.parent} is not a folder; create it first")
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if target.suffix == ".onnx" and find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX needs {', '.join(missing)}: pip install 'swin-lab[export]'")


def _write_program(model: SwinTransformer, example: Tensor, part: Path) -> Runner:
    """Writes a torch.export program, and returns it as a function."""
    program = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    with part.open("wb") as file:
        torch.export.save(program, file, extra_files={f"{METADATA_KEY}.json": json.dumps(metadata_of(model))})
    with part.open("rb") as file:
        loaded = torch.export.load(file).module()
    return lambda image: loaded(image)


def _write_onnx(model: SwinTransformer, example: Tensor, part: Path) -> Runner:
    """Writes an ONNX file, and returns it as a function."""
    import onnxruntime

    plain = SwinTransformer(model.config.with_attention("reference")).eval()  # Every runtime has its operations.
    plain.load_state_dict(model.state_dict())
    program = torch.onnx.export(
        plain,
        (example,),
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props[METADATA_KEY] = json.dumps(metadata_of(model))
    program.save(str(part), external_data=False)
    session = onnxruntime.InferenceSession(str(part), providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(["logits"], {"image": image.numpy()})[0])
