"""Repeated augmentation: several copies of an image in a batch, each augmented differently."""

from collections import Counter

import pytest
import torch
from test_datamodule import Jitter, image_data

from swin_lab.data import LoaderConfig, Synthetic
from swin_lab.data.sampling import TrainSampler
from swin_lab.errors import UserError

IMAGES, GLOBAL_BATCH, REPEATS = 50, 8, 4


def draws(rank=0, world_size=1, *, repeats=REPEATS, epoch=0, seed=7):
    order = TrainSampler(IMAGES, GLOBAL_BATCH, rank, world_size, seed, repeats)
    order.set_epoch(epoch)
    return list(order)


def batches(drawn):
    return [drawn[start : start + GLOBAL_BATCH] for start in range(0, len(drawn), GLOBAL_BATCH)]


def test_every_batch_holds_each_of_its_images_as_often_as_it_is_repeated():
    for batch in batches(draws()):
        assert set(Counter(draw.image_index for draw in batch).values()) == {REPEATS}


def test_the_copies_of_a_image_are_numbered_from_zero():
    for batch in batches(draws()):
        for image in {draw.image_index for draw in batch}:
            assert sorted(draw.copy for draw in batch if draw.image_index == image) == list(range(REPEATS))


def test_an_epoch_is_as_long_as_without_repeats():
    assert len(draws()) == len(draws(repeats=1)) == len(TrainSampler(IMAGES, GLOBAL_BATCH, 0, 1, 7, REPEATS)) == 48


def test_an_epoch_shows_the_first_part_of_its_shuffle():
    assert [draw.image_index for draw in draws()[::REPEATS]] == [draw.image_index for draw in draws(repeats=1)[: 48 // REPEATS]]


def test_no_image_is_in_two_batches_of_an_epoch():
    of_each = [{draw.image_index for draw in batch} for batch in batches(draws())]
    assert len(set().union(*of_each)) == sum(map(len, of_each))


def test_another_epoch_repeats_other_images():
    assert {draw.image_index for draw in draws()} != {draw.image_index for draw in draws(epoch=1)}


def test_two_processes_together_draw_in_every_update_what_one_draws():
    share = GLOBAL_BATCH // 2
    halves = [draws(rank, 2) for rank in (0, 1)]
    for number, batch in enumerate(batches(draws())):
        together = [draw for half in halves for draw in half[number * share : (number + 1) * share]]
        assert sorted(together) == sorted(batch)


@pytest.mark.parametrize("epoch", [0, 3])
def test_without_repeats_the_order_is_that_of_a_permutation_of_torch(epoch):
    generator = torch.Generator().manual_seed(7 * 1_000_003 + epoch)
    expected = torch.randperm(IMAGES, generator=generator)[:48].tolist()
    assert [(draw.epoch, draw.image_index, draw.copy) for draw in draws(repeats=1, epoch=epoch)] == [
        (epoch, image, 0) for image in expected
    ]


@pytest.fixture
def source():
    return Synthetic(num_classes=3, train_images=12, val_images=3, img_size=4)


def seen(data):
    """(number of the image, its tensor as bytes) of a training epoch."""
    return [
        (int(number), image.numpy().tobytes())
        for batch in data.train_dataloader()
        for image, number in zip(batch.images, batch.numbers, strict=True)
    ]


def test_the_copies_of_a_image_are_augmented_differently(source):
    shown = seen(image_data(source, Jitter(), repeats=4))
    assert Counter(number for number, _ in shown).most_common()[0][1] == 4
    assert len({image for _, image in shown}) == len(shown) == 12


def test_the_first_copy_is_augmented_as_the_only_one_would_be(source):
    assert set(seen(image_data(source, Jitter(), repeats=4))[::4]) <= set(seen(image_data(source, Jitter())))


def test_copies_are_the_same_for_one_process_and_for_two(source):
    two = [pair for rank in (0, 1) for pair in seen(image_data(source, Jitter(), repeats=2, rank=rank, world_size=2))]
    assert sorted(two) == sorted(seen(image_data(source, Jitter(), repeats=2)))


def test_copies_are_the_same_with_and_without_workers(source):
    assert seen(image_data(source, Jitter(), repeats=2, num_workers=2)) == seen(image_data(source, Jitter(), repeats=2))


@pytest.mark.parametrize("repeats", [0, -1, 1.5, "two", True, None])
def test_a_number_of_copies_that_is_none_is_refused(repeats):
    with pytest.raises(UserError, match=rf"data\.repeats={repeats} is no whole number above zero"):
        LoaderConfig(repeats=repeats)
