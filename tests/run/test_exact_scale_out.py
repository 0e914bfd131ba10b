"""The same updates on any number of processes, and evaluations that count every image once."""

from pathlib import Path

import pytest
import torch
from conftest import TINY, Command, final_metrics, gradient_norms, only_run, recorded

pytestmark = pytest.mark.slow

STEADY = [*TINY, "model.drop_path_rate=0.0", "augment=none", "data.val_images=33", "ema=warm", "data.num_workers=0"]
STEADY += ["trainer.gradient_clip_val=0.05", "trainer.log_every_n_steps=1"]  # Every gradient is larger.


def content(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Returns weights and their average after 8 updates of 16 images."""
    loaded = torch.load(only_run(folder) / "checkpoints" / "last.ckpt", weights_only=True)
    return {key: loaded[key] for key in ("state_dict", "ema")}


@pytest.fixture
def one(command: Command, tmp_path: Path) -> Path:
    assert command("train", *STEADY, "out=one").code == 0
    return tmp_path / "one"


def test_one_process_two_processes_and_two_accumulated_batches_make_the_same_updates(
    one: Path, command: Command, process: Command, tmp_path: Path
) -> None:
    """The order of sums differs: after 8 updates of AdamW, weights of a size of about 0.1 to 1 differ by 1e-5 at most.

    The second process has one batch of the evaluation fewer: 33 images in batches of 8 are 17 and 16 images, 3 and 2 batches.
    """
    assert command("train", *STEADY, "max_device_batch=8", "out=accumulated").code == 0
    outcome = process("train", *STEADY, "trainer=ddp", "trainer.devices=2", "out=two")
    assert outcome.code == 0, outcome.err
    expected = content(one)
    for other in ("accumulated", "two"):
        for key, tensors in content(tmp_path / other).items():
            torch.testing.assert_close(tensors, expected[key], rtol=0, atol=1e-5)
        norms = gradient_norms(only_run(tmp_path / other))
        assert min(norms) > 0.05
        assert norms == pytest.approx(gradient_norms(only_run(one)), rel=1e-4)
    results = [recorded(only_run(tmp_path / name)) for name in ("one", "two")]
    assert [result["run.images"] for result in results] == [33, 33]
    assert results[0]["metrics.final.loss"] == pytest.approx(results[1]["metrics.final.loss"], rel=1e-5)


@pytest.mark.parametrize(("devices", "batch"), [(1, 1), (1, 33), (1, 20), (3, 7)])
def test_an_evaluation_counts_every_image_once_for_any_processes_and_batches(
    one: Path, process: Command, command: Command, tmp_path: Path, devices: int, batch: int
) -> None:
    """33 images on 3 processes in batches of 7 are 11 each: one full batch and one of 4 images."""
    run = only_run(one)
    words = [f"checkpoint={run}", f"batch={batch}", f"trainer.devices={devices}", f"out={tmp_path}/result"]
    outcome = (process if devices > 1 else command)("eval", *words, *(["trainer=ddp"] if devices > 1 else []))
    assert outcome.code == 0, outcome.err
    result, trained = (recorded(folder) for folder in (tmp_path / "result", run))
    assert result["run.images"] == 33
    for name, value in final_metrics(trained).items():
        if name in final_metrics(result):
            assert final_metrics(result)[name] == pytest.approx(value, rel=1e-6)
