"""Learning rates against the numbers of FACTS c4, which the released code and its public log agree on."""

import pytest
import torch
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler, StepLRScheduler
from torch import nn

from swin_lab.errors import UserError
from swin_lab.training import Constant, Cosine, Linear, MultiStep, Span, Step

PER_EPOCH = 1251
"""Updates on ImageNet-1k at a global batch of 1024."""
SCRATCH = Span(PER_EPOCH, 300 * PER_EPOCH)
WARMED = 20 * PER_EPOCH
"""Where its warm-up ends."""
FINE_TUNE = Span(PER_EPOCH, 30 * PER_EPOCH)
SHORT = Span(10, 100)
PREFIXES = ["fixed", "as_published"]


def cosine(**changes):
    values = {"warmup_epochs": 20, "warmup_start": 1e-3, "final": 1e-2, "warmup_prefix": "fixed"}
    return Cosine(**values | changes)


def constant(**changes):
    return Constant(**{"warmup_epochs": 3, "warmup_start": 0.1} | changes)


@pytest.mark.parametrize(
    ("prefix", "update", "rate"),
    [
        ("fixed", 18_284, 7.31044604e-4),
        ("fixed", 25_020, 1e-3),
        ("fixed", 187_650, 5.60422416e-4),
        ("as_published", 18_284, 7.31044604e-4),
        ("as_published", 25_020, 9.89183062e-4),
        ("as_published", 187_650, 5.05e-4),
    ],
)
def test_training_from_scratch_has_the_published_rates(prefix, update, rate):
    assert 1e-3 * cosine(warmup_prefix=prefix).factor(update, SCRATCH) == pytest.approx(rate, rel=1e-8)


@pytest.mark.parametrize(
    ("prefix", "update", "rate"),
    [
        ("fixed", 6_255, 4e-5),
        ("fixed", 18_765, 2.63185365e-5),
        ("as_published", 6_255, 3.73473030e-5),
        ("as_published", 18_765, 2.02e-5),
    ],
)
def test_fine_tuning_has_the_published_rates(prefix, update, rate):
    assert 4e-5 * cosine(warmup_prefix=prefix, warmup_epochs=5).factor(update, FINE_TUNE) == pytest.approx(rate, rel=1e-8)


@pytest.mark.parametrize(
    "schedule", [cosine(), cosine(warmup_prefix="as_published"), constant(warmup_epochs=20, warmup_start=1e-3)], ids=str
)
def test_the_first_update_has_the_rate_of_the_start(schedule):
    assert schedule.factor(0, SCRATCH) == pytest.approx(1e-3, rel=1e-12)


@pytest.mark.parametrize("schedule", [cosine(), constant(warmup_epochs=20, warmup_start=1e-3)], ids=str)
def test_half_of_the_warm_up_reaches_half_of_the_way(schedule):
    assert schedule.factor(WARMED // 2, SCRATCH) == pytest.approx((1e-3 + 1) / 2, rel=1e-12)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_rate_after_the_last_update_is_the_final_one(prefix):
    assert cosine(warmup_prefix=prefix).factor(SCRATCH.total, SCRATCH) == pytest.approx(1e-2, rel=1e-12)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_last_update_is_within_a_millionth_of_the_final_rate(prefix):
    last = cosine(warmup_prefix=prefix).factor(SCRATCH.total - 1, SCRATCH)
    assert 1e-2 < last < 1e-2 + 1e-6


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_rate_stays_at_the_final_one_beyond_the_end(prefix):
    assert cosine(warmup_prefix=prefix).factor(2 * SCRATCH.total, SCRATCH) == pytest.approx(1e-2, rel=1e-12)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_rate_only_falls_after_the_warm_up(prefix):
    factors = [cosine(warmup_prefix=prefix, warmup_epochs=1).factor(update, SHORT) for update in range(10, 101)]
    assert factors == sorted(factors, reverse=True)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_without_warm_up_the_first_update_has_the_highest_rate(prefix):
    assert cosine(warmup_epochs=0, warmup_prefix=prefix).factor(0, SHORT) == 1.0


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_run_shorter_than_its_warm_up_only_climbs(prefix):
    factors = [cosine(warmup_prefix=prefix).factor(update, Span(5, 10)) for update in range(10)]
    assert factors == pytest.approx([1e-3 + 0.999 * update / 100 for update in range(10)], rel=1e-12)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_run_of_nothing_but_warm_up_has_finite_rates(prefix):
    assert all(0 <= cosine(warmup_prefix=prefix, warmup_epochs=1).factor(update, Span(10, 10)) <= 1 for update in range(12))


def test_a_run_of_one_update_works():
    assert cosine(warmup_epochs=0).factor(0, Span(1, 1)) == 1.0


def test_a_constant_schedule_stays_at_the_highest_rate():
    assert {constant().factor(update, SHORT) for update in (30, 31, 99, 100, 1000)} == {1.0}


@pytest.mark.parametrize("make", [cosine, constant])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"warmup_epochs": -1}, r"schedule\.warmup_epochs=-1"),
        ({"warmup_epochs": "many"}, r"schedule\.warmup_epochs=many"),
        ({"warmup_start": -0.1}, r"schedule\.warmup_start=-0\.1"),
        ({"warmup_start": 1.5}, r"schedule\.warmup_start=1\.5"),
        ({"warmup_start": None}, r"schedule\.warmup_start=None"),
    ],
    ids=str,
)
def test_a_warm_up_that_cannot_be_is_refused_by_name(make, wrong, message):
    with pytest.raises(UserError, match=message):
        make(**wrong)


@pytest.mark.parametrize("final", [-0.01, 1.01, float("nan"), "zero"])
def test_a_final_rate_that_is_no_part_is_refused_by_name(final):
    with pytest.raises(UserError, match=rf"schedule\.final={final}"):
        cosine(final=final)


@pytest.mark.parametrize("prefix", [True, "published"])
def test_a_prefix_that_is_none_is_refused_with_the_choices(prefix):
    with pytest.raises(UserError, match=rf"schedule\.warmup_prefix={prefix} is unknown.*as_published"):
        cosine(warmup_prefix=prefix)


def rates_of_timm(scheduler, **options):
    """Of the updates of SHORT, warmed up over the first ten, from 0.1 of the highest rate."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    made = scheduler(optimizer, warmup_t=10, warmup_lr_init=0.1, t_in_epochs=False, **options)
    rates = []
    for update in range(SHORT.total):
        made.step_update(update)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


WARM = {"warmup_epochs": 1, "warmup_start": 0.1}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            Cosine(**WARM, final=0.05),
            lambda: rates_of_timm(CosineLRScheduler, t_initial=90, lr_min=0.05, warmup_prefix=True),
        ),
        (
            Cosine(**WARM, final=0.05, warmup_prefix="as_published"),
            lambda: rates_of_timm(CosineLRScheduler, t_initial=100, lr_min=0.05),
        ),
        (
            Step(**WARM, every_epochs=3, gamma=0.5),
            lambda: rates_of_timm(StepLRScheduler, warmup_prefix=False, decay_t=30, decay_rate=0.5),
        ),
        (
            MultiStep(**WARM, epochs=[2, 7], gamma=0.1),
            lambda: rates_of_timm(  # whose milestone m applies from update m - 1 on, unlike torch's and the official code's
                MultiStepLRScheduler, warmup_prefix=False, decay_t=[21, 71], decay_rate=0.1
            ),
        ),
    ],
    ids=["cosine", "cosine as published", "step", "multistep"],
)
def test_every_rate_is_that_of_timms_scheduler(ours, theirs):
    assert [ours.factor(update, SHORT) for update in range(SHORT.total)] == pytest.approx(theirs(), rel=1e-12)


def test_a_line_falls_by_equal_steps_from_the_end_of_the_warm_up():
    factors = [Linear(**WARM, final=0.1).factor(update, SHORT) for update in range(10, 101)]
    assert factors == pytest.approx([1 - 0.9 * update / 90 for update in range(91)], rel=1e-12)


def test_by_epoch_the_rate_keeps_within_an_epoch_and_is_torchvisions():
    """LinearLR(0.01, 20 epochs) and then CosineAnnealingLR over the other 280, stepped once per epoch."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-3)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=20)
    main = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=280, eta_min=1e-5)
    theirs = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, main], milestones=[20])
    ours = Cosine(warmup_epochs=20, warmup_start=0.01, final=0.01, interval="epoch")
    for epoch in range(300):
        expected = optimizer.param_groups[0]["lr"]
        for update in (epoch * PER_EPOCH, (epoch + 1) * PER_EPOCH - 1):
            assert 1e-3 * ours.factor(update, SCRATCH) == pytest.approx(expected, rel=1e-9)
        optimizer.step()
        theirs.step()


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
def test_steps_that_cannot_be_are_refused_by_name(make, message):
    with pytest.raises(UserError, match=message):
        make()
