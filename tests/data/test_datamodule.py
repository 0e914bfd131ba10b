"""Batches: reproducible augmentation, images that cannot be decoded, and the statistics of a set."""

import random
import re
import subprocess
import sys
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from layouts import decoded
from lightning.pytorch.plugins import HalfPrecision, Precision
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from swin_lab.data import Folder, ImageData, LoaderConfig, Synthetic, channel_statistics, fingerprint
from swin_lab.data.decoding import decode
from swin_lab.data.images import ArrayImages
from swin_lab.errors import UserError

TO_TENSOR = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])


class Jitter(nn.Module):
    """An augmentation that returns torch's random numbers."""

    def forward(self, image):
        return torch.rand(3, 4, 4)


class RandomAndNumpy(nn.Module):
    """An augmentation that draws from `random` and numpy, as timm's RandAugment and random erasing do."""

    def forward(self, image):
        return torch.tensor([random.random(), np.random.rand()]).reshape(1, 1, 2)


def image_data(
    source, train=TO_TENSOR, evaluation=TO_TENSOR, *, seed=0, rank=0, world_size=1, device_batch=2, decode=decode, **others
):
    draw = {"draw": others.pop("draw")} if "draw" in others else {}
    config = LoaderConfig(**{"num_workers": 0} | others)
    batches = {"global_batch": 4, "device_batch": device_batch}
    data = ImageData(source, train, evaluation, **batches, seed=seed, img_size=(4, 4), loading=config, decode=decode, **draw)
    data.trainer = trainer_of(rank, world_size)
    return data


def trainer_of(rank=0, world_size=1, precision="32-true"):
    """Returns what the data asks of Lightning's Trainer."""
    plugin = Precision() if precision == "32-true" else HalfPrecision(precision)
    return SimpleNamespace(global_rank=rank, world_size=world_size, num_devices=1, training=True, precision_plugin=plugin)


def transferred(data, batch, training):
    """Returns a batch as the task sees it: images, labels and indices."""
    data.trainer.training = training
    batch = data.trainer.precision_plugin.convert_input(batch)  # what Lightning does first
    return data.on_after_batch_transfer(data.on_before_batch_transfer(batch, 0), 0)


def delivered(data):
    """Returns the validation batches as the task sees them."""
    batches = list(data.val_dataloader())  # The loader is exhausted and released, so that its workers end.
    return [transferred(data, batch, training=False) for batch in batches]


def epoch(data, number=0):
    """Returns all images of a training epoch in one tensor."""
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    return torch.cat([transferred(data, batch, training=True)[0] for batch in loader])


@pytest.fixture
def source():
    return Synthetic(num_classes=3, train_images=10, val_images=5, img_size=4)


def test_an_epoch_is_whole_global_batches(source):
    data = image_data(source)
    assert [len(batch.labels) for batch in data.train_dataloader()] == [2, 2, 2, 2]


def test_an_evaluation_delivers_every_image_with_its_label_in_order(source):
    data = image_data(source)
    batches = delivered(data)
    expected = torch.stack([TO_TENSOR(decoded(source.val, i)) for i in range(5)])
    assert torch.equal(torch.cat([images for images, _, _ in batches]), expected)
    assert torch.cat([labels for _, labels, _ in batches]).tolist() == source.val.labels.tolist()
    assert torch.cat([indices for _, _, indices in batches]).tolist() == list(range(5))


def test_two_processes_together_see_what_one_sees(source):
    one = epoch(image_data(source, Jitter()))
    two = torch.cat([epoch(image_data(source, Jitter(), rank=rank, world_size=2)) for rank in (0, 1)])
    assert sorted(row.numpy().tobytes() for row in one) == sorted(row.numpy().tobytes() for row in two)


def drawn_in_training(number=0, **settings):
    """Returns the index of each image of an epoch, and the number that was drawn for it."""
    data = image_data(draw=numbers, **settings)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    batches = [transferred(data, batch, training=True) for batch in loader]
    return dict(zip(torch.cat([b[2] for b in batches]).tolist(), torch.cat([b[3] for b in batches]).tolist(), strict=True))


def numbers(draws, img_size):
    """Draws one number per image, as a task may."""
    return (torch.from_numpy(draws.uniform()),)


def test_what_a_task_draws_depends_on_seed_epoch_and_image(source):
    one = drawn_in_training(source=source)
    first, second = (drawn_in_training(source=source, rank=rank, world_size=2, num_workers=rank) for rank in (0, 1))
    assert one == first | second
    assert len(set(one.values())) == len(one) == 8
    for other in (drawn_in_training(1, source=source), drawn_in_training(source=source, seed=1)):
        assert not set(one.values()) & set(other.values())


def test_what_a_task_draws_in_an_evaluation_depends_on_the_image_alone(source):
    one, other = (delivered(image_data(source, draw=numbers, seed=seed, device_batch=seed)) for seed in (1, 3))
    assert torch.equal(torch.cat([batch[3] for batch in one]), torch.cat([batch[3] for batch in other]))


def test_augmentation_is_the_same_with_and_without_workers(source):
    assert torch.equal(epoch(image_data(source, Jitter())), epoch(image_data(source, Jitter(), num_workers=2)))


def test_augmentation_that_draws_from_random_and_numpy_is_the_same_with_and_without_workers(source):
    alone = epoch(image_data(source, RandomAndNumpy()))
    assert torch.equal(alone, epoch(image_data(source, RandomAndNumpy(), num_workers=2)))


def test_augmentation_is_another_one_in_another_epoch(source):
    data = image_data(source, Jitter())
    first, second = ({row.numpy().tobytes() for row in epoch(data, number)} for number in (0, 1))
    assert not first & second


def test_augmentation_is_another_one_for_another_seed(source):
    of_each_seed = [{row.numpy().tobytes() for row in epoch(image_data(source, Jitter(), seed=seed))} for seed in (0, 1)]
    assert not of_each_seed[0] & of_each_seed[1]


def test_every_image_has_its_own_augmentation(source):
    assert len({row.numpy().tobytes() for row in epoch(image_data(source, Jitter()))}) == 8


def test_the_random_numbers_of_the_main_process_are_not_touched_by_augmentation(source):
    loader = image_data(source, Jitter()).train_dataloader()
    iterator = iter(loader)  # a DataLoader draws one base seed here
    before = torch.get_rng_state()
    list(iterator)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def damaged(tmp_path):
    """Writes eight training images, one truncated and one a text file, and two validation images, one truncated."""
    for part, names in (("train", "abcd"), ("val", "a")):
        for label in ("x", "y"):
            (tmp_path / part / label).mkdir(parents=True)
            for name in names:
                Image.new("RGB", (8, 8), "red").save(tmp_path / part / label / f"{name}.jpg")
    for truncated in ("train/x/b.jpg", "val/y/a.jpg"):
        content = (tmp_path / truncated).read_bytes()
        (tmp_path / truncated).write_bytes(content[: len(content) // 2])
    (tmp_path / "train/y/c.jpg").write_text("no image")
    return Folder(str(tmp_path)), tmp_path


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_stops_the_run_and_is_named(damaged, workers):
    source, root = damaged
    data = image_data(source, num_workers=workers)
    with pytest.raises(UserError, match=str(root / "val/y/a.jpg")) as raised:
        delivered(data)
    assert "data.on_error=skip" in str(raised.value)
    assert len(str(raised.value).splitlines()) <= 3


@pytest.mark.parametrize("workers", [0, 2])
def test_skipping_leaves_unreadable_images_out_and_keeps_the_rest(damaged, workers):
    source, _ = damaged
    data = image_data(source, num_workers=workers, on_error="skip")
    images, labels, indices = delivered(data)[0]
    assert images.shape == (1, 3, 8, 8)
    assert (labels.tolist(), indices.tolist()) == ([0], [0])


@pytest.mark.parametrize("workers", [0, 2])
def test_skipped_images_are_counted_over_both_sets(damaged, workers):
    source, root = damaged
    data = image_data(source, num_workers=workers, on_error="skip", device_batch=4)
    for number in range(3):
        epoch(data, number)
    delivered(data)
    named = {line.split(": ")[0] for line in data.skipped_everywhere()}
    assert named == {str(root / name) for name in ("train/x/b.jpg", "train/y/c.jpg", "val/y/a.jpg")}
    assert len(data.skipped_everywhere()) == 3


def test_a_skipped_image_is_named_once_and_not_in_every_epoch(damaged, monkeypatch):
    source, root = damaged
    warnings = []
    monkeypatch.setattr("swin_lab.data.datamodule.log.warning", lambda text, line: warnings.append(text % line))
    data = image_data(source, on_error="skip")
    for _ in range(3):
        delivered(data)
    assert [str(root / "val/y/a.jpg") in line for line in warnings] == [True]


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_batch_without_a_readable_image_stops_the_run(damaged, on_error):
    source, root = damaged
    for name in ("x/a.jpg", "y/a.jpg"):
        (root / "val" / name).write_bytes(b"")
    data = image_data(source, on_error=on_error)
    with pytest.raises(UserError, match=str(root / "val")):
        transferred(data, next(iter(data.val_dataloader())), training=True)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"on_error": "ignore"}, "data.on_error=ignore is unknown; choose one of raise, skip"),
        ({"on_error": None}, "data.on_error=null must be one of raise, skip"),
        ({"num_workers": -1}, "data.num_workers=-1 must be a non-negative integer or null"),
        ({"num_workers": "two"}, "data.num_workers=two must be a non-negative integer or null"),
        ({"num_workers": 1.5}, "data.num_workers=1.5 must be a non-negative integer or null"),
        ({"repeats": 0}, "data.repeats=0 must be a positive integer"),
        ({"cache_mib": -1}, "data.cache_mib=-1 must be an integer of at least 0 and at most 4194304"),
        ({"resize_mode": "squeeze"}, "data.resize_mode=squeeze is unknown"),
        ({"interpolation": "bicubik"}, "data.interpolation=bicubik is unknown; did you mean bicubic?"),
        ({"crop_pct": 1.1}, "data.crop_pct=1.1 must be a number above 0 and at most 1"),
        ({"mean": [123.7, 116.3, 103.5]}, "data.mean=[123.7, 116.3, 103.5] must be a list"),
        ({"std": 0.5}, "data.std=0.5 must be a list of 3 numbers from 0.001 to 1 (RGB), or of one (greyscale)"),
        ({"std": 0}, "data.std=0 must be a list of 3 numbers"),
        ({"mean": 0}, "data.mean=0 must be a list of 3 numbers"),
        ({"mean": []}, "data.mean=[] must be a list of 3 numbers"),
        ({"mean": [0.5, 0.5]}, "data.mean=[0.5, 0.5] must be a list of 3 numbers"),
        ({"mean": [0.5, 0.5, float("nan")]}, "data.mean=[0.5, 0.5, nan] must be a list of 3 numbers"),
        ({"std": [0.5, 0.5, 0]}, "data.std=[0.5, 0.5, 0] must be a list of 3 numbers from 0.001"),
        ({"std": [1e-30, 0.5, 0.5]}, "data.std=[1e-30, 0.5, 0.5] must be a list of 3 numbers from 0.001"),
        ({"cache_mib": 1e30}, "data.cache_mib=1e+30 must be an integer"),
        ({"cache_mib": 10**30}, "must be an integer of at least 0 and at most 4194304"),
    ],
)
def test_an_invalid_loader_setting_is_rejected_by_name(wrong, message):
    with pytest.raises(UserError, match=re.escape(message)):
        LoaderConfig(**wrong)


def random_images(count=12):
    images = np.random.default_rng(0).integers(0, 256, (count, 6, 5, 3), dtype=np.uint8) // [1, 2, 4]
    return ArrayImages(images.astype(np.uint8), np.arange(count) % 3, "random")


def test_channel_statistics_are_those_of_all_pixels():
    images = random_images()
    mean, std = channel_statistics(images)
    pixels = images.images.reshape(-1, 3) / 255
    assert np.allclose(mean, pixels.mean(axis=0), atol=5e-5)  # they are rounded to four digits
    assert np.allclose(std, pixels.std(axis=0), atol=5e-5)


def test_channel_statistics_of_a_large_set_are_those_of_evenly_spaced_images():
    images = random_images(9)
    chosen = images.images[[0, 4, 8]].reshape(-1, 3) / 255
    assert np.allclose(channel_statistics(images, limit=3)[0], chosen.mean(axis=0), atol=5e-5)


def test_channel_statistics_leave_unreadable_images_out(damaged):
    source, _ = damaged
    red = np.asarray(decoded(source.val, 0)).reshape(-1, 3).mean(axis=0) / 255
    assert np.allclose(channel_statistics(source.train)[0], red, atol=5e-5)


def test_images_of_one_colour_have_a_deviation_above_zero():
    images = ArrayImages(np.full((2, 4, 4, 3), 7, dtype=np.uint8), np.zeros(2, dtype=int), "plain")
    assert min(channel_statistics(images)[1]) > 0


def test_a_set_without_a_readable_image_has_no_statistics(damaged):
    source, root = damaged
    (root / "val/x/a.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=str(root / "val/x/a.jpg")):
        channel_statistics(source.val)


def test_the_same_labels_and_order_have_the_same_fingerprint():
    assert fingerprint(random_images()) == fingerprint(random_images())


def test_other_labels_have_another_fingerprint():
    other = random_images()
    other.labels = other.labels[::-1]
    assert fingerprint(other) != fingerprint(random_images())


def test_a_fingerprint_does_not_depend_on_where_the_folder_is(damaged):
    source, root = damaged
    before = fingerprint(source.train)
    moved = root.rename(root.with_name("moved"))
    assert fingerprint(Folder(str(moved)).train) == before


def test_another_order_of_the_files_has_another_fingerprint(damaged):
    images = damaged[0].train
    swapped = images.select(np.array([1, 0, 2, 3, 4, 5, 6, 7]))
    assert (swapped.labels == images.labels).all()
    assert fingerprint(swapped) != fingerprint(images)


@pytest.mark.parametrize(
    ("cores", "devices", "granted", "expected"),
    [
        (8, 1, None, 8),
        (8, 4, None, 2),
        (2, 4, None, 1),
        (96, 1, None, 16),
        (96, 8, None, 12),
        (96, 8, "10", 10),
        (8, 8, "64", 8),
    ],
)
def test_workers_share_the_available_cores_or_those_that_slurm_grants(source, monkeypatch, cores, devices, granted, expected):
    """SLURM grants cores to each task, and a task is one process for one device."""
    monkeypatch.setattr("swin_lab.data.datamodule.cores", lambda: cores)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    if granted is not None:
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", granted)
    assert image_data(source, num_workers=None).workers_on(devices) == expected


def test_the_configured_number_of_workers_is_used(source):
    assert image_data(source, num_workers=3).workers_on(8) == 3


def test_the_loader_measures_the_waiting_time_except_for_the_first_batch(source, monkeypatch):
    """The clock advances by a second with every image: batches of two, four in an epoch."""
    read = []
    monkeypatch.setattr("swin_lab.data.loading.perf_counter", lambda: float(len(read)))

    def slow(image):
        read.append(image)
        return TO_TENSOR(image)

    data = image_data(source, slow)
    assert data.seconds_waited == 0
    epoch(data)
    assert data.seconds_waited == 6.0


def test_the_settings_of_a_loader_are_bounded_by_the_machine_and_by_the_batch(source, monkeypatch):
    monkeypatch.setattr("swin_lab.data.datamodule.cores", lambda: 8)
    assert image_data(source, num_workers=32).workers_on(1) == 32
    with pytest.raises(UserError, match=r"data\.num_workers=33 is too many for 8 cores; give at most 32"):
        image_data(source, num_workers=33)
    with pytest.raises(UserError, match=r"data\.repeats=5 is more than global_batch=4"):
        image_data(source, repeats=5)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (lambda image: image, "the transforms make a Image of synthetic train"),
        (lambda image: torch.zeros(3, 4, 4, dtype=torch.uint8), "the transforms make a Tensor of torch.uint8, (3, 4, 4)"),
        (lambda image: torch.zeros(4, 4), "the transforms make a Tensor of torch.float32, (4, 4)"),
        (lambda image: torch.zeros(3, 4, int(torch.randint(1, 90, ()))), "the transforms make images of different shapes"),
    ],
    ids=["image", "uint8", "two-dimensional", "different-sizes"],
)
def test_transforms_that_make_no_batch_stop_the_run_with_a_message(source, transform, message, workers):
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        epoch(image_data(source, transform, num_workers=workers))
    assert len(str(raised.value).splitlines()) <= 3


def test_channel_statistics_of_a_large_image_need_no_array_of_its_values(monkeypatch):
    image = Image.new("RGB", (3000, 2000), (51, 0, 255))
    images = ArrayImages(np.empty((1, 1, 1, 3), dtype=np.uint8), np.zeros(1, dtype=int), "large")
    monkeypatch.setattr("swin_lab.data.statistics.decode", lambda encoded: image)
    tracemalloc.start()
    mean, _ = channel_statistics(images)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert mean == (0.2, 0.0, 1.0)
    assert peak < 2**20


LEFT_OPEN = """
from swin_lab.data.loading import TimedLoader, WaitingTime

loader = TimedLoader(range(64), sampler=range(64), batch_size=4, num_workers=2, waiting=WaitingTime(), collate=list)
batches = iter(loader)
print(next(batches))
"""


@pytest.mark.slow
def test_a_process_ends_although_its_loader_workers_ignore_the_signal_that_ends_them():
    done = subprocess.run([sys.executable, "-c", LEFT_OPEN], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0, 1, 2, 3]\n", "")
