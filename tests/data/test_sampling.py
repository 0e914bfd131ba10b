"""Which image is seen when: the same global batches for any number of processes, every evaluated image once."""

import pytest

from swin_lab.data.sampling import EvalSampler, TrainSampler

IMAGES, GLOBAL_BATCH = 50, 8


def draws(rank=0, world_size=1, *, seed=0, epoch=0, images=IMAGES, global_batch=GLOBAL_BATCH):
    order = TrainSampler(images, global_batch, rank, world_size, seed)
    order.set_epoch(epoch)
    assert len(order) == len(list(order))
    return list(order)


def images(**options):
    return [draw.image_index for draw in draws(**options)]


def updates(world_size):
    """The set of images behind each optimizer update, over all processes."""
    share = GLOBAL_BATCH // world_size
    per_rank = [images(rank=rank, world_size=world_size) for rank in range(world_size)]
    return [{p for rank in per_rank for p in rank[start : start + share]} for start in range(0, len(per_rank[0]), share)]


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_every_update_sees_a_whole_global_batch(world_size):
    assert [len(update) for update in updates(world_size)] == [GLOBAL_BATCH] * (IMAGES // GLOBAL_BATCH)


@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_the_global_batches_are_the_same_for_any_number_of_processes(world_size):
    assert updates(world_size) == updates(1)


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_take_equally_many_images(world_size):
    assert len({len(draws(rank, world_size)) for rank in range(world_size)}) == 1


def test_no_image_comes_twice_in_an_epoch():
    assert len(set(images())) == len(images()) == 48


def test_a_set_that_is_whole_batches_is_seen_whole():
    assert sorted(images(images=48)) == list(range(48))


def test_what_one_epoch_leaves_over_another_one_shows():
    left_over = [set(range(IMAGES)) - set(images(epoch=epoch)) for epoch in range(10)]
    assert len(set().union(*left_over)) > len(left_over[0])


def test_every_epoch_has_its_own_shuffle():
    assert len({tuple(images(epoch=epoch)) for epoch in range(10)}) == 10


def test_the_same_seed_and_epoch_give_the_same_shuffle():
    assert images(seed=3, epoch=2) == images(seed=3, epoch=2)


def test_another_seed_gives_another_shuffle():
    assert images(seed=3) != images(seed=4)


def test_the_images_are_shuffled():
    assert images() != sorted(images())


def test_every_draw_carries_its_epoch():
    assert {draw.epoch for draw in draws(epoch=7)} == {7}


def test_fewer_images_than_a_global_batch_make_no_update():
    assert draws(images=7) == []


def test_the_order_may_be_walked_twice():
    order = TrainSampler(IMAGES, GLOBAL_BATCH, 0, 1, 0)
    assert list(order) == list(order)


def test_the_largest_seed_works():
    assert len(images(seed=2**32 - 1, epoch=10_000)) == 48


@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 12])
@pytest.mark.parametrize("count", [1, 5, 10, 11])
def test_an_evaluation_sees_every_image_exactly_once(world_size, count):
    seen = [draw.image_index for rank in range(world_size) for draw in EvalSampler(count, rank, world_size)]
    assert sorted(seen) == list(range(count))


@pytest.mark.parametrize(("rank", "expected"), [(0, 2), (1, 2), (2, 1), (3, 0)])
def test_an_evaluation_order_knows_how_many_images_its_process_has(rank, expected):
    count = 5 if rank < 3 else 3
    order = EvalSampler(count, rank, 3 if rank < 3 else 4)
    assert len(order) == len(list(order)) == expected


def test_an_evaluation_is_in_the_order_of_the_set():
    assert [draw.image_index for draw in EvalSampler(4, 0, 1)] == [0, 1, 2, 3]
