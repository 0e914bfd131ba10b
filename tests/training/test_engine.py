"""The LightningModule under Lightning's own Trainer, on loaders of a few tensors."""

import logging
import math
from contextlib import contextmanager
from functools import partial

import lightning
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from engines import adamw, classification_engine
from lightning import Callback
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from swin_lab import SwinConfig, SwinTransformer
from swin_lab.errors import UserError
from swin_lab.metadata import METADATA_KEY
from swin_lab.training import Constant, Cosine, EmaConfig, OptimizerConfig, RunLength

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # Lightning's advice on workers

CLASSES = 7
VAL_PAIR, FINAL_PAIR = ("val", "val_ema"), ("final", "final_ema")


class Linear(nn.Module):
    def __init__(self, classes=CLASSES):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3 * 4 * 4, classes)

    def forward(self, images):
        return self.layer(images.flatten(1))


class GradientDescent:
    """Replaces AdamW by plain gradient descent with learning rate 1, whose step is the gradient itself."""

    def build(self, network, global_batch, allow_fused):
        return torch.optim.SGD(network.parameters(), lr=1.0)


def labelled(count, classes=CLASSES, nan=()):
    images = torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    images[list(nan)] = float("nan")
    return images, torch.arange(count) * 3 % classes


def loader(images, labels, batch=4):
    return DataLoader(TensorDataset(images, labels), batch_size=batch)


def trainer(**options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return lightning.Trainer(**{"max_epochs": 1, "accelerator": "cpu", "num_sanity_val_steps": 0} | quiet | options)


def engine(network=None, classes=CLASSES, metadata=None, **options):
    options = {"optimizer": adamw(), "schedule": Constant(warmup_epochs=0, warmup_lr_ratio=1.0)} | options
    return classification_engine(network or Linear(classes), classes, metadata, **options)


def evaluated(module, images, labels, batch=4):
    trainer().validate(module, loader(images, labels, batch), verbose=False)
    return module


@pytest.mark.parametrize("batch", [1, 4, 5, 16, 100])
def test_metrics_are_those_of_all_images_at_any_batch_size(batch):
    images, labels = labelled(33)
    module = engine()
    logits = module.network(images).detach()
    ranks = (logits > logits.gather(1, labels[:, None])).sum(dim=1)
    metrics = evaluated(module, images, labels, batch).result.metrics
    assert metrics["val/acc1"] == pytest.approx((ranks < 1).float().mean().item(), abs=1e-6)
    assert metrics["val/acc5"] == pytest.approx((ranks < 5).float().mean().item(), abs=1e-6)
    assert metrics["val/loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)  # float32 sums
    assert module.result.num_images == 33


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_losses_are_summed_in_full_precision_under_half_precision(precision):
    """In bfloat16, a sum of losses near 2 would stop growing at 512; logits in half precision cost 1 % here."""
    images, labels = labelled(1200)
    module = engine(optimizer=adamw(lr=0.0))
    expected = F.cross_entropy(module.network(images), labels).item()
    run = trainer(precision=precision)
    run.fit(module, loader(images, labels, batch=2), loader(images, labels, batch=2))
    assert module.result.metrics["val/loss"] == pytest.approx(expected, rel=0.01)
    assert float(run.callback_metrics["train/loss_epoch"]) == pytest.approx(expected, rel=0.01)


def test_metrics_are_reset_before_a_second_evaluation():
    module = evaluated(engine(), *labelled(33))
    first = module.result.metrics
    assert evaluated(module, *labelled(33)).result.metrics == first
    assert module.result.num_images == 33


@pytest.mark.parametrize("classes", [2, 5])
def test_up_to_five_classes_there_is_no_top_5(classes):
    assert "val/acc5" not in evaluated(engine(classes=classes), *labelled(8, classes)).result.metrics


def test_six_classes_have_a_top_5():
    assert "val/acc5" in evaluated(engine(classes=6), *labelled(8, 6)).result.metrics


def test_confusion_counts_are_truth_by_prediction():
    images, labels = labelled(33)
    module = evaluated(engine(), images, labels)
    expected = np.zeros((CLASSES, CLASSES), dtype=int)
    np.add.at(expected, (labels.numpy(), module.network(images).argmax(dim=1).numpy()), 1)
    assert (module.result.arrays["confusion"] == expected).all()


def test_an_evaluation_with_nan_logits_is_an_error():
    with pytest.raises(UserError, match="the evaluation of 9 images ended with val/loss=nan: weights, images or outputs"):
        evaluated(engine(), *labelled(9, nan=[2]))


def test_an_infinite_logit_of_a_wrong_class_is_an_error():
    """The loss and the accuracy of such an image are finite."""
    network = Linear()
    nn.init.constant_(network.layer.bias[:1], -float("inf"))
    images, _ = labelled(8)
    with pytest.raises(UserError, match="val/loss=nan"):
        evaluated(engine(network), images, torch.ones(8, dtype=torch.long))


def test_an_evaluation_without_any_image_is_an_error():
    empty = [(torch.empty(0), torch.empty(0, dtype=torch.long))] * 2
    with pytest.raises(UserError, match="no image was evaluated: none of the validation images can be read"):
        trainer().validate(engine(), DataLoader(empty, batch_size=None), verbose=False)


def test_nan_metrics_after_a_finite_loss_stop_the_training():
    class Break(Callback):
        def on_validation_start(self, trainer, pl_module):
            nn.init.constant_(pl_module.network.layer.weight, float("inf"))

    with pytest.raises(UserError, match=r"val/loss=nan.*\n.*lower optimizer\.lr"):
        trainer(callbacks=[Break()]).fit(engine(), loader(*labelled(8)), loader(*labelled(8)))


class Rates(Callback):
    """Records the learning rate of every update."""

    def __init__(self):
        self.rates = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.rates.append(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize(("accumulate", "batch"), [(1, 4), (2, 2), (4, 1)])
def test_the_schedule_steps_once_per_update_with_and_without_accumulation(accumulate, batch):
    seen, schedule = Rates(), Cosine(warmup_epochs=1, warmup_lr_ratio=0.1, min_lr_ratio=0.0)
    run = trainer(max_epochs=3, accumulate_grad_batches=accumulate, callbacks=[seen])
    run.fit(engine(schedule=schedule), loader(*labelled(16), batch))
    assert seen.rates == pytest.approx([1e-2 * schedule.factor(update, RunLength(4, 12)) for update in range(12)], rel=1e-9)


def test_a_warm_up_of_half_an_epoch_is_half_an_epoch_s_updates():
    seen = Rates()
    schedule = Constant(warmup_epochs=0.5, warmup_lr_ratio=0.0)
    trainer(callbacks=[seen]).fit(engine(schedule=schedule), loader(*labelled(16)))
    assert seen.rates == pytest.approx([0.0, 0.005, 0.01, 0.01], rel=1e-9)


def test_a_run_shorter_than_its_warm_up_gives_a_warning(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("swin_lab"), "propagate", True)
    caplog.set_level(logging.WARNING, "swin_lab")
    trainer().fit(engine(schedule=Constant(warmup_epochs=3, warmup_lr_ratio=0.0)), loader(*labelled(16)))
    assert "warm-up takes 12 updates and the run has 4" in caplog.text


def step_of_one_update(**options):
    """Returns the norm of one gradient descent step, the logged gradient norm, and the true gradient norm."""
    images, labels = labelled(4)
    module = engine(optimizer=GradientDescent())
    before = [parameter.detach().clone() for parameter in module.network.parameters()]
    gradients = torch.autograd.grad(F.cross_entropy(module.network(images), labels), list(module.network.parameters()))
    run = trainer(**options)
    run.fit(module, loader(images, labels))
    change = [old - new for old, new in zip(before, module.network.parameters(), strict=True)]
    norms = [math.sqrt(sum(float((x**2).sum()) for x in tensors)) for tensors in (change, gradients)]
    return norms[0], float(run.callback_metrics["train/grad_norm"]), norms[1]


def test_clipping_bounds_the_step_and_logs_the_norm_before():
    step, logged, gradient = step_of_one_update(gradient_clip_val=0.5)
    assert gradient > 1
    assert step == pytest.approx(0.5, rel=1e-4)  # torch divides by the norm + 1e-6
    assert logged == pytest.approx(gradient, rel=1e-5)


@pytest.mark.parametrize("limit", [None, 0, 1e6])
def test_without_a_limit_or_below_it_gradients_are_not_clipped(limit):
    step, logged, gradient = step_of_one_update(gradient_clip_val=limit)
    assert step == pytest.approx(gradient, rel=1e-5)
    assert logged == pytest.approx(gradient, rel=1e-5)


def test_clipping_by_value_limits_every_gradient():
    """Every entry of the step, which is the clipped gradient, has the size of the limit."""
    step, _, _ = step_of_one_update(gradient_clip_val=1e-4, gradient_clip_algorithm="value")
    assert step == pytest.approx(1e-4 * math.sqrt(CLASSES * 49), rel=1e-2)


@pytest.mark.parametrize(("bad", "update"), [(range(16), 1), ([13], 4), ([0], 1)], ids=["all", "last-batch", "first-batch"])
@pytest.mark.parametrize("validated", [True, False])
def test_a_loss_that_is_nan_stops_the_run_and_names_the_update(bad, update, validated):
    message = rf"the training loss is NaN or infinite at update {update} \(epoch 1\); lower optimizer\.lr"
    val = [loader(*labelled(4))] if validated else []
    with pytest.raises(UserError, match=message):
        trainer().fit(engine(), loader(*labelled(16, nan=bad)), *val)


def test_the_update_of_accumulated_batches_is_named():
    with pytest.raises(UserError, match="at update 2 "):
        trainer(accumulate_grad_batches=2).fit(engine(), loader(*labelled(16, nan=[13])))


class Returns:
    """Replaces the loss of a task."""

    def __init__(self, loss):
        self.loss = loss

    def __call__(self, network, batch, batch_seed):
        return self.loss(network(batch[0]))


@pytest.mark.parametrize(
    ("loss", "found"),
    [
        (lambda logits: logits.mean(dim=1), r"a tensor of shape \[4\] with a gradient"),
        (lambda logits: logits.mean().detach(), r"a tensor of shape \[\] without a gradient"),
        (lambda logits: 0.5, "a float"),
        (lambda logits: None, "a NoneType"),
        (lambda logits: {"loss": logits.mean()}, "a dict"),
    ],
    ids=["per-image", "detached", "number", "nothing", "dict"],
)
def test_a_loss_that_is_no_scalar_tensor_is_refused(loss, found):
    module = engine()
    object.__setattr__(module.task, "training_loss", Returns(loss))
    message = f"Classification.training_loss returned {found}; it must return a scalar tensor with a gradient"
    with pytest.raises(UserError, match=message):
        trainer().fit(module, loader(*labelled(8)))


def optimizer(target, **settings):
    values = {"lr": 1e-2, "reference_batch": 1, "lr_scaling": "none", "weight_decay": 0.0}
    return OptimizerConfig(create=partial(target, **settings), **values)


class NeedsNothing(torch.optim.SGD):
    """Has a `step` without a closure."""

    def step(self):
        return None


@pytest.mark.parametrize(
    ("target", "settings", "reason"),
    [
        (torch.optim.AdamW, {"capturable": True}, "capturable=True"),
        (torch.optim.SGD, {"differentiable": True}, "leaf"),
        (torch.optim.SparseAdam, {}, "does not support dense gradients"),
        (NeedsNothing, {}, "closure"),
    ],
    ids=["capturable", "differentiable", "sparse", "no-closure"],
)
def test_an_optimizer_that_fails_in_the_first_update_is_named(target, settings, reason):
    message = rf"optimizer\._target_=\S*{target.__name__} fails in the first update: .*{reason}"
    with pytest.raises(UserError, match=message):
        trainer().fit(engine(optimizer=optimizer(target, **settings)), loader(*labelled(8)))


class FailingNetwork(Linear):
    def forward(self, images):
        raise RuntimeError("my own bug")


class FailingCallback(Callback):
    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        raise RuntimeError("my own bug")


@pytest.mark.parametrize(
    ("network", "callbacks"), [(FailingNetwork(), []), (Linear(), [FailingCallback()])], ids=["network", "callback"]
)
def test_an_error_of_a_network_or_callback_in_the_first_update_keeps_its_traceback(network, callbacks):
    with pytest.raises(RuntimeError, match="my own bug"):
        trainer(callbacks=callbacks).fit(engine(network), loader(*labelled(8)))


class Logged(Callback):
    """Records the names of the metrics of every evaluation."""

    def __init__(self):
        self.names = []

    def on_validation_end(self, trainer, pl_module):
        self.names.append({name for name in trainer.callback_metrics if not name.startswith("train/")})


def test_an_evaluation_after_the_training_is_logged_as_final():
    """Its result has the same names as those of the training."""
    seen = Logged()
    module, run = engine(ema=EmaConfig(decay=0.9)), trainer(callbacks=[seen])
    run.fit(module, loader(*labelled(8)), loader(*labelled(8)))
    in_training = module.result
    run.validate(module, loader(*labelled(8)), verbose=False)
    names = [{f"{prefix}/{name}" for prefix in pair for name in ("loss", "acc1", "acc5")} for pair in (VAL_PAIR, FINAL_PAIR)]
    assert seen.names == names
    assert module.result.metrics.keys() == in_training.metrics.keys() == names[0]
    assert in_training.epoch == 1


def test_the_epoch_of_a_diverging_run_is_named():
    class Diverge(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                nn.init.constant_(pl_module.network.layer.weight, float("inf"))

    with pytest.raises(UserError, match=r"at update 9 \(epoch 3\)"):
        trainer(max_epochs=5, callbacks=[Diverge()]).fit(engine(), loader(*labelled(16)))


def test_label_smoothing_is_in_the_training_loss_only():
    images, labels = labelled(16)
    module = engine(optimizer=adamw(lr=0.0), label_smoothing=0.3)
    logits = module.network(images).detach()
    run = trainer()
    run.fit(module, loader(images, labels), loader(images, labels))
    smooth, plain = (F.cross_entropy(logits, labels, label_smoothing=part).item() for part in (0.3, 0.0))
    assert float(run.callback_metrics["train/loss_epoch"]) == pytest.approx(smooth, rel=1e-5)  # float32 sums
    assert module.result.metrics["val/loss"] == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("part", [-0.1, 1, 1.5, float("nan"), "some"])
def test_label_smoothing_outside_0_to_1_is_refused(part):
    with pytest.raises(UserError, match=f"label_smoothing={part}"):
        engine(label_smoothing=part)


def test_a_single_class_is_refused():
    with pytest.raises(UserError, match="class"):
        engine(classes=1)


def test_a_run_without_an_end_is_refused():
    with pytest.raises(UserError, match=r"the run has no end; set trainer\.max_epochs or trainer\.max_steps"):
        trainer(max_epochs=-1).fit(engine(), loader(*labelled(8)))


def test_a_checkpoint_contains_the_metadata_and_loads_with_weights_only(tmp_path):
    metadata = {"format": 1, "model": {"depths": [2, 2]}, "class_names": ["a", "b"]}
    module, run = engine(metadata=metadata), trainer()
    run.fit(module, loader(*labelled(8)))
    run.save_checkpoint(tmp_path / "a.ckpt")
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert content[METADATA_KEY] == metadata
    assert torch.equal(content["state_dict"]["network.layer.weight"], module.network.layer.weight)


def test_the_state_dict_of_a_checkpoint_contains_only_the_network(tmp_path):
    run = trainer()
    run.fit(engine(), loader(*labelled(8)), loader(*labelled(8)))
    run.save_checkpoint(tmp_path / "a.ckpt")
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert set(content["state_dict"]) == {"network.layer.weight", "network.layer.bias"}


def test_a_tiny_swin_memorises_eight_images():
    torch.manual_seed(0)
    shape = {"img_size": 32, "embed_dim": 16, "depths": (2, 2), "num_heads": (1, 2), "window_size": 4, "drop_path_rate": 0.0}
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8)
    module = engine(SwinTransformer(SwinConfig(**shape, num_classes=8)), 8, optimizer=adamw(lr=3e-3))
    run = trainer(max_epochs=60, gradient_clip_val=5.0)
    run.fit(module, loader(images, labels, 8))
    assert float(run.callback_metrics["train/loss_epoch"]) < 0.05
    assert evaluated(module, images, labels).result.metrics["val/acc1"] == 1.0


def test_every_evaluation_runs_with_constant_weights_and_training_does_not():
    seen = []

    @contextmanager
    def recording(network):
        seen.append(("enter", network.layer.weight.detach().clone()))
        yield
        seen.append(("leave", network.layer.weight.detach().clone()))

    class Updates(Callback):
        def on_train_batch_end(self, *_):
            seen.append(("update", None))

    network, ema = Linear(), EmaConfig(decay=0.9)
    schedule = Constant(warmup_epochs=0, warmup_lr_ratio=1.0)
    task = engine(network, optimizer=adamw(), schedule=schedule, ema=ema, constant_weights=recording)
    batches = loader(*labelled(4))
    trainer(max_epochs=2, callbacks=[Updates()]).fit(task, batches, batches)
    assert [name for name, _ in seen] == ["update", *["enter"] * 2, *["leave"] * 2] * 2
    entered = [weight for name, weight in seen if name == "enter"]
    assert not torch.equal(entered[0], entered[2]), "the second evaluation has the weights of the second epoch"
