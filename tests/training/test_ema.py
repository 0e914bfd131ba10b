"""The moving average of the weights (EMA): its formula, when it is updated, its metrics, and its place in checkpoints."""

import lightning
import pytest
import torch
import torch.nn.functional as F
from engines import adamw, classification_engine
from lightning import Callback
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from swin_lab.errors import UserError
from swin_lab.training import Constant, EmaConfig
from swin_lab.training.ema import EmaModel

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # Lightning's advice on workers

CLASSES = 7


class Network(nn.Module):
    """Uses random numbers in training (dropout), and has buffers that training changes (batch norm)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, CLASSES))

    def forward(self, images):
        return self.layers(images.flatten(1))


class Plain(nn.Module):
    """Has no randomness, and no norm that half precision does not have on a CPU."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(12, 8), nn.GELU(), nn.Linear(8, CLASSES))

    def forward(self, images):
        return self.layers(images.flatten(1))


SLOW = EmaConfig(decay=0.9999, warmup=False)


def constant():
    return Constant(warmup_epochs=0, warmup_lr_ratio=1.0)


def loader(count=24, batch=4):
    images = torch.randn(count, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(images, torch.arange(count) * 3 % CLASSES), batch_size=batch)


def engine(ema=None):
    optimizer = adamw(lr=3e-2)
    return classification_engine(Network(), CLASSES, optimizer=optimizer, schedule=constant(), ema=ema)


def trainer(**options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return lightning.Trainer(**{"max_epochs": 1, "accelerator": "cpu", "num_sanity_val_steps": 0} | quiet | options)


class AfterUpdates(Callback):
    """Records the weights after every update."""

    def __init__(self):
        self.weights = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step > len(self.weights):
            self.weights.append(copies(pl_module.network))


def copies(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def trained(ema, batches=None, **options):
    """Trains an engine; returns it and the weights after every update."""
    module, seen = engine(ema), AfterUpdates()
    trainer(callbacks=[seen], **options).fit(module, batches or loader())
    return module, seen.weights


def same(some, others):
    return all(torch.equal(tensor, others[name]) for name, tensor in some.items())


def by_hand(sequence, decays):
    """Computes the average by the formula: the first update copies, and buffers are always copied."""
    average = dict(sequence[0])
    for weights, decay in zip(sequence[1:], decays, strict=True):
        for name, tensor in weights.items():
            learned = name.endswith(("weight", "bias"))
            average[name] = decay * average[name] + (1 - decay) * tensor if learned else tensor
    return average


def assert_equal_up_to_rounding(some, others):
    for name, tensor in some.items():
        torch.testing.assert_close(tensor, others[name], atol=1e-6, rtol=0)  # float32 of order one


def test_the_first_update_copies_the_weights():
    network, average = Network(), EmaModel(EmaConfig(decay=0.9), Network())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    average.update(network)
    assert same(average.state_dict(), network.state_dict())
    assert average.num_updates == 1


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.5, 0.9, 0.9978155])
def test_later_updates_are_weighted_by_the_decay(decay):
    module, weights = trained(EmaConfig(decay=decay, warmup=False))
    assert len(weights) == module.ema.num_updates == 6
    assert_equal_up_to_rounding(module.ema.state_dict(), by_hand(weights, [decay] * 5))


def test_with_warmup_the_decay_increases_to_its_value():
    """The decays are (1 + n) / (10 + n): 2/11, 3/12, ..., here limited to 0.3 from the third on."""
    module, weights = trained(EmaConfig(decay=0.3))
    assert_equal_up_to_rounding(module.ema.state_dict(), by_hand(weights, [2 / 11, 3 / 12, 0.3, 0.3, 0.3]))


def test_warmup_of_the_decay_is_the_default():
    assert [EmaConfig(decay=0.9999).decay_at(n) for n in (0, 1, 90, 10**6)] == pytest.approx(
        [0, 2 / 11, 0.91, 0.9999], rel=1e-12
    )


def test_without_warmup_the_decay_is_constant_from_the_second_update():
    assert [EmaConfig(decay=0.9, warmup=False).decay_at(n) for n in (0, 1, 2, 100)] == [0.0, 0.9, 0.9, 0.9]


@pytest.mark.parametrize("accumulate", [1, 2], ids=["each-batch", "accumulated"])
@pytest.mark.parametrize(("every", "averaged"), [(1, [0, 1, 2, 3, 4, 5]), (2, [1, 3, 5]), (4, [3])])
def test_the_ema_is_updated_every_given_number_of_optimizer_updates(every, averaged, accumulate):
    batches = loader(24, 4 // accumulate)
    module, weights = trained(EmaConfig(decay=0.5, every=every, warmup=False), batches, accumulate_grad_batches=accumulate)
    assert len(weights) == 6
    assert module.ema.num_updates == len(averaged)
    expected = by_hand([weights[i] for i in averaged], [0.5] * (len(averaged) - 1))
    assert_equal_up_to_rounding(module.ema.state_dict(), expected)


def test_updates_are_counted_across_epochs():
    """Two epochs have twelve updates, of which the fifth and the tenth update the EMA."""
    module, weights = trained(EmaConfig(decay=0.5, every=5, warmup=False), max_epochs=2)
    assert module.ema.num_updates == 2
    assert_equal_up_to_rounding(module.ema.state_dict(), by_hand([weights[4], weights[9]], [0.5]))


def metrics_of(module, name):
    return {key.split("/")[1]: value for key, value in module.result.metrics.items() if key.startswith(f"{name}/")}


def test_before_the_first_update_the_ema_metrics_are_those_of_the_weights():
    module = engine(EmaConfig(decay=0.9, every=100))
    trainer().fit(module, loader(), loader())
    assert module.ema.num_updates == 0
    assert set(metrics_of(module, "val_ema")) == {"loss", "acc1", "acc5"}
    assert metrics_of(module, "val_ema") == metrics_of(module, "val")


def test_after_updates_the_ema_metrics_are_those_of_the_averaged_weights():
    module, run, batches = engine(EmaConfig(decay=0.9, warmup=False)), trainer(max_epochs=2), loader()
    run.fit(module, batches, batches)
    averaged = Network().eval()
    averaged.load_state_dict(module.ema.state_dict())
    images, labels = batches.dataset.tensors
    with torch.no_grad():
        logits = averaged(images)
    found = metrics_of(module, "val_ema")
    assert found["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)  # float32 sums
    assert found["acc1"] == pytest.approx((logits.argmax(dim=1) == labels).float().mean().item(), abs=1e-6)
    assert found["loss"] != pytest.approx(module.result.metrics["val/loss"], rel=1e-3)
    assert float(run.callback_metrics["val_ema/acc1"]) == found["acc1"]


def test_without_an_ema_there_are_no_ema_metrics():
    module = engine()
    trainer().fit(module, loader(), loader())
    assert metrics_of(module, "val_ema") == {}


@pytest.mark.parametrize("ema", [EmaConfig(decay=0.9), EmaConfig(decay=0.9, every=100)], ids=["updated", "never-updated"])
def test_training_is_bit_identical_with_and_without_an_ema(ema):
    runs = []
    for recipe in (None, ema):
        module = engine(recipe)
        trainer(max_epochs=3).fit(module, loader(), loader())
        runs.append(copies(module.network))
    assert same(*runs)


def test_the_ema_has_no_trainable_parameters_and_is_not_a_submodule():
    module = engine(EmaConfig(decay=0.9))
    assert not any(parameter.requires_grad for parameter in module.ema.network.parameters())
    assert {name for name, _ in module.named_parameters()} == {f"network.{name}" for name, _ in Network().named_parameters()}


@pytest.fixture
def saved(tmp_path):
    """Trains for one epoch; returns the engine and its checkpoint."""
    module, run = engine(EmaConfig(decay=0.9)), trainer()
    run.fit(module, loader(), loader())
    run.save_checkpoint(tmp_path / "a.ckpt")
    return module, tmp_path / "a.ckpt"


def test_a_checkpoint_contains_the_ema_under_the_names_of_the_weights(saved):
    module, file = saved
    content = torch.load(file, weights_only=True)
    assert set(content["ema"]) == set(content["state_dict"]) == {f"network.{name}" for name in Network().state_dict()}
    assert same({f"network.{name}": tensor for name, tensor in module.ema.state_dict().items()}, content["ema"])
    assert not same(content["state_dict"], content["ema"])


def test_a_checkpoint_of_a_run_without_an_ema_contains_none(tmp_path):
    run = trainer()
    run.fit(engine(), loader())
    run.save_checkpoint(tmp_path / "a.ckpt")
    assert "ema" not in torch.load(tmp_path / "a.ckpt", weights_only=True)


def test_a_new_engine_evaluates_the_ema_of_a_checkpoint(saved):
    module, file = saved
    fresh = engine(EmaConfig(decay=0.9))
    trainer().validate(fresh, loader(), ckpt_path=file, verbose=False)
    assert fresh.ema.num_updates == 6
    assert same(fresh.ema.state_dict(), module.ema.state_dict())
    assert fresh.result.metrics == module.result.metrics


def test_a_resumed_run_continues_the_ema(saved):
    """The second epoch continues with the saved average and its number of updates, on which the decay depends."""
    module, file = saved
    fresh, seen = engine(EmaConfig(decay=0.9)), AfterUpdates()
    seen.weights = [None] * 6
    trainer(max_epochs=2, callbacks=[seen]).fit(fresh, loader(), loader(), ckpt_path=file)
    assert fresh.ema.num_updates == 12
    sequence = [module.ema.state_dict(), *seen.weights[6:]]
    decays = [(1 + n) / (10 + n) for n in range(6, 12)]
    assert_equal_up_to_rounding(fresh.ema.state_dict(), by_hand(sequence, decays))


def test_a_resumed_run_continues_the_count_of_updates(tmp_path):
    """Every fourth of twelve updates updates the EMA: one before and two after the sixth, where the run was interrupted."""
    file, first = tmp_path / "a.ckpt", trainer()
    first.fit(engine(EmaConfig(decay=0.5, every=4)), loader())
    first.save_checkpoint(file)
    module = engine(EmaConfig(decay=0.5, every=4))
    trainer(max_epochs=2).fit(module, loader(), ckpt_path=file)
    assert module.ema.num_updates == 3


def test_resuming_a_checkpoint_without_an_ema_starts_a_new_one(tmp_path):
    file, first = tmp_path / "a.ckpt", trainer()
    first.fit(engine(), loader())
    first.save_checkpoint(file)
    module, seen = engine(EmaConfig(decay=0.5, warmup=False)), AfterUpdates()
    seen.weights = [None] * 6
    trainer(max_epochs=2, callbacks=[seen]).fit(module, loader(), ckpt_path=file)
    assert module.ema.num_updates == 6
    assert_equal_up_to_rounding(module.ema.state_dict(), by_hand(seen.weights[6:], [0.5] * 5))


def test_the_decay_of_torchvision_follows_from_its_formula():
    """FACTS c3: 0.99998 per 32 updates of 8 x 128 images over 300 epochs; conf/ema/torchvision.yaml has seven digits."""
    from swin_lab.run.compose import composed

    config = composed(["ema=torchvision"])["ema"]
    assert config["decay"] == pytest.approx(1 - min(1, (1 - 0.99998) * 8 * 128 * 32 / 300), abs=5e-8)
    assert (config["every"], config["warmup"]) == (32, False)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"decay": 1}, r"ema\.decay=1 must"),
        ({"decay": -0.1}, r"ema\.decay=-0\.1"),
        ({"decay": float("nan")}, r"ema\.decay=nan"),
        ({"decay": "slow"}, r"ema\.decay=slow"),
        ({"decay": None}, r"ema\.decay=null"),
        ({"decay": False}, r"ema\.decay=false"),
        ({"every": 0}, r"ema\.every=0"),
        ({"every": 1.5}, r"ema\.every=1\.5"),
        ({"every": True}, r"ema\.every=true"),
    ],
    ids=str,
)
def test_an_invalid_value_is_refused_by_name(wrong, message):
    with pytest.raises(UserError, match=message):
        EmaConfig(**{"decay": 0.9} | wrong)


HALF = pytest.mark.parametrize("precision", ["bf16-true", "16-true"])


@HALF
def test_under_half_precision_the_average_is_in_fp32_and_moves_at_a_high_decay(precision):
    """A weight of 1 plus a ten-thousandth is 1 in half precision, so that an average in it would stay at its first value."""
    module = classification_engine(Plain(), CLASSES, optimizer=adamw(lr=1e-2), schedule=constant(), ema=SLOW)
    seen = AfterUpdates()
    trainer(precision=precision, callbacks=[seen], max_epochs=3).fit(module, loader())
    averages = module.ema.state_dict()
    assert {tensor.dtype for tensor in averages.values()} == {torch.float32}
    weights = [{name: tensor.float() for name, tensor in copied.items()} for copied in seen.weights]
    assert_equal_up_to_rounding(averages, by_hand(weights, [SLOW.decay] * 17))
    assert not same(averages, weights[0])


@HALF
def test_under_half_precision_the_average_is_evaluated_in_that_precision(precision):
    module = classification_engine(Plain(), CLASSES, optimizer=adamw(lr=1e-2), schedule=constant(), ema=EmaConfig(decay=0.9))
    batches = loader()
    trainer(precision=precision).fit(module, batches, batches)
    dtype = {"bf16-true": torch.bfloat16, "16-true": torch.float16}[precision]
    rounded = Plain()
    rounded.load_state_dict(module.ema.state_dict())
    images, labels = batches.dataset.tensors
    with torch.no_grad():
        logits = rounded.to(dtype)(images.to(dtype)).float()
    assert metrics_of(module, "val_ema")["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)


@HALF
def test_a_resumed_half_precision_run_continues_the_average_in_fp32(precision, tmp_path):
    runs = []
    for epochs in ([1, 3], [3]):
        module, file = None, None
        for last in epochs:
            module = classification_engine(Plain(), CLASSES, optimizer=adamw(), schedule=constant(), ema=SLOW)
            run = trainer(precision=precision, max_epochs=last)
            run.fit(module, loader(), ckpt_path=file)
            file = tmp_path / f"{len(epochs)}-{last}.ckpt"
            run.save_checkpoint(file)
        content = torch.load(file, weights_only=True)
        assert {tensor.dtype for tensor in content["ema"].values()} == {torch.float32}
        runs.append(module.ema.state_dict())
    assert same(*runs)
