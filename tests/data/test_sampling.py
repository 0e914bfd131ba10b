"""The order of the images: the same global batches for any number of processes, and every evaluated image once."""

import pytest

from swin_lab.data.sampling import EvalSampler, TrainSampler

IMAGES, GLOBAL_BATCH = 50, 8


def samples_of(rank=0, world_size=1, *, seed=0, epoch=0, images=IMAGES, global_batch=GLOBAL_BATCH):
    sampler = TrainSampler(images, global_batch, rank, world_size, seed)
    sampler.set_epoch(epoch)
    assert len(sampler) == len(list(sampler))
    return list(sampler)


def images(**options):
    return [sample.image_index for sample in samples_of(**options)]


def updates(world_size):
    """Returns the set of images of each optimizer update, over all processes."""
    per_process = GLOBAL_BATCH // world_size
    per_rank = [images(rank=rank, world_size=world_size) for rank in range(world_size)]
    return [
        {p for rank in per_rank for p in rank[start : start + per_process]} for start in range(0, len(per_rank[0]), per_process)
    ]


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_every_update_sees_a_whole_global_batch(world_size):
    assert [len(update) for update in updates(world_size)] == [GLOBAL_BATCH] * (IMAGES // GLOBAL_BATCH)


@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_the_global_batches_are_the_same_for_any_number_of_processes(world_size):
    assert updates(world_size) == updates(1)


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_take_equally_many_images(world_size):
    assert len({len(samples_of(rank, world_size)) for rank in range(world_size)}) == 1


def test_no_image_is_repeated_in_an_epoch():
    assert len(set(images())) == len(images()) == 48


def test_a_set_of_whole_batches_is_used_completely():
    assert sorted(images(images=48)) == list(range(48))


def test_images_left_out_of_one_epoch_are_in_another():
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


def test_every_sample_index_contains_its_epoch():
    assert {sample.epoch for sample in samples_of(epoch=7)} == {7}


def test_fewer_images_than_a_global_batch_make_no_update():
    assert samples_of(images=7) == []


def test_a_sampler_can_be_iterated_twice():
    sampler = TrainSampler(IMAGES, GLOBAL_BATCH, 0, 1, 0)
    assert list(sampler) == list(sampler)


def test_the_largest_seed_works():
    assert len(images(seed=2**32 - 1, epoch=10_000)) == 48


@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 12])
@pytest.mark.parametrize("count", [1, 5, 10, 11])
def test_an_evaluation_sees_every_image_exactly_once(world_size, count):
    seen = [sample.image_index for rank in range(world_size) for sample in EvalSampler(count, rank, world_size)]
    assert sorted(seen) == list(range(count))


@pytest.mark.parametrize(("rank", "expected"), [(0, 2), (1, 2), (2, 1), (3, 0)])
def test_an_eval_sampler_has_the_length_of_its_part(rank, expected):
    count = 5 if rank < 3 else 3
    sampler = EvalSampler(count, rank, 3 if rank < 3 else 4)
    assert len(sampler) == len(list(sampler)) == expected


def test_an_evaluation_is_in_the_order_of_the_set():
    assert [sample.image_index for sample in EvalSampler(4, 0, 1)] == [0, 1, 2, 3]
