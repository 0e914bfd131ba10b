"""Training does not depend on the number of loader workers, and wrong settings of the loader are refused before training."""

from pathlib import Path

import pytest
import torch
from conftest import TINY, Command, only_run


def trained(command: Command, workers: int, folder: Path) -> dict[str, torch.Tensor]:
    """Returns the weights after three epochs with drop path and random augmentation."""
    overrides = ["model.drop_path_rate=0.2", "augment=light", "trainer.max_epochs=3", f"data.num_workers={workers}"]
    assert command("train", *TINY, *overrides, f"out={folder}").code == 0
    return torch.load(only_run(folder) / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_none_one_and_two_workers_give_identical_weights(command: Command, tmp_path: Path) -> None:
    """Drop path and the loader share torch's generator of the main process, from the second epoch on in particular."""
    alone, one, two = (trained(command, workers, tmp_path / str(workers)) for workers in (0, 1, 2))
    for name, tensor in alone.items():
        assert torch.equal(tensor, one[name]), name
        assert torch.equal(tensor, two[name]), name


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.num_workers=1000000", "data.num_workers=1000000 is too many for"),
        ("data.repeats=1000000", "data.repeats=1000000 is more than global_batch=16"),
        ("data.train_images=1000000000000", "make more than 4 GiB of images in memory"),
        ("data.img_size=1000000", "make more than 4 GiB of images in memory"),
        ("data.num_classes=1000000000", "data.num_classes=1000000000 must be an integer of at least 1 and at most 1000000"),
        ("data.split_seed=1000000000000", "data.split_seed=1000000000000 must be"),
        ("data.mean=0", "data.mean=0 must be a list"),
        ("data.std=[0,0,0]", "data.std=[0, 0, 0] must be a list"),
    ],
)
def test_absurd_settings_of_the_data_are_refused(command: Command, override: str, message: str) -> None:
    outcome = command("train", *TINY, override)
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.strip().splitlines()) <= 3
