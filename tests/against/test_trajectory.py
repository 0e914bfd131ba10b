"""Thirty updates of a published recipe equal a training loop with timm's network, groups, schedule, clipping and loss.

`updates_by_swin_lab` runs what train.py runs: the composed experiment, built by swin_lab.run, under Lightning.
`updates_by_timm` takes the numbers of the recipe from FACTS c3, not from conf/. Mixing and drop path are random and disabled.
"""

from typing import NamedTuple

import pytest
import torch
from keys import randomise
from lightning import Callback
from timm.loss import SoftTargetCrossEntropy
from timm.models.swin_transformer import SwinTransformer as TimmSwin
from timm.optim import param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from swin_lab.run.components import build_optimization, build_task
from swin_lab.run.compose import composed
from swin_lab.run.model import build_model
from swin_lab.run.trainer import build_trainer
from swin_lab.training import DataDescription, Engine
from swin_lab.weights.layouts import layout_to_write
from swin_lab.weights.save import to_layout

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # Lightning's advice on workers

EXPERIMENT = "swin_large_patch4_window7_224_22kto1k"
CLASSES, BATCH, BATCHES, EPOCHS = 6, 16, 10, 3
SIZES = {"img_size": 64, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4, "drop_path_rate": 0.0}
"""Maps of 16x16 and 8x8 tokens: both stages have several windows, shift them, and are divided by them."""

SMALLER = [
    *(f"model.{key}={list(value) if isinstance(value, tuple) else value}" for key, value in SIZES.items()),
    f"model.num_classes={CLASSES}",
    f"global_batch={BATCH}",
    f"trainer.max_epochs={EPOCHS}",
    "schedule.warmup_epochs=1",
    "mixing=none",
    "trainer.accelerator=cpu",
    "precision=32-true",
    "+trainer.enable_checkpointing=false",
]
"""Overrides that reduce the recipe to a run of a second on a CPU, without changing how weights are updated."""


class Trajectory(NamedTuple):
    losses: torch.Tensor
    """Loss of every update."""
    norms: torch.Tensor
    """Gradient norm of every update before clipping."""
    start: dict[str, torch.Tensor]
    weights: dict[str, torch.Tensor]
    """Final weights under timm's names."""


def in_timm(network):
    """Returns copies of a network's weights under timm's names."""
    return {name: tensor.clone() for name, tensor in to_layout(network, layout_to_write("timm", 1)).items()}


def dataset():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(BATCHES * BATCH, 3, 64, 64, generator=generator)
    return TensorDataset(images, torch.randint(CLASSES, (len(images),), generator=generator))


class Watch(Callback):
    """Records the loss of every batch and the gradient norm of every update."""

    def __init__(self):
        self.losses, self.norms = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(trainer.callback_metrics["train/loss"].item())
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.norms.append(trainer.callback_metrics["train/grad_norm"].item())


def updates_by_swin_lab(overrides=(), accumulate=1):
    config = composed([f"experiment={EXPERIMENT}", *SMALLER, *overrides])
    task = build_task(config["task"], DataDescription(class_names=tuple(map(str, range(CLASSES)))))
    network = build_model(config["model"], task).network
    randomise(network).train()
    start, watch = in_timm(network), Watch()
    optimization = build_optimization(config["optimizer"], config["schedule"], config["ema"])
    engine = Engine(
        network,
        task,
        {},
        optimizer=optimization.optimizer,
        schedule=optimization.schedule,
        ema=optimization.ema,
        global_batch=config["global_batch"],
        seed=config["seed"],
    )
    trainer = build_trainer(config["trainer"], config["precision"], callbacks=[watch], accumulate=accumulate)
    trainer.fit(engine, DataLoader(dataset(), batch_size=BATCH // accumulate))
    losses = torch.tensor(watch.losses).view(-1, accumulate).mean(dim=1)
    return Trajectory(losses, torch.tensor(watch.norms), start, in_timm(network))


def updates_by_timm(start, lr=2e-5, weight_decay=1e-8):
    """Trains with the recipe in a loop like its authors'; learning rates are per 512 images."""
    network = TimmSwin(**SIZES, num_classes=CLASSES)
    network.load_state_dict(start)
    rates = {"base": lr * BATCH / 512, "start": 1e-3 * lr * BATCH / 512, "end": 1e-2 * lr * BATCH / 512}
    groups = param_groups_weight_decay(network, weight_decay, no_weight_decay_list=network.no_weight_decay())
    optimizer = torch.optim.AdamW(groups, lr=rates["base"], betas=(0.9, 0.999), eps=1e-8)
    schedule = CosineLRScheduler(
        optimizer,
        t_initial=(EPOCHS - 1) * BATCHES,
        lr_min=rates["end"],
        warmup_t=BATCHES,
        warmup_lr_init=rates["start"],
        warmup_prefix=True,
        t_in_epochs=False,
    )
    loss_of, losses, norms = SoftTargetCrossEntropy(), [], []
    network.train()
    for epoch in range(EPOCHS):
        for i, (images, labels) in enumerate(DataLoader(dataset(), batch_size=BATCH)):
            schedule.step_update(epoch * BATCHES + i)
            targets = torch.full((BATCH, CLASSES), 0.1 / CLASSES).scatter_(1, labels[:, None], 0.9 + 0.1 / CLASSES)
            loss = loss_of(network(images), targets)
            optimizer.zero_grad()
            loss.backward()
            norms.append(nn.utils.clip_grad_norm_(network.parameters(), 5.0).item())
            optimizer.step()
            losses.append(loss.item())
    return Trajectory(torch.tensor(losses), torch.tensor(norms), start, network.state_dict())


def max_weight_difference(some, others):
    """Returns the largest difference between weights of the same names, without the biases of keys.

    A bias of keys adds one number to all scores of a query, which softmax ignores. Its gradient is a rounding error (1e-9) that
    AdamW divides by its own size, so that both implementations change it randomly.
    """
    assert set(some) == set(others)
    differences = {name: (tensor - others[name]).abs() for name, tensor in some.items()}
    for name, difference in differences.items():
        if name.endswith("qkv.bias"):
            difference.view(3, -1)[1] = 0
    return max(difference.max().item() for difference in differences.values())


LARGE = {"lr": 3.2e-2, "weight_decay": 0.05}
"""A learning rate of 1e-3 at the batch here, at which every weight changes, and a visible weight decay."""
LARGER = [f"optimizer.{name}={value}" for name, value in LARGE.items()]


@pytest.mark.parametrize(
    ("overrides", "recipe", "accumulate", "moved"),
    [
        pytest.param([], {}, 1, 5e-6, id="as-published"),
        pytest.param(LARGER, LARGE, 1, 1e-2, id="large-steps"),
        pytest.param(LARGER, LARGE, 2, 1e-2, id="large-steps-accumulated-over-two-batches"),
    ],
)
def test_losses_gradients_and_weights_equal_those_of_timm(overrides, recipe, accumulate, moved):
    """Tolerances in float32: 5e-6 on losses and 1e-5 on norms of order one, 2e-6 on weights that move by up to 1e-2."""
    actual = updates_by_swin_lab(overrides, accumulate)
    expected = updates_by_timm(actual.start, **recipe)
    assert len(actual.losses) == len(actual.norms) == EPOCHS * BATCHES
    assert max_weight_difference(actual.weights, actual.start) > moved
    assert (expected.norms > 5).any()  # Clipping is active and therefore compared.
    torch.testing.assert_close(actual.losses, expected.losses, atol=5e-6, rtol=0)
    torch.testing.assert_close(actual.norms, expected.norms, atol=1e-5, rtol=0)
    assert max_weight_difference(actual.weights, expected.weights) <= 2e-6


@pytest.fixture(scope="module")
def after_large_steps():
    return updates_by_swin_lab(LARGER).weights


@pytest.mark.parametrize(
    "other",
    [
        "optimizer.lr=3.3e-2",
        "optimizer.weight_decay=0.04",
        "optimizer.betas=[0.9,0.99]",
        "optimizer.eps=1e-6",
        "optimizer.layer_decay=0.9",
        "schedule.warmup_epochs=0.9",
        "schedule.warmup_lr_ratio=0.1",
        "schedule.min_lr_ratio=0.02",
        "schedule.cosine_after_warmup=false",
        "trainer.gradient_clip_val=null",
        "task.label_smoothing=0.08",
    ],
)
def test_a_recipe_that_differs_in_one_value_gives_other_weights(after_large_steps, other):
    """The difference is 25 times the tolerance, so that the comparison with timm detects a wrong value."""
    assert max_weight_difference(updates_by_swin_lab([*LARGER, other]).weights, after_large_steps) > 5e-5
