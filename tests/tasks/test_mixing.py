"""Mixup and CutMix equal timm's with a seed per batch, and are part of the training loss (FACTS c3, c7)."""

import lightning
import numpy as np
import pytest
import torch
from engines import adamw, classification_engine
from lightning import Callback
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from swin_lab.errors import UserError
from swin_lab.tasks import Mixing
from swin_lab.training import Constant

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # Lightning's advice on workers

CLASSES = 5
PUBLISHED = {"mixup": 0.8, "cutmix": 1.0}
VARIANTS = [
    pytest.param(PUBLISHED, id="batch"),
    pytest.param(PUBLISHED | {"mode": "pair"}, id="pair"),
    pytest.param(PUBLISHED | {"mode": "elem"}, id="elem"),
    pytest.param({"mixup": 0.8, "cutmix": 0}, id="mixup-only"),
    pytest.param({"mixup": 0, "cutmix": 1.0}, id="cutmix-only"),
    pytest.param(PUBLISHED | {"prob": 0.5}, id="every-second-batch"),
    pytest.param(PUBLISHED | {"prob": 0.5, "mode": "elem"}, id="every-second-image"),
    pytest.param(PUBLISHED | {"switch_prob": 0.1}, id="rarely-cutmix"),
]


def batch(count=6, size=8):
    images = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))
    return images, torch.arange(count) * 3 % CLASSES


def by_timm(values, images, labels, seed, classes=CLASSES, smoothing=0.1):
    arguments = {"mixup": "mixup_alpha", "cutmix": "cutmix_alpha"}
    reference = Mixup(
        **{arguments.get(name, name): value for name, value in values.items()}, label_smoothing=smoothing, num_classes=classes
    )
    np.random.seed(seed)
    return reference(images.clone(), labels)


def mixed(values, seed=0, count=6, smoothing=0.1):
    images, labels = batch(count)
    return Mixing(**values).mix(images.clone(), labels, CLASSES, smoothing, seed)


@pytest.mark.parametrize("values", VARIANTS)
@pytest.mark.parametrize("seed", [0, 1, 7, 2**31, 2**32 - 1])
def test_a_batch_is_mixed_bit_for_bit_as_by_timm(values, seed):
    images, targets = mixed(values, seed)
    expected = by_timm(values, *batch(), seed)
    assert torch.equal(images, expected[0])
    assert torch.equal(targets, expected[1])


@pytest.mark.parametrize("values", VARIANTS)
def test_seeds_mix_images_differently(values):
    """Otherwise the comparison with timm would compare unchanged images. A small rectangle may contain no pixel."""
    images = [mixed(values, seed)[0] for seed in range(12)]
    changed = {one.numpy().tobytes() for one in images if not torch.equal(one, batch()[0])}
    assert len(changed) >= (4 if "prob" in values else 8)


def test_one_mixing_can_be_used_with_different_classes_and_smoothing():
    mixing, (images, labels) = Mixing(**PUBLISHED), batch()
    for classes, smoothing in ((CLASSES, 0.1), (9, 0.0)):
        targets = mixing.mix(images.clone(), labels, classes, smoothing, 3)[1]
        assert torch.equal(targets, by_timm(PUBLISHED, images, labels, 3, classes, smoothing)[1])


def test_a_seed_larger_than_numpy_accepts_is_reduced():
    seed = 1_000_003 * 1_000_003 * 5
    assert torch.equal(mixed(PUBLISHED, seed)[0], by_timm(PUBLISHED, *batch(), seed % 2**32)[0])


@pytest.mark.parametrize("values", VARIANTS)
def test_mixing_does_not_change_the_random_state_of_numpy(values):
    np.random.seed(5)
    expected = np.random.rand(4)
    np.random.seed(5)
    mixed(values)
    assert (np.random.rand(4) == expected).all()


def test_a_batch_is_mixed_with_its_mirrored_order():
    """x'[i] = lam x[i] + (1 - lam) x[B-1-i] with one lam for all; 1e-6: float32 of order one."""
    images, labels = torch.eye(6).view(6, 6, 1, 1), torch.arange(6)
    result = Mixing(mixup=0.8, cutmix=0).mix(images.clone(), labels, 6, 0.0, 3)[0].view(6, 6)
    lam = result[0, 0].item()
    assert 0.01 < lam < 0.99
    torch.testing.assert_close(result, lam * torch.eye(6) + (1 - lam) * torch.eye(6).flip(0), atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_a_rectangle_of_cutmix_has_the_area_that_the_targets_give(mode):
    """Every pixel is the index of its image, so that the mean gives the area of the rectangle; 1e-6: float32."""
    count = 6
    images = torch.arange(count).float().view(-1, 1, 1, 1).expand(-1, 3, 16, 16).clone()
    result, targets = Mixing(mixup=0, cutmix=1.0, mode=mode).mix(images, torch.arange(count), count, 0.0, 4)
    for i in range(count):
        assert set(result[i].unique().tolist()) <= {i, count - 1 - i}
        share = (result[i] == i).float().mean().item()
        assert targets[i, i].item() == pytest.approx(share, abs=1e-6)
        assert targets[i, count - 1 - i].item() == pytest.approx(1 - share, abs=1e-6)


@pytest.mark.parametrize("values", VARIANTS)
@pytest.mark.parametrize("count", [1, 7])
def test_the_last_image_of_an_odd_batch_is_not_mixed_and_has_its_smoothed_target(values, count):
    images, targets = mixed(values, 2, count)
    original, labels = batch(count)
    assert torch.equal(images[-1], original[-1])
    expected = torch.full((CLASSES,), 0.1 / CLASSES)
    expected[labels[-1]] += 0.9
    torch.testing.assert_close(targets[-1], expected, atol=1e-7, rtol=0)  # float32 sums
    assert images.shape == original.shape
    assert targets.shape == (count, CLASSES)


@pytest.mark.parametrize("values", VARIANTS)
def test_the_other_images_of_an_odd_batch_are_mixed_as_an_even_batch(values):
    images, targets = mixed(values, 2, 7)
    original, labels = batch(7)
    expected = by_timm(values, original[:6], labels[:6], 2)
    assert torch.equal(images[:6], expected[0])
    assert torch.equal(targets[:6], expected[1])


@pytest.mark.parametrize("values", VARIANTS)
@pytest.mark.parametrize("count", [6, 7])
def test_targets_sum_to_one(values, count):
    torch.testing.assert_close(mixed(values, 2, count)[1].sum(dim=1), torch.ones(count), atol=1e-6, rtol=0)  # float32 sums


def test_smoothing_spreads_a_tenth_over_a_thousand_classes():
    """FACTS c7: off value 1e-4, on value 0.9001. If both mixed images have the same label, the mix does not change them."""
    targets = Mixing(**PUBLISHED).mix(torch.randn(2, 3, 8, 8), torch.tensor([4, 4]), 1000, 0.1, 0)[1]
    assert targets[:, 4].tolist() == pytest.approx([0.9001] * 2, abs=1e-6)
    assert targets[:, :4].unique().tolist() == pytest.approx([1e-4], abs=1e-9)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mixup": -0.1}, r"mixing\.mixup=-0\.1"),
        ({"mixup": float("inf")}, r"mixing\.mixup=inf"),
        ({"mixup": float("nan")}, r"mixing\.mixup=nan"),
        ({"mixup": "much"}, r"mixing\.mixup=much"),
        ({"cutmix": None}, r"mixing\.cutmix=null"),
        ({"cutmix": True}, r"mixing\.cutmix=true"),
        ({"mixup": 0, "cutmix": 0}, r"mixing\.mixup and mixing\.cutmix are both 0; choose mixing=none"),
        ({"prob": 1.1}, r"mixing\.prob=1\.1"),
        ({"prob": "often"}, r"mixing\.prob=often"),
        ({"switch_prob": -0.5}, r"mixing\.switch_prob=-0\.5"),
        ({"switch_prob": float("nan")}, r"mixing\.switch_prob=nan"),
        ({"mode": "pairs"}, r"mixing\.mode=pairs is unknown; did you mean pair"),
        ({"mode": None}, r"mixing\.mode=null"),
    ],
    ids=str,
)
def test_an_invalid_value_is_refused_by_name(wrong, message):
    with pytest.raises(UserError, match=message):
        Mixing(**PUBLISHED | wrong)


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3 * 8 * 8, CLASSES)

    def forward(self, images):
        return self.layer(images.flatten(1))


def trainer(**options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return lightning.Trainer(accelerator="cpu", num_sanity_val_steps=0, **quiet, **options)


class Losses(Callback):
    def __init__(self):
        self.losses = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(trainer.callback_metrics["train/loss"].item())


def losses_of_a_run(images, labels, lr=1e-2, epochs=2, **options):
    """Returns the loss of every batch of six; the images are the same in every epoch."""
    watch = Losses()
    engine = classification_engine(
        Linear(),
        CLASSES,
        optimizer=adamw(lr=lr),
        schedule=Constant(warmup_epochs=0, warmup_lr_ratio=1.0),
        **{"mixing": Mixing(**PUBLISHED), "label_smoothing": 0.1} | options,
    )
    trainer(max_epochs=epochs, callbacks=[watch]).fit(engine, DataLoader(TensorDataset(images, labels), batch_size=6))
    return watch.losses


def test_two_runs_of_one_seed_mix_equally():
    first = losses_of_a_run(*batch(20), seed=3)
    np.random.seed(99)  # A run does not depend on the random state of numpy.
    assert losses_of_a_run(*batch(20), seed=3) == first


def test_runs_of_different_seeds_mix_differently():
    assert losses_of_a_run(*batch(20), seed=3)[0] != losses_of_a_run(*batch(20), seed=4)[0]


def test_a_batch_is_mixed_differently_in_every_epoch():
    losses = losses_of_a_run(*batch(20), lr=0.0, epochs=3)
    assert len({round(loss, 6) for loss in losses[::4]}) == 3


def test_the_batches_of_an_epoch_are_mixed_differently():
    """All batches contain the same images here, so that only the mixing can differ."""
    images, labels = batch(6)
    losses = losses_of_a_run(images.repeat(4, 1, 1, 1), labels.repeat(4), lr=0.0, epochs=1)
    assert len({round(loss, 6) for loss in losses}) == 4


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_first_loss_is_the_cross_entropy_of_targets_that_timm_mixed(smoothing):
    """The mixing seed of seed 0, epoch 0 and batch 0 is 0; 1e-6: float32."""
    images, targets = by_timm(PUBLISHED, *batch(), 0, smoothing=smoothing)
    expected = SoftTargetCrossEntropy()(Linear()(images), targets).item()
    first = losses_of_a_run(*batch(), seed=0, label_smoothing=smoothing)[0]
    assert first == pytest.approx(expected, abs=1e-6)
    assert first != pytest.approx(losses_of_a_run(*batch(), seed=0, label_smoothing=smoothing, mixing=None)[0], abs=1e-3)


def test_an_evaluation_is_not_mixed():
    images, labels = batch(6)
    engine = classification_engine(Linear(), CLASSES, mixing=Mixing(**PUBLISHED), label_smoothing=0.1)
    trainer().validate(engine, DataLoader(TensorDataset(images, labels), batch_size=6), verbose=False)
    expected = nn.functional.cross_entropy(Linear()(images), labels).item()
    assert engine.result.metrics["val/loss"] == pytest.approx(expected, rel=1e-6)
