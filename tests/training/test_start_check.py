"""The evaluation before the first update: what it says of loaded weights, and that training does not notice it."""

import logging

import lightning
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from swin_lab.training import AdamW, Classifier, Constant, Ema, Mixing

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # Lightning's advice on workers

CLASSES = 7
NEAR_CHANCE = "that is near chance (14.29%)"


class Network(nn.Module):
    """Draws random numbers in training."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(12, 16), nn.Dropout(0.5), nn.Linear(16, CLASSES))

    def forward(self, images):
        return self.layers(images.flatten(1))


def known(right, count=40):
    """Images of which the untrained network names so many rightly, and their labels."""
    images = torch.randn(count, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        labels = Network().eval()(images).argmax(dim=1)
    labels[right:] = (labels[right:] + 1) % CLASSES
    return TensorDataset(images, labels)


def classifier(**options):
    optimizer = AdamW(lr=1e-2, reference_batch=1, lr_scaling="none", weight_decay=0.05)
    schedule = Constant(warmup_epochs=0, warmup_start=1.0)
    return Classifier(Network(), CLASSES, {}, optimizer=optimizer, schedule=schedule, **options)


def fit(module, images, check=-1, epochs=1):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(max_epochs=epochs, accelerator="cpu", num_sanity_val_steps=check, **quiet)
    trainer.fit(module, DataLoader(images, batch_size=8, shuffle=True), DataLoader(images, batch_size=16))
    return module


@pytest.fixture
def said(caplog, monkeypatch):
    """What is logged, and the warnings in it."""
    monkeypatch.setattr(logging.getLogger("swin_lab"), "propagate", True)
    caplog.set_level(logging.INFO, "swin_lab")

    def read():
        return caplog.text, [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]

    return read


@pytest.mark.parametrize(("right", "percent"), [(40, "100.00%"), (30, "75.00%"), (9, "22.50%"), (0, "0.00%")])
def test_the_accuracy_of_all_images_is_said(said, right, percent):
    fit(classifier(), known(right))
    assert f"at start   top-1 {percent}, loss " in said()[0]
    assert "on 40 images" in said()[0]


def test_the_metrics_at_start_are_those_of_the_weights_that_were_loaded():
    images = known(30)
    images, labels = images.tensors
    with torch.no_grad():
        loss = F.cross_entropy(Network().eval()(images), labels).item()
    module = fit(classifier(), images, epochs=3)
    assert set(module.metrics_at_start) == {"val/acc1", "val/acc5", "val/loss"}
    assert module.metrics_at_start["val/acc1"] == 0.75
    assert module.metrics_at_start["val/loss"] == pytest.approx(loss, rel=1e-6)
    assert module.metrics["val/loss"] != pytest.approx(loss, rel=1e-2)


def test_with_a_moving_average_only_the_weights_are_judged():
    module = fit(classifier(ema=Ema(decay=0.9)), known(30))
    assert set(module.metrics_at_start) == {"val/acc1", "val/acc5", "val/loss"}
    assert module.average.averagings == 5


@pytest.mark.parametrize("right", [0, 5, 9])
def test_an_accuracy_near_chance_is_warned_of(said, right):
    """Near: less than a tenth of the way from 1/7 to one, 22.9%."""
    fit(classifier(), known(right))
    assert [message for message in said()[1] if NEAR_CHANCE in message]


@pytest.mark.parametrize("right", [10, 30, 40])
def test_an_accuracy_above_chance_is_not_warned_of(said, right):
    fit(classifier(), known(right))
    assert said()[1] == []


def test_without_the_check_nothing_is_said_of_the_start(said):
    assert fit(classifier(), known(0), check=0).metrics_at_start is None
    assert "at start" not in said()[0]
    assert said()[1] == []


def test_later_evaluations_are_not_taken_for_the_start(said):
    fit(classifier(), known(0), epochs=3)
    assert said()[0].count("at start") == 1


@pytest.mark.parametrize(
    "options",
    [{}, {"ema": Ema(decay=0.9)}, {"mixing": Mixing(mixup=0.8, cutmix=1.0), "label_smoothing": 0.1}],
    ids=["plain", "averaged", "mixed"],
)
def test_training_is_bit_for_bit_that_without_the_check(options):
    """The order of images, drop-out and mixing are random."""
    runs = [fit(classifier(**options), known(30), check, epochs=2) for check in (0, -1)]
    assert runs[0].metrics == runs[1].metrics
    for one, other in zip(runs[0].network.parameters(), runs[1].network.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(next(runs[0].network.parameters()), next(Network().parameters()))
