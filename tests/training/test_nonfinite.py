"""An update whose loss or gradient is NaN or infinite is never applied: it ends the run, or is left out."""

from functools import partial

import lightning
import pytest
import torch
from conftest import same
from engines import adamw, classification_engine
from lightning import Callback
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from swin_lab.errors import UserError
from swin_lab.training import Constant, EmaConfig, NonFiniteConfig, NonFiniteError, OptimizerConfig

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # Lightning's advice on workers

BATCH, CLASSES = 4, 5
RAISE, SKIP = NonFiniteConfig(policy="raise"), NonFiniteConfig(policy="skip")
OPTIMIZERS = {
    "fused AdamW": adamw(weight_decay=0.1),
    "AdamW": OptimizerConfig(
        create=partial(torch.optim.AdamW, foreach=True), lr=1e-2, reference_batch=1, lr_scaling="none", weight_decay=0.1
    ),
    "SGD": OptimizerConfig(
        create=partial(torch.optim.SGD, momentum=0.9, foreach=True),
        lr=0.1,
        reference_batch=1,
        lr_scaling="none",
        weight_decay=0.1,
    ),
}
each_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)


class Normalised(nn.Module):
    """A linear layer and batch normalisation, whose statistics a forward pass changes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3 * 4 * 4, CLASSES)
        self.norm = nn.BatchNorm1d(CLASSES)

    def forward(self, images):
        return self.norm(self.layer(images.flatten(1)))


class InfiniteGradient(Callback):
    """Makes one entry of the gradient of an update infinite."""

    def __init__(self, update):
        self.update = update

    def on_after_backward(self, trainer, pl_module):
        if trainer.global_step + 1 == self.update:
            pl_module.network.layer.weight.grad[0, 0] = torch.inf


def batches(updates, bad=(), without=()):
    """A loader of whole batches; one image of each of the bad ones is NaN."""
    images = torch.randn(updates * BATCH, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    images[[(number - 1) * BATCH for number in bad]] = torch.nan
    kept = [i for i in range(len(images)) if i // BATCH + 1 not in without]
    return DataLoader(TensorDataset(images[kept], (torch.arange(len(images)) * 3 % CLASSES)[kept]), batch_size=BATCH)


def fit(data, optimizer=OPTIMIZERS["fused AdamW"], nonfinite=RAISE, **options):
    """Trains for an epoch; returns the engine and the error that has ended it."""
    module = classification_engine(
        Normalised(),
        CLASSES,
        optimizer=optimizer,
        schedule=Constant(warmup_epochs=0, warmup_lr_ratio=1.0),
        ema=EmaConfig(decay=0.9),
        nonfinite=nonfinite,
    )
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(**{"max_epochs": 1, "accelerator": "cpu"} | quiet | options)
    error = None
    try:
        trainer.fit(module, data)
    except NonFiniteError as raised:
        error = raised
    return module, trainer, error


def state(module, trainer):
    """Everything that an update changes, apart from the average."""
    return {"weights": dict(module.network.state_dict()), "optimizer": trainer.optimizers[0].state_dict()["state"]}


@each_optimizer
@pytest.mark.parametrize("bad", [1, 3, 6], ids=["first", "middle", "last"])
def test_an_update_that_ends_the_run_is_not_applied(optimizer, bad):
    module, trainer, error = fit(batches(6, bad=[bad]), optimizer)
    expected = fit(batches(6), optimizer, limit_train_batches=bad - 1 or 1)[:2]
    assert error is not None
    assert (error.found.update, error.found.loss) == (bad, True)
    if bad > 1:
        assert same(state(module, trainer), state(*expected))
    else:
        assert same(dict(module.network.state_dict()), dict(Normalised().state_dict()))


@each_optimizer
def test_skipped_updates_leave_weights_optimizer_and_average_as_if_their_batches_did_not_exist(optimizer):
    module, trainer, error = fit(batches(6, bad=[1, 4]), optimizer, SKIP)
    expected = fit(batches(6, without=[1, 4]), optimizer)[:2]
    assert error is None
    assert same(state(module, trainer), state(*expected))
    assert same(module.ema.state_dict(), expected[0].ema.state_dict())
    assert (module.guard.skipped, module.ema.num_updates) == (2, 4)


def test_a_skipped_update_still_counts_and_its_loss_is_left_out_of_the_mean():
    _, trainer, _ = fit(batches(6, bad=[2]), nonfinite=SKIP)
    _, whole, _ = fit(batches(6, without=[2]))
    assert trainer.global_step == 6
    assert torch.equal(trainer.callback_metrics["train/loss_epoch"], whole.callback_metrics["train/loss_epoch"])


def test_beyond_the_limit_the_run_ends():
    module, _, error = fit(batches(6, bad=[1, 3, 4]), nonfinite=NonFiniteConfig(policy="skip", limit=2))
    assert error is not None
    assert (error.found.update, error.skipped, module.guard.skipped) == (4, 2, 2)


def test_without_bad_updates_both_policies_train_the_same():
    assert same(state(*fit(batches(6), nonfinite=SKIP)[:2]), state(*fit(batches(6))[:2]))


@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_a_gradient_is_found_although_the_loss_is_finite(policy):
    module, _, error = fit(batches(4), nonfinite=NonFiniteConfig(policy=policy), callbacks=[InfiniteGradient(2)])
    if policy == "raise":
        assert "the gradient norm is NaN or infinite and the loss is finite at update 2 (epoch 1)" in str(error)
    else:
        assert (error, module.guard.skipped) == (None, 1)


def test_one_bad_batch_spoils_the_update_of_all_accumulated_ones_and_all_are_kept():
    _, _, error = fit(batches(6, bad=[4]), accumulate_grad_batches=3)
    assert error is not None
    assert (error.found.update, len(error.found.batches)) == (2, 3)
    assert [bool(images.isfinite().all()) for (images, _), _ in error.found.batches] == [False, True, True]


@pytest.mark.parametrize(
    ("scale", "update"), [(2.0**24, None), (1.0, 2)], ids=["an overflow of the scaled gradient", "a scale that has collapsed"]
)
def test_under_16_mixed_an_overflow_is_left_to_the_scaler_until_its_scale_has_collapsed(scale, update):
    precision = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=10**6))
    callbacks = [] if update is None else [InfiniteGradient(update)]
    plain = OPTIMIZERS["AdamW"]  # as the engine chooses with a GPU, where `precision=16-mixed` can be given
    module, _, error = fit(batches(4), plain, plugins=[precision], callbacks=callbacks)
    if update is None:
        assert error is None
        assert precision.scaler.get_scale() < scale
        assert all(parameter.isfinite().all() for parameter in module.network.parameters())
    else:
        assert "the gradient norm is NaN or infinite and the loss is finite at update 2" in str(error)


def test_under_16_mixed_a_bad_loss_is_no_overflow():
    precision = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu"))
    module, _, error = fit(batches(4, bad=[2]), OPTIMIZERS["AdamW"], SKIP, plugins=[precision])
    assert (error, module.guard.skipped) == (None, 1)
    assert all(parameter.isfinite().all() for parameter in module.network.parameters())


@pytest.mark.parametrize("wrong", [{"policy": "ignore"}, {"limit": 0}, {"limit": True}], ids=str)
def test_invalid_settings_are_refused(wrong):
    with pytest.raises(UserError, match="nonfinite"):
        NonFiniteConfig(**wrong)
