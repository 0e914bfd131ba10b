"""The evaluation of loaded weights before the first update, which does not affect training."""

import logging

import lightning
import pytest
import torch
import torch.nn.functional as F
from engines import adamw, classification_engine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from swin_lab.tasks import Mixing
from swin_lab.training import Constant, EmaConfig

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # Lightning's advice on workers

CLASSES = 7
NEAR_CHANCE = "is near chance (14.29%)"


class Network(nn.Module):
    """Uses random numbers in training (dropout)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(12, 16), nn.Dropout(0.5), nn.Linear(16, CLASSES))

    def forward(self, images):
        return self.layers(images.flatten(1))


def known(right, count=40):
    """Returns images and labels of which the untrained network predicts `right` correctly."""
    images = torch.randn(count, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        labels = Network().eval()(images).argmax(dim=1)
    labels[right:] = (labels[right:] + 1) % CLASSES
    return TensorDataset(images, labels)


def engine(**options):
    optimizer = adamw(weight_decay=0.05)
    schedule = Constant(warmup_epochs=0, warmup_lr_ratio=1.0)
    return classification_engine(Network(), CLASSES, optimizer=optimizer, schedule=schedule, **options)


def fit(module, images, check=-1, epochs=1):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(max_epochs=epochs, accelerator="cpu", num_sanity_val_steps=check, **quiet)
    trainer.fit(module, DataLoader(images, batch_size=8, shuffle=True), DataLoader(images, batch_size=16))
    return module


@pytest.fixture
def logged(caplog, monkeypatch):
    """Returns a function that reads the log text and the warnings in it."""
    monkeypatch.setattr(logging.getLogger("swin_lab"), "propagate", True)
    caplog.set_level(logging.INFO, "swin_lab")

    def read():
        return caplog.text, [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]

    return read


@pytest.mark.parametrize(("right", "percent"), [(40, "100.00%"), (30, "75.00%"), (9, "22.50%"), (0, "0.00%")])
def test_the_accuracy_of_all_images_is_logged(logged, right, percent):
    fit(engine(), known(right))
    assert f"top-1 {percent}" in logged()[0]
    assert "on 40 images" in logged()[0]


def test_initial_metrics_are_those_of_the_loaded_weights():
    dataset = known(30)
    images, labels = dataset.tensors
    with torch.no_grad():
        loss = F.cross_entropy(Network().eval()(images), labels).item()
    module = fit(engine(), dataset, epochs=3)
    assert set(module.initial_metrics) == {"val/acc1", "val/acc5", "val/loss"}
    assert module.initial_metrics["val/acc1"] == 0.75
    assert module.initial_metrics["val/loss"] == pytest.approx(loss, rel=1e-6)
    assert module.result.metrics["val/loss"] != pytest.approx(loss, rel=1e-2)


def test_with_an_ema_only_the_raw_weights_are_evaluated_initially():
    module = fit(engine(ema=EmaConfig(decay=0.9)), known(30))
    assert set(module.initial_metrics) == {"val/acc1", "val/acc5", "val/loss"}
    assert module.ema.num_updates == 5


@pytest.mark.parametrize(("right", "count"), [(0, 40), (2, 40), (57, 400)])
def test_an_accuracy_near_chance_gives_a_warning(logged, right, count):
    """Weights that know the classes have at least 22.9%, a tenth of the way from 1/7 to one; P(so few are right) < 1%."""
    fit(engine(), known(right, count))
    assert [message for message in logged()[1] if f"top-1 on {count} images {NEAR_CHANCE}" in message]


@pytest.mark.parametrize(("right", "count"), [(10, 40), (40, 40), (3, 24), (1, 8), (4, 40), (80, 400)])
def test_an_accuracy_above_chance_or_of_too_few_images_gives_no_warning(logged, right, count):
    """3 of 24 images are fewer than chance, but may be those of a run that has just begun to learn."""
    fit(engine(), known(right, count))
    assert logged()[1] == []


def test_without_the_initial_evaluation_nothing_is_logged(logged):
    assert fit(engine(), known(0), check=0).initial_metrics is None
    assert "initial  " not in logged()[0]
    assert logged()[1] == []


def test_later_evaluations_are_not_logged_as_initial(logged):
    fit(engine(), known(0), epochs=3)
    assert logged()[0].count("initial  ") == 1


@pytest.mark.parametrize(
    "options",
    [{}, {"ema": EmaConfig(decay=0.9)}, {"mixing": Mixing(mixup=0.8, cutmix=1.0), "label_smoothing": 0.1}],
    ids=["plain", "averaged", "mixed"],
)
def test_training_is_bit_identical_with_and_without_the_initial_evaluation(options):
    """The order of images, dropout and mixing are random, and must have the same random numbers."""
    runs = [fit(engine(**options), known(30), check, epochs=2) for check in (0, -1)]
    assert runs[0].result.metrics == runs[1].result.metrics
    for one, other in zip(runs[0].network.parameters(), runs[1].network.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(next(runs[0].network.parameters()), next(Network().parameters()))
