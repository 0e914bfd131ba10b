"""The moving average of the weights: its formula, when it is taken, what is evaluated with it, and that checkpoints keep it."""

import lightning
import pytest
import torch
import torch.nn.functional as F
from lightning import Callback
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from swin_lab.errors import UserError
from swin_lab.training import AdamW, Classifier, Constant, Ema
from swin_lab.training.ema import Average

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # Lightning's advice on workers

CLASSES = 7


class Network(nn.Module):
    """Draws random numbers in training, and has a buffer that learning changes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, CLASSES))

    def forward(self, images):
        return self.layers(images.flatten(1))


def loader(count=24, batch=4):
    images = torch.randn(count, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(images, torch.arange(count) * 3 % CLASSES), batch_size=batch)


def classifier(ema=None):
    optimizer = AdamW(lr=3e-2, reference_batch=1, lr_scaling="none", weight_decay=0.0)
    schedule = Constant(warmup_epochs=0, warmup_start=1.0)
    return Classifier(Network(), CLASSES, {}, optimizer=optimizer, schedule=schedule, ema=ema)


def trainer(**options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return lightning.Trainer(**{"max_epochs": 1, "accelerator": "cpu", "num_sanity_val_steps": 0} | quiet | options)


class AfterUpdates(Callback):
    """The weights after every update."""

    def __init__(self):
        self.weights = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step > len(self.weights):
            self.weights.append(copies(pl_module.network))


def copies(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def trained(ema, batches=None, **options):
    """The classifier, and the weights after every update."""
    module, seen = classifier(ema), AfterUpdates()
    trainer(callbacks=[seen], **options).fit(module, batches or loader())
    return module, seen.weights


def same(some, others):
    return all(torch.equal(tensor, others[name]) for name, tensor in some.items())


def by_hand(sequence, decays):
    """What the formula gives; the first is a copy, and what is no parameter is always copied."""
    average = dict(sequence[0])
    for weights, decay in zip(sequence[1:], decays, strict=True):
        for name, tensor in weights.items():
            learned = name.endswith(("weight", "bias"))
            average[name] = decay * average[name] + (1 - decay) * tensor if learned else tensor
    return average


def assert_equal_but_for_rounding(some, others):
    for name, tensor in some.items():
        torch.testing.assert_close(tensor, others[name], atol=1e-6, rtol=0)  # float32 of order one


def test_the_first_averaging_is_a_copy():
    network, average = Network(), Average(Ema(decay=0.9), Network())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    average.follow(network)
    assert same(average.state(), network.state_dict())
    assert average.averagings == 1


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.5, 0.9, 0.9978155])
def test_later_ones_keep_d_of_the_average_and_take_the_rest_from_the_weights(decay):
    module, weights = trained(Ema(decay=decay, warm=False))
    assert len(weights) == module.average.averagings == 6
    assert_equal_but_for_rounding(module.average.state(), by_hand(weights, [decay] * 5))


def test_a_warm_decay_rises_up_to_its_value():
    """The decays are those of (1 + n) / (10 + n): 2/11, 3/12, ..., here capped from the third on."""
    module, weights = trained(Ema(decay=0.3))
    assert_equal_but_for_rounding(module.average.state(), by_hand(weights, [2 / 11, 3 / 12, 0.3, 0.3, 0.3]))


def test_the_decay_is_warm_unless_said_otherwise():
    assert [Ema(decay=0.9999).decay_at(n) for n in (0, 1, 90, 10**6)] == pytest.approx([0, 2 / 11, 0.91, 0.9999], rel=1e-12)


def test_an_average_that_is_not_warm_has_its_decay_from_the_second_on():
    assert [Ema(decay=0.9, warm=False).decay_at(n) for n in (0, 1, 2, 100)] == [0.0, 0.9, 0.9, 0.9]


@pytest.mark.parametrize("accumulate", [1, 2], ids=["each-batch", "accumulated"])
@pytest.mark.parametrize(("every", "averaged"), [(1, [0, 1, 2, 3, 4, 5]), (2, [1, 3, 5]), (4, [3])])
def test_every_so_many_optimizer_updates_the_weights_are_averaged(every, averaged, accumulate):
    batches = loader(24, 4 // accumulate)
    module, weights = trained(Ema(decay=0.5, every=every, warm=False), batches, accumulate_grad_batches=accumulate)
    assert len(weights) == 6
    assert module.average.averagings == len(averaged)
    expected = by_hand([weights[i] for i in averaged], [0.5] * (len(averaged) - 1))
    assert_equal_but_for_rounding(module.average.state(), expected)


def test_updates_are_counted_on_from_epoch_to_epoch():
    """Twelve updates of two epochs: the fifth and the tenth are averaged."""
    module, weights = trained(Ema(decay=0.5, every=5, warm=False), max_epochs=2)
    assert module.average.averagings == 2
    assert_equal_but_for_rounding(module.average.state(), by_hand([weights[4], weights[9]], [0.5]))


def metrics_of(module, name):
    return {key.split("/")[1]: value for key, value in module.metrics.items() if key.startswith(f"{name}/")}


def test_before_the_first_averaging_its_metrics_are_those_of_the_weights():
    module = classifier(Ema(decay=0.9, every=100))
    trainer().fit(module, loader(), loader())
    assert module.average.averagings == 0
    assert set(metrics_of(module, "val_ema")) == {"loss", "acc1", "acc5"}
    assert metrics_of(module, "val_ema") == metrics_of(module, "val")


def test_afterwards_they_are_those_of_the_averaged_weights():
    module, run, batches = classifier(Ema(decay=0.9, warm=False)), trainer(max_epochs=2), loader()
    run.fit(module, batches, batches)
    averaged = Network().eval()
    averaged.load_state_dict(module.average.state())
    images, labels = batches.dataset.tensors
    with torch.no_grad():
        logits = averaged(images)
    found = metrics_of(module, "val_ema")
    assert found["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)  # float32 sums
    assert found["acc1"] == pytest.approx((logits.argmax(dim=1) == labels).float().mean().item(), abs=1e-6)
    assert found["loss"] != pytest.approx(module.metrics["val/loss"], rel=1e-3)
    assert float(run.callback_metrics["val_ema/acc1"]) == found["acc1"]


def test_without_an_average_there_are_no_metrics_of_one():
    module = classifier()
    trainer().fit(module, loader(), loader())
    assert metrics_of(module, "val_ema") == {}


@pytest.mark.parametrize("ema", [Ema(decay=0.9), Ema(decay=0.9, every=100)], ids=["averaged", "never-averaged"])
def test_learning_is_bit_for_bit_that_without_an_average(ema):
    runs = []
    for recipe in (None, ema):
        module = classifier(recipe)
        trainer(max_epochs=3).fit(module, loader(), loader())
        runs.append(copies(module.network))
    assert same(*runs)


def test_the_average_does_not_learn_and_is_no_part_of_what_does():
    module = classifier(Ema(decay=0.9))
    assert not any(parameter.requires_grad for parameter in module.average.network.parameters())
    assert {name for name, _ in module.named_parameters()} == {f"network.{name}" for name, _ in Network().named_parameters()}


@pytest.fixture
def saved(tmp_path):
    """A run of one epoch, and its checkpoint."""
    module, run = classifier(Ema(decay=0.9)), trainer()
    run.fit(module, loader(), loader())
    run.save_checkpoint(tmp_path / "a.ckpt")
    return module, tmp_path / "a.ckpt"


def test_a_checkpoint_holds_the_average_named_like_the_weights_and_loads_without_trust(saved):
    module, file = saved
    content = torch.load(file, weights_only=True)
    assert set(content["ema"]) == set(content["state_dict"]) == {f"network.{name}" for name in Network().state_dict()}
    assert same({f"network.{name}": tensor for name, tensor in module.average.state().items()}, content["ema"])
    assert not same(content["state_dict"], content["ema"])


def test_a_checkpoint_of_a_run_without_an_average_holds_none(tmp_path):
    run = trainer()
    run.fit(classifier(), loader())
    run.save_checkpoint(tmp_path / "a.ckpt")
    assert "ema" not in torch.load(tmp_path / "a.ckpt", weights_only=True)


def test_a_fresh_classifier_evaluates_the_average_of_a_checkpoint(saved):
    module, file = saved
    fresh = classifier(Ema(decay=0.9))
    trainer().validate(fresh, loader(), ckpt_path=file, verbose=False)
    assert fresh.average.averagings == 6
    assert same(fresh.average.state(), module.average.state())
    assert fresh.metrics == module.metrics


def test_a_run_that_goes_on_averages_on(saved):
    """Of the second epoch's weights, from the saved average and count on; the decays are those of a warm average."""
    module, file = saved
    fresh, seen = classifier(Ema(decay=0.9)), AfterUpdates()
    seen.weights = [None] * 6
    trainer(max_epochs=2, callbacks=[seen]).fit(fresh, loader(), loader(), ckpt_path=file)
    assert fresh.average.averagings == 12
    sequence = [module.average.state(), *seen.weights[6:]]
    decays = [(1 + n) / (10 + n) for n in range(6, 12)]
    assert_equal_but_for_rounding(fresh.average.state(), by_hand(sequence, decays))


def test_a_run_that_goes_on_counts_updates_on(tmp_path):
    """Of twelve updates every fourth is averaged: one before and two after the sixth, where the run was cut."""
    file, first = tmp_path / "a.ckpt", trainer()
    first.fit(classifier(Ema(decay=0.5, every=4)), loader())
    first.save_checkpoint(file)
    module = classifier(Ema(decay=0.5, every=4))
    trainer(max_epochs=2).fit(module, loader(), ckpt_path=file)
    assert module.average.averagings == 3


def test_a_checkpoint_without_an_average_starts_one(tmp_path):
    file, first = tmp_path / "a.ckpt", trainer()
    first.fit(classifier(), loader())
    first.save_checkpoint(file)
    module, seen = classifier(Ema(decay=0.5, warm=False)), AfterUpdates()
    seen.weights = [None] * 6
    trainer(max_epochs=2, callbacks=[seen]).fit(module, loader(), ckpt_path=file)
    assert module.average.averagings == 6
    assert_equal_but_for_rounding(module.average.state(), by_hand(seen.weights[6:], [0.5] * 5))


def test_torchvision_s_decay_follows_from_its_words():
    """FACTS c3: 0.99998 per 32 updates of 8 x 128 images over 300 epochs; conf/ema/torchvision.yaml has seven digits."""
    from swin_lab.run.compose import composed

    config = composed(["ema=torchvision"])["ema"]
    assert config["decay"] == pytest.approx(1 - min(1, (1 - 0.99998) * 8 * 128 * 32 / 300), abs=5e-8)
    assert (config["every"], config["warm"]) == (32, False)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"decay": 1}, r"ema\.decay=1:"),
        ({"decay": -0.1}, r"ema\.decay=-0\.1"),
        ({"decay": float("nan")}, r"ema\.decay=nan"),
        ({"decay": "slow"}, r"ema\.decay=slow"),
        ({"decay": None}, r"ema\.decay=None"),
        ({"decay": False}, r"ema\.decay=False"),
        ({"every": 0}, r"ema\.every=0"),
        ({"every": 1.5}, r"ema\.every=1\.5"),
        ({"every": True}, r"ema\.every=True"),
    ],
    ids=str,
)
def test_a_value_that_no_average_can_use_is_refused_by_name(wrong, message):
    with pytest.raises(UserError, match=message):
        Ema(**{"decay": 0.9} | wrong)
