"""Learning rates against the numbers of FACTS c4, which the released code and its public log agree on."""

import pytest

from swin_lab.errors import UserError
from swin_lab.training import WarmupConstant, WarmupCosine

PER_EPOCH = 1251
"""Updates on ImageNet-1k at a global batch of 1024."""
SCRATCH = (20 * PER_EPOCH, 300 * PER_EPOCH)
"""Warm-up and all updates of the 300-epoch recipe."""
FINE_TUNE = (5 * PER_EPOCH, 30 * PER_EPOCH)


def cosine(**changes):
    values = {"warmup_epochs": 20, "warmup_start": 1e-3, "final": 1e-2, "warmup_prefix": True}
    return WarmupCosine(**values | changes)


def constant(**changes):
    return WarmupConstant(**{"warmup_epochs": 3, "warmup_start": 0.1} | changes)


@pytest.mark.parametrize(
    ("prefix", "update", "rate"),
    [
        (True, 18_284, 7.31044604e-4),
        (True, 25_020, 1e-3),
        (True, 187_650, 5.60422416e-4),
        (False, 18_284, 7.31044604e-4),
        (False, 25_020, 9.89183062e-4),
        (False, 187_650, 5.05e-4),
    ],
)
def test_training_from_scratch_has_the_published_rates(prefix, update, rate):
    assert 1e-3 * cosine(warmup_prefix=prefix).factor(update, *SCRATCH) == pytest.approx(rate, rel=1e-8)


@pytest.mark.parametrize(
    ("prefix", "update", "rate"),
    [
        (True, 6_255, 4e-5),
        (True, 18_765, 2.63185365e-5),
        (False, 6_255, 3.73473030e-5),
        (False, 18_765, 2.02e-5),
    ],
)
def test_fine_tuning_has_the_published_rates(prefix, update, rate):
    assert 4e-5 * cosine(warmup_prefix=prefix).factor(update, *FINE_TUNE) == pytest.approx(rate, rel=1e-8)


@pytest.mark.parametrize("schedule", [cosine(), cosine(warmup_prefix=False), constant(warmup_start=1e-3)], ids=str)
def test_the_first_update_has_the_rate_of_the_start(schedule):
    assert schedule.factor(0, *SCRATCH) == pytest.approx(1e-3, rel=1e-12)


@pytest.mark.parametrize("schedule", [cosine(), constant(warmup_start=1e-3)], ids=str)
def test_half_of_the_warm_up_reaches_half_of_the_way(schedule):
    assert schedule.factor(SCRATCH[0] // 2, *SCRATCH) == pytest.approx((1e-3 + 1) / 2, rel=1e-12)


@pytest.mark.parametrize("prefix", [True, False])
def test_the_rate_after_the_last_update_is_the_final_one(prefix):
    assert cosine(warmup_prefix=prefix).factor(SCRATCH[1], *SCRATCH) == pytest.approx(1e-2, rel=1e-12)


@pytest.mark.parametrize("prefix", [True, False])
def test_the_last_update_is_within_a_millionth_of_the_final_rate(prefix):
    last = cosine(warmup_prefix=prefix).factor(SCRATCH[1] - 1, *SCRATCH)
    assert 1e-2 < last < 1e-2 + 1e-6


@pytest.mark.parametrize("prefix", [True, False])
def test_the_rate_stays_at_the_final_one_beyond_the_end(prefix):
    assert cosine(warmup_prefix=prefix).factor(2 * SCRATCH[1], *SCRATCH) == pytest.approx(1e-2, rel=1e-12)


@pytest.mark.parametrize("prefix", [True, False])
def test_the_rate_only_falls_after_the_warm_up(prefix):
    factors = [cosine(warmup_prefix=prefix).factor(update, 10, 100) for update in range(10, 101)]
    assert factors == sorted(factors, reverse=True)


@pytest.mark.parametrize("prefix", [True, False])
def test_without_warm_up_the_first_update_has_the_highest_rate(prefix):
    assert cosine(warmup_epochs=0, warmup_prefix=prefix).factor(0, 0, 100) == 1.0


@pytest.mark.parametrize("prefix", [True, False])
def test_a_run_shorter_than_its_warm_up_only_climbs(prefix):
    factors = [cosine(warmup_prefix=prefix).factor(update, 100, 10) for update in range(10)]
    assert factors == pytest.approx([1e-3 + 0.999 * update / 100 for update in range(10)], rel=1e-12)


@pytest.mark.parametrize("prefix", [True, False])
def test_a_run_of_nothing_but_warm_up_has_finite_rates(prefix):
    assert all(0 <= cosine(warmup_prefix=prefix).factor(update, 10, 10) <= 1 for update in range(12))


def test_a_run_of_one_update_works():
    assert cosine(warmup_epochs=0).factor(0, 0, 1) == 1.0


def test_a_constant_schedule_stays_at_the_highest_rate():
    assert {constant().factor(update, 30, 100) for update in (30, 31, 99, 100, 1000)} == {1.0}


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
