"""Learning rates against the numbers of FACTS c4, on which the released code and its public log agree."""

import pytest
import torch
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler, StepLRScheduler
from torch import nn

from swin_lab.errors import UserError
from swin_lab.training import Constant, Cosine, Linear, MultiStep, RunLength, Step

PER_EPOCH = 1251
"""Updates on ImageNet-1k at a global batch of 1024."""
SCRATCH = RunLength(PER_EPOCH, 300 * PER_EPOCH)
WARMED = 20 * PER_EPOCH
"""First update after its warm-up."""
FINE_TUNE = RunLength(PER_EPOCH, 30 * PER_EPOCH)
SHORT = RunLength(10, 100)
AFTER = [True, False]


def cosine(**changes):
    values = {"warmup_epochs": 20, "warmup_lr_ratio": 1e-3, "min_lr_ratio": 1e-2, "cosine_after_warmup": True}
    return Cosine(**values | changes)


def constant(**changes):
    return Constant(**{"warmup_epochs": 3, "warmup_lr_ratio": 0.1} | changes)


@pytest.mark.parametrize(
    ("after", "step", "rate"),
    [
        (True, 18_284, 7.31044604e-4),
        (True, 25_020, 1e-3),
        (True, 187_650, 5.60422416e-4),
        (False, 18_284, 7.31044604e-4),
        (False, 25_020, 9.89183062e-4),
        (False, 187_650, 5.05e-4),
    ],
)
def test_training_from_scratch_has_the_published_learning_rates(after, step, rate):
    assert 1e-3 * cosine(cosine_after_warmup=after).factor(step, SCRATCH) == pytest.approx(rate, rel=1e-8)


@pytest.mark.parametrize(
    ("after", "step", "rate"),
    [
        (True, 6_255, 4e-5),
        (True, 18_765, 2.63185365e-5),
        (False, 6_255, 3.73473030e-5),
        (False, 18_765, 2.02e-5),
    ],
)
def test_fine_tuning_has_the_published_learning_rates(after, step, rate):
    assert 4e-5 * cosine(cosine_after_warmup=after, warmup_epochs=5).factor(step, FINE_TUNE) == pytest.approx(rate, rel=1e-8)


@pytest.mark.parametrize(
    "schedule", [cosine(), cosine(cosine_after_warmup=False), constant(warmup_epochs=20, warmup_lr_ratio=1e-3)], ids=str
)
def test_the_first_update_has_the_warm_up_learning_rate(schedule):
    assert schedule.factor(0, SCRATCH) == pytest.approx(1e-3, rel=1e-12)


@pytest.mark.parametrize("schedule", [cosine(), constant(warmup_epochs=20, warmup_lr_ratio=1e-3)], ids=str)
def test_the_warm_up_is_linear(schedule):
    assert schedule.factor(WARMED // 2, SCRATCH) == pytest.approx((1e-3 + 1) / 2, rel=1e-12)


@pytest.mark.parametrize("after", AFTER)
def test_the_learning_rate_after_the_last_update_is_the_minimum(after):
    assert cosine(cosine_after_warmup=after).factor(SCRATCH.total_steps, SCRATCH) == pytest.approx(1e-2, rel=1e-12)


@pytest.mark.parametrize("after", AFTER)
def test_the_last_update_is_within_a_millionth_of_the_minimum(after):
    last = cosine(cosine_after_warmup=after).factor(SCRATCH.total_steps - 1, SCRATCH)
    assert 1e-2 < last < 1e-2 + 1e-6


@pytest.mark.parametrize("after", AFTER)
def test_the_learning_rate_stays_at_the_minimum_beyond_the_end(after):
    assert cosine(cosine_after_warmup=after).factor(2 * SCRATCH.total_steps, SCRATCH) == pytest.approx(1e-2, rel=1e-12)


@pytest.mark.parametrize("after", AFTER)
def test_the_learning_rate_decreases_after_the_warm_up(after):
    factors = [cosine(cosine_after_warmup=after, warmup_epochs=1).factor(step, SHORT) for step in range(10, 101)]
    assert factors == sorted(factors, reverse=True)


@pytest.mark.parametrize("after", AFTER)
def test_without_warm_up_the_first_update_has_the_peak_learning_rate(after):
    assert cosine(warmup_epochs=0, cosine_after_warmup=after).factor(0, SHORT) == 1.0


@pytest.mark.parametrize("after", AFTER)
def test_in_a_run_shorter_than_its_warm_up_the_learning_rate_only_increases(after):
    factors = [cosine(cosine_after_warmup=after).factor(step, RunLength(5, 10)) for step in range(10)]
    assert factors == pytest.approx([1e-3 + 0.999 * step / 100 for step in range(10)], rel=1e-12)


@pytest.mark.parametrize("after", AFTER)
def test_a_run_that_consists_of_warm_up_has_finite_learning_rates(after):
    assert all(
        0 <= cosine(cosine_after_warmup=after, warmup_epochs=1).factor(step, RunLength(10, 10)) <= 1 for step in range(12)
    )


def test_a_run_of_one_update_works():
    assert cosine(warmup_epochs=0).factor(0, RunLength(1, 1)) == 1.0


def test_a_constant_schedule_stays_at_the_peak_learning_rate():
    assert {constant().factor(step, SHORT) for step in (30, 31, 99, 100, 1000)} == {1.0}


@pytest.mark.parametrize("make", [cosine, constant])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"warmup_epochs": -1}, r"schedule\.warmup_epochs=-1"),
        ({"warmup_epochs": "many"}, r"schedule\.warmup_epochs=many"),
        ({"warmup_lr_ratio": -0.1}, r"schedule\.warmup_lr_ratio=-0\.1"),
        ({"warmup_lr_ratio": 1.5}, r"schedule\.warmup_lr_ratio=1\.5"),
        ({"warmup_lr_ratio": None}, r"schedule\.warmup_lr_ratio=null"),
    ],
    ids=str,
)
def test_an_invalid_warm_up_is_refused_by_name(make, wrong, message):
    with pytest.raises(UserError, match=message):
        make(**wrong)


@pytest.mark.parametrize("final", [-0.01, 1.01, float("nan"), "zero"])
def test_a_minimum_outside_0_to_1_is_refused_by_name(final):
    with pytest.raises(UserError, match=rf"schedule\.min_lr_ratio={final}"):
        cosine(min_lr_ratio=final)


@pytest.mark.parametrize("after", ["yes", 1, None])
def test_a_cosine_that_starts_neither_after_the_warm_up_nor_with_the_run_is_refused(after):
    with pytest.raises(UserError, match=r"schedule\.cosine_after_warmup=\w+ must be true or false"):
        cosine(cosine_after_warmup=after)


def rates_of_timm(scheduler, **options):
    """Returns the learning rates of SHORT by a scheduler of timm, with a warm-up from 0.1 over the first ten updates."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = scheduler(optimizer, warmup_t=10, warmup_lr_init=0.1, t_in_epochs=False, **options)
    rates = []
    for step in range(SHORT.total_steps):
        reference.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


WARM = {"warmup_epochs": 1, "warmup_lr_ratio": 0.1}


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (
            Cosine(**WARM, min_lr_ratio=0.05),
            lambda: rates_of_timm(CosineLRScheduler, t_initial=90, lr_min=0.05, warmup_prefix=True),
        ),
        (
            Cosine(**WARM, min_lr_ratio=0.05, cosine_after_warmup=False),
            lambda: rates_of_timm(CosineLRScheduler, t_initial=100, lr_min=0.05),
        ),
        (
            Step(**WARM, every_epochs=3, gamma=0.5),
            lambda: rates_of_timm(StepLRScheduler, warmup_prefix=False, decay_t=30, decay_rate=0.5),
        ),
        (
            MultiStep(**WARM, epochs=[2, 7], gamma=0.1),
            lambda: rates_of_timm(  # Its milestone m applies from update m - 1, unlike in torch and the official code.
                MultiStepLRScheduler, warmup_prefix=False, decay_t=[21, 71], decay_rate=0.1
            ),
        ),
    ],
    ids=["cosine", "cosine as published", "step", "multistep"],
)
def test_every_learning_rate_equals_that_of_timm_s_scheduler(schedule, expected):
    assert [schedule.factor(step, SHORT) for step in range(SHORT.total_steps)] == pytest.approx(expected(), rel=1e-12)


def test_a_linear_schedule_decreases_by_equal_steps_after_the_warm_up():
    factors = [Linear(**WARM, min_lr_ratio=0.1).factor(step, SHORT) for step in range(10, 101)]
    assert factors == pytest.approx([1 - 0.9 * step / 90 for step in range(91)], rel=1e-12)


def test_by_epoch_the_learning_rate_is_constant_within_an_epoch_and_equals_torchvision():
    """torchvision uses LinearLR(0.01, 20 epochs), then CosineAnnealingLR for 280 epochs, stepped once per epoch."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-3)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=20)
    main = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=280, eta_min=1e-5)
    reference = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, main], milestones=[20])
    schedule = Cosine(warmup_epochs=20, warmup_lr_ratio=0.01, min_lr_ratio=0.01, interval="epoch")
    for epoch in range(300):
        expected = optimizer.param_groups[0]["lr"]
        for step in (epoch * PER_EPOCH, (epoch + 1) * PER_EPOCH - 1):
            assert 1e-3 * schedule.factor(step, SCRATCH) == pytest.approx(expected, rel=1e-9)
        optimizer.step()
        reference.step()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Step(**WARM, every_epochs=0, gamma=0.1), r"schedule\.every_epochs=0"),
        (lambda: Step(**WARM, every_epochs=1, gamma=1.5), r"schedule\.gamma=1\.5"),
        (lambda: MultiStep(**WARM, epochs=[7, 2], gamma=0.1), r"schedule\.epochs=\[7, 2\]"),
        (lambda: MultiStep(**WARM, epochs=[], gamma=0.1), r"schedule\.epochs=\[\]"),
        (lambda: Constant(**WARM, interval="epochs"), r"schedule\.interval=epochs is unknown; did you mean epoch"),
    ],
)
def test_invalid_steps_are_refused_by_name(make, message):
    with pytest.raises(UserError, match=message):
        make()
