"""Which picture is seen when: the same global batches for any number of processes, every evaluated picture once."""

import pytest

from swin_lab.data.sampling import EvaluationOrder, TrainingOrder

PICTURES, GLOBAL_BATCH = 50, 8


def draws(rank=0, world_size=1, *, seed=0, epoch=0, pictures=PICTURES, global_batch=GLOBAL_BATCH):
    order = TrainingOrder(pictures, global_batch, rank, world_size, seed)
    order.set_epoch(epoch)
    assert len(order) == len(list(order))
    return list(order)


def pictures(**options):
    return [draw.picture for draw in draws(**options)]


def updates(world_size):
    """The set of pictures behind each optimizer update, over all processes."""
    share = GLOBAL_BATCH // world_size
    per_rank = [pictures(rank=rank, world_size=world_size) for rank in range(world_size)]
    return [{p for rank in per_rank for p in rank[start : start + share]} for start in range(0, len(per_rank[0]), share)]


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_every_update_sees_a_whole_global_batch(world_size):
    assert [len(update) for update in updates(world_size)] == [GLOBAL_BATCH] * (PICTURES // GLOBAL_BATCH)


@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_the_global_batches_are_the_same_for_any_number_of_processes(world_size):
    assert updates(world_size) == updates(1)


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_take_equally_many_pictures(world_size):
    assert len({len(draws(rank, world_size)) for rank in range(world_size)}) == 1


def test_no_picture_comes_twice_in_an_epoch():
    assert len(set(pictures())) == len(pictures()) == 48


def test_a_set_that_is_whole_batches_is_seen_whole():
    assert sorted(pictures(pictures=48)) == list(range(48))


def test_what_one_epoch_leaves_over_another_one_shows():
    left_over = [set(range(PICTURES)) - set(pictures(epoch=epoch)) for epoch in range(10)]
    assert len(set().union(*left_over)) > len(left_over[0])


def test_every_epoch_has_its_own_shuffle():
    assert len({tuple(pictures(epoch=epoch)) for epoch in range(10)}) == 10


def test_the_same_seed_and_epoch_give_the_same_shuffle():
    assert pictures(seed=3, epoch=2) == pictures(seed=3, epoch=2)


def test_another_seed_gives_another_shuffle():
    assert pictures(seed=3) != pictures(seed=4)


def test_the_pictures_are_shuffled():
    assert pictures() != sorted(pictures())


def test_every_draw_carries_its_epoch():
    assert {draw.epoch for draw in draws(epoch=7)} == {7}


def test_fewer_pictures_than_a_global_batch_make_no_update():
    assert draws(pictures=7) == []


def test_the_order_may_be_walked_twice():
    order = TrainingOrder(PICTURES, GLOBAL_BATCH, 0, 1, 0)
    assert list(order) == list(order)


def test_the_largest_seed_works():
    assert len(pictures(seed=2**32 - 1, epoch=10_000)) == 48


@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 12])
@pytest.mark.parametrize("count", [1, 5, 10, 11])
def test_an_evaluation_sees_every_picture_exactly_once(world_size, count):
    seen = [draw.picture for rank in range(world_size) for draw in EvaluationOrder(count, rank, world_size)]
    assert sorted(seen) == list(range(count))


@pytest.mark.parametrize(("rank", "expected"), [(0, 2), (1, 2), (2, 1), (3, 0)])
def test_an_evaluation_order_knows_how_many_pictures_its_process_has(rank, expected):
    count = 5 if rank < 3 else 3
    order = EvaluationOrder(count, rank, 3 if rank < 3 else 4)
    assert len(order) == len(list(order)) == expected


def test_an_evaluation_is_in_the_order_of_the_set():
    assert [draw.picture for draw in EvaluationOrder(4, 0, 1)] == [0, 1, 2, 3]
