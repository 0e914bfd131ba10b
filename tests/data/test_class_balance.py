"""Class-balanced sampling: rare classes are drawn more often, in epochs of the same length, for any number of processes."""

from collections import Counter

import numpy as np
import pytest
from conftest import TINY
from test_datamodule import image_data

from swin_lab.data import Synthetic
from swin_lab.data.sampling import ClassBalance, TrainSampler

LABELS = np.repeat([0, 1, 2, 3], [60, 24, 12, 4])


def samples_of(strength, *, seed=0, epoch=0, rank=0, world_size=1, repeats=1, global_batch=100):
    balance = ClassBalance(LABELS, strength)
    sampler = TrainSampler(len(LABELS), global_batch, rank, world_size, seed, repeats, balance=balance)
    sampler.set_epoch(epoch)
    return list(sampler)


def images_per_class(strength, **options):
    counts = Counter(int(LABELS[sample.image_index]) for sample in samples_of(strength, **options))
    return [counts[label] for label in range(4)]


def test_full_strength_draws_all_classes_equally_often():
    assert images_per_class(1.0) == [25, 25, 25, 25]


@pytest.mark.parametrize(("strength", "drawn"), [(1.0, "25"), (0.5, "11 to 43")])
def test_it_is_described_by_the_images_of_a_class_before_and_after(strength, drawn):
    assert str(ClassBalance(LABELS, strength)) == f"4 to 60 images per class, of which an epoch draws {drawn}"


def test_the_start_of_a_training_describes_it(command):
    outcome = command("train", *TINY, "data.class_balance=1")
    assert outcome.code == 0, outcome.err
    assert "\nsampling   10 to 11 images per class, of which an epoch draws 11\n" in outcome.out


def test_no_strength_draws_every_image_once():
    assert sorted(sample.image_index for sample in samples_of(0.0)) == list(range(100))


@pytest.mark.parametrize("epoch", range(5))
def test_half_strength_draws_by_the_square_root_of_the_size_of_a_class_to_the_next_integers(epoch):
    expected = np.sqrt([60, 24, 12, 4]) / np.sqrt([60, 24, 12, 4]).sum() * 100
    drawn = images_per_class(0.5, epoch=epoch)
    assert sum(drawn) == 100
    assert np.abs(drawn - expected).max() < 1


def test_images_of_a_class_occur_equally_often_up_to_one():
    occurrences = Counter(sample.image_index for sample in samples_of(1.0))
    for label in range(4):
        counts = [occurrences[image] for image in np.flatnonzero(label == LABELS)]
        assert max(counts) - min(counts) <= 1


def test_no_two_samples_of_an_epoch_are_augmented_alike():
    for repeats in (1, 2):
        samples = samples_of(1.0, repeats=repeats)
        assert len(set(samples)) == len(samples) == 100


def test_images_that_are_left_out_of_one_epoch_are_in_another():
    seen = {sample.image_index for epoch in range(12) for sample in samples_of(1.0, epoch=epoch)}
    assert seen == set(range(100))


def test_two_processes_draw_what_one_draws():
    one = samples_of(0.5, global_batch=20)
    two = [samples_of(0.5, global_batch=20, rank=rank, world_size=2) for rank in (0, 1)]
    batches = [half for i in range(0, 50, 10) for rank in (0, 1) for half in two[rank][i : i + 10]]
    assert batches == one


def test_classes_are_mixed_within_an_epoch():
    labels = [int(LABELS[sample.image_index]) for sample in samples_of(1.0)]
    assert all(len(set(labels[start : start + 25])) == 4 for start in range(0, 100, 25))


def test_a_class_without_images_is_left_out():
    balance = ClassBalance(np.array([0, 0, 0, 5]), 1.0)
    drawn = Counter(balance.labels_N[sample.image_index] for sample in TrainSampler(4, 4, 0, 1, 0, balance=balance))
    assert drawn == {0: 2, 5: 2}


def test_the_data_draws_as_the_key_says():
    source = Synthetic(train_images=64, val_images=4, num_classes=4)
    data = image_data(source, class_balance=1.0)
    labels = [int(label) for batch in data.train_dataloader() for label in batch.labels]
    assert Counter(labels) == dict.fromkeys(range(4), 16)
