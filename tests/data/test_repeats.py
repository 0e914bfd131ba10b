"""Repeated augmentation: several copies of an image in a batch, each augmented differently."""

from collections import Counter

import pytest
import torch
from test_datamodule import Jitter, image_data

from swin_lab.data import LoaderConfig, Synthetic
from swin_lab.data.sampling import TrainSampler
from swin_lab.errors import UserError

IMAGES, GLOBAL_BATCH, REPEATS = 50, 8, 4


def samples_of(rank=0, world_size=1, *, repeats=REPEATS, epoch=0, seed=7):
    sampler = TrainSampler(IMAGES, GLOBAL_BATCH, rank, world_size, seed, repeats)
    sampler.set_epoch(epoch)
    return list(sampler)


def batches(samples):
    return [samples[start : start + GLOBAL_BATCH] for start in range(0, len(samples), GLOBAL_BATCH)]


def test_every_batch_holds_each_of_its_images_repeats_times():
    for batch in batches(samples_of()):
        assert set(Counter(sample.image_index for sample in batch).values()) == {REPEATS}


def test_the_copies_of_an_image_are_numbered_from_zero():
    for batch in batches(samples_of()):
        for image in {sample.image_index for sample in batch}:
            assert sorted(sample.copy for sample in batch if sample.image_index == image) == list(range(REPEATS))


def test_an_epoch_is_as_long_as_without_repeats():
    assert len(samples_of()) == len(samples_of(repeats=1)) == len(TrainSampler(IMAGES, GLOBAL_BATCH, 0, 1, 7, REPEATS)) == 48


def test_an_epoch_shows_the_first_part_of_its_shuffle():
    assert [sample.image_index for sample in samples_of()[::REPEATS]] == [
        sample.image_index for sample in samples_of(repeats=1)[: 48 // REPEATS]
    ]


def test_no_image_is_in_two_batches_of_an_epoch():
    of_each = [{sample.image_index for sample in batch} for batch in batches(samples_of())]
    assert len(set().union(*of_each)) == sum(map(len, of_each))


def test_another_epoch_repeats_other_images():
    assert {sample.image_index for sample in samples_of()} != {sample.image_index for sample in samples_of(epoch=1)}


def test_two_processes_together_see_in_every_update_what_one_sees():
    share = GLOBAL_BATCH // 2
    halves = [samples_of(rank, 2) for rank in (0, 1)]
    for number, batch in enumerate(batches(samples_of())):
        together = [sample for half in halves for sample in half[number * share : (number + 1) * share]]
        assert sorted(together) == sorted(batch)


@pytest.mark.parametrize("epoch", [0, 3])
def test_without_repeats_the_order_is_that_of_a_permutation_of_torch(epoch):
    generator = torch.Generator().manual_seed(7 * 1_000_003 + epoch)
    expected = torch.randperm(IMAGES, generator=generator)[:48].tolist()
    assert [(sample.epoch, sample.image_index, sample.copy) for sample in samples_of(repeats=1, epoch=epoch)] == [
        (epoch, image, 0) for image in expected
    ]


@pytest.fixture
def source():
    return Synthetic(num_classes=3, train_images=12, val_images=3, img_size=4)


def seen(data):
    """Returns (index of the image, its tensor as bytes) for a training epoch."""
    return [
        (int(index), image.numpy().tobytes())
        for batch in data.train_dataloader()
        for image, index in zip(batch.images, batch.indices, strict=True)
    ]


def test_the_copies_of_an_image_are_augmented_differently(source):
    samples = seen(image_data(source, Jitter(), repeats=4))
    assert Counter(index for index, _ in samples).most_common()[0][1] == 4
    assert len({image for _, image in samples}) == len(samples) == 12


def test_the_first_copy_is_augmented_as_the_only_one_would_be(source):
    assert set(seen(image_data(source, Jitter(), repeats=4))[::4]) <= set(seen(image_data(source, Jitter())))


def test_copies_are_the_same_for_one_process_and_for_two(source):
    two = [pair for rank in (0, 1) for pair in seen(image_data(source, Jitter(), repeats=2, rank=rank, world_size=2))]
    assert sorted(two) == sorted(seen(image_data(source, Jitter(), repeats=2)))


def test_copies_are_the_same_with_and_without_workers(source):
    assert seen(image_data(source, Jitter(), repeats=2, num_workers=2)) == seen(image_data(source, Jitter(), repeats=2))


@pytest.mark.parametrize(
    ("repeats", "written"), [(0, "0"), (-1, "-1"), (1.5, "1.5"), ("two", "two"), (True, "true"), (None, "null")]
)
def test_an_invalid_number_of_copies_is_rejected(repeats, written):
    with pytest.raises(UserError, match=rf"data\.repeats={written} must be a positive integer"):
        LoaderConfig(repeats=repeats)
