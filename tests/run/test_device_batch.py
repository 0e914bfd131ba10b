"""`max_device_batch=auto`: the largest batch that fits, found without a change of the run."""

from pathlib import Path

import pytest
import torch
import yaml
from conftest import TINY, Command, only_run
from lightning.pytorch.plugins.precision import Precision
from torch import Tensor, nn

from swin_lab.run import device_batch
from swin_lab.run.batching import possible_batches
from swin_lab.run.trial import Trial, largest_that_fits, saved_bytes, try_sizes
from swin_lab.tasks import Classification
from swin_lab.training import DataDescription, OptimizerConfig
from swin_lab.training.checkpoint_io import LAST

RUN = [*TINY, "data.num_workers=0", "trainer.max_epochs=1", "model.drop_path_rate=0.3"]
FITTING = 5


class SmallDevice(Classification):
    """Runs out of memory with more than a few images."""

    def training_loss(self, network: nn.Module, batch: tuple[Tensor, ...], batch_seed: int) -> Tensor:
        if len(batch[0]) > FITTING:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().training_loss(network, batch, batch_seed)


def trial(task: type[Classification] = Classification) -> Trial:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))
    optimizer = OptimizerConfig(create=torch.optim.AdamW, lr=1e-3, reference_batch=8, lr_scaling="none", weight_decay=0.0)
    labels = torch.tensor([0, 1] * 8)
    return Trial(
        network, task(data=DataDescription(class_names=("a", "b"))), optimizer, Precision(), (3, 2, 2), labels, 16, reserved=100
    )


def test_bisection_finds_the_largest_size_that_fits() -> None:
    sizes = [1, 2, 3, 5, 8, 13]
    for limit in range(15):
        tried: list[int] = []
        found = largest_that_fits(sizes, lambda size, limit=limit, tried=tried: tried.append(size) or size <= limit)  # type: ignore
        assert found == max([size for size in sizes if size <= limit], default=0)
        assert len(tried) <= 3


def test_possible_batches_are_the_equal_parts() -> None:
    assert possible_batches(24, 2) == [1, 2, 3, 4, 6, 12]
    assert possible_batches(24, 2, mixes=True) == [2, 3, 4, 6, 12]


def test_out_of_memory_leads_to_the_largest_smaller_part() -> None:
    from pickle import dumps

    assert try_sizes(dumps(trial(SmallDevice)), possible_batches(16, 1), torch.device("cpu")) == 4
    assert try_sizes(dumps(trial()), possible_batches(16, 1), torch.device("cpu")) == 16


@pytest.mark.slow
def test_all_devices_are_tried_in_processes_of_their_own() -> None:
    devices = [torch.device("cpu")] * 2
    assert device_batch._largest_on(devices, trial(SmallDevice), possible_batches(16, 1)) == 4


def test_a_trial_changes_neither_weights_nor_random_numbers() -> None:
    tried, random = trial(), torch.random.get_rng_state()
    before = {name: tensor.clone() for name, tensor in tried.network.state_dict().items()}
    saved_bytes(tried, 4)
    assert torch.equal(torch.random.get_rng_state(), random)
    tried.update(4, torch.device("cpu"))
    torch.testing.assert_close(tried.network.state_dict(), before, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in tried.network.parameters())


def test_saved_bytes_grow_by_the_same_for_every_image() -> None:
    """An image of 12 numbers, 8 after the first layer and dropout each, and 2 logits: at least 4 bytes for each of them."""
    two, four, eight = (saved_bytes(trial(), images) for images in (2, 4, 8))
    assert (eight - four) == 2 * (four - two)
    assert (four - two) / 2 >= 4 * (12 + 8 + 8 + 2)


def test_on_a_cpu_the_free_memory_limits_the_batch_and_the_run_is_the_same_as_with_that_number(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = command("train", *RUN, "max_device_batch=4", "out=given")
    assert given.code == 0, given.err
    monkeypatch.setattr(device_batch, "largest_that_fits", lambda sizes, fits: largest_that_fits(sizes, lambda size: size <= 5))
    outcome = command("train", *RUN, "max_device_batch=auto", "out=found")
    assert outcome.code == 0, outcome.err
    assert "max_device_batch=auto: 4 of at most 16 images fit on each device" in outcome.out
    assert "16 = 1 device x 4 images x 4 accumulated" in outcome.out
    run = only_run(tmp_path / "found")
    assert yaml.safe_load((run / "config.yaml").read_text())["max_device_batch"] == 4
    weights = [
        torch.load(only_run(tmp_path / out) / "checkpoints" / LAST, weights_only=True)["state_dict"]
        for out in ("given", "found")
    ]
    torch.testing.assert_close(*weights, rtol=0, atol=0)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    again = command("train", f"resume={run}", "max_device_batch=auto", "trainer.max_epochs=2")
    assert again.code == 0, again.err
    assert "16 = 1 device x 4 images x 4 accumulated" in again.out  # A resumed run does not search again.


def test_half_of_the_free_memory_is_shared_by_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = trial()
    image = 2 * (saved_bytes(tried, 2) - saved_bytes(tried, 1))
    weights = 4 * sum(parameter.numel() for parameter in tried.network.parameters())
    monkeypatch.setattr(device_batch, "available_memory", lambda: 2 * (5 * image + 3 * weights + tried.reserved))
    assert device_batch._largest_in_memory(tried, [1, 2, 4, 8, 16], processes=1) == 4
    monkeypatch.setattr(device_batch, "available_memory", lambda: 6 * (2 * image + 3 * weights + tried.reserved))
    assert device_batch._largest_in_memory(tried, [1, 2, 4, 8, 16], processes=3) == 2


def test_a_memory_that_is_too_small_or_unknown_is_refused(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_batch, "available_memory", lambda: 1_000)
    refused = command("train", *RUN, "max_device_batch=auto")
    assert refused.code == 2
    assert "an update with 1 image does not fit into the memory" in refused.err
    monkeypatch.setattr(device_batch, "available_memory", lambda: None)
    assert "give a number, or null for no limit" in command("train", *RUN, "max_device_batch=auto").err


@pytest.mark.parametrize("value", ["atuo", "0", "true", "[auto]"])
def test_other_values_are_refused(command: Command, value: str) -> None:
    outcome = command("train", *RUN, f"max_device_batch={value}")
    assert (outcome.code, "must be a positive integer, auto or null" in outcome.err) == (2, True), outcome.err
