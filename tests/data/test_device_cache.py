"""Images that stay on the device: batches augmented there have the distribution of torchvision's transforms, in any batch."""

import re

import numpy as np
import pytest
import torch
from conftest import TINY, Command, final_metrics
from layouts import write_folders
from PIL import Image
from test_datamodule import delivered, epoch, image_data, transferred
from torch import nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from swin_lab.data import LoaderConfig, Synthetic, TimmAugment
from swin_lab.data.batched import BatchAugmentation, draw_rectangles
from swin_lab.data.draws import Draws
from swin_lab.data.images import ArrayImages
from swin_lab.data.transforms import ResizeToCover, eval_transform, pixels_of, train_transform
from swin_lab.data.trivial import TrivialAugment
from swin_lab.errors import UserError
from swin_lab.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

SIDE = 12
VALUES = {"crop_pct": 1.0, "interpolation": "bicubic"}
COLOUR = Preprocessing(img_size=(SIDE, SIDE), channels=3, mean=IMAGENET_MEAN, std=IMAGENET_STD, **VALUES)
GREYSCALE = Preprocessing(img_size=(SIDE, SIDE), channels=1, mean=(0.5,), std=(0.5,), **VALUES)
RESIZING = [ResizeToCover(SIDE), v2.CenterCrop(SIDE)]
CIFAR = [
    *RESIZING,
    v2.RandomAffine(0, translate=(0.125, 0.125)),
    v2.RandomHorizontalFlip(),
    v2.TrivialAugmentWide(),
]
OPERATIONS = list(v2.TrivialAugmentWide._AUGMENTATION_SPACE)


@pytest.fixture
def source():
    return Synthetic(num_classes=3, train_images=16, val_images=5, img_size=SIDE)


def on_device(source, image_transforms=CIFAR, tensor_transforms=(), preprocessing=COLOUR, **loading):
    """Returns the data of a run whose images stay on the device."""
    transform = train_transform(preprocessing, image_transforms, list(tensor_transforms))
    return image_data(source, transform, evaluation=eval_transform(preprocessing), **{"cache": "device"} | loading)


def rows(images):
    return sorted(row.numpy().tobytes() for row in images)


def draws(count, seed=0, number=0):
    return Draws(seed, number, np.arange(count), np.zeros(count, dtype=np.int64))


def noise(count, height=SIDE, width=SIDE):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def test_batches_of_any_size_have_the_same_images(source):
    one, four = (epoch(on_device(source, CIFAR, [v2.RandomErasing(p=0.5)], device_batch=size)) for size in (1, 4))
    assert rows(one) == rows(four)


def test_two_processes_together_see_what_one_sees(source):
    one = epoch(on_device(source))
    two = [epoch(on_device(source, rank=rank, world_size=2)) for rank in (0, 1)]
    assert rows(torch.cat(two)) == rows(one)


@pytest.mark.parametrize("other", [{"seed": 1}, {"number": 1}])
def test_another_seed_or_epoch_augments_differently(source, other):
    data = [v2.RandomAffine(0, translate=(0.5, 0.5))]
    seed, number = other.get("seed", 0), other.get("number", 0)
    images = rows(epoch(on_device(source, data))), rows(epoch(on_device(source, data, seed=seed), number))
    assert images[0] != images[1]
    assert len(set(images[0])) == 16


def test_copies_of_an_image_are_augmented_differently(source):
    images = epoch(on_device(source, [v2.RandomAffine(0, translate=(0.5, 0.5))], repeats=4))
    assert len(set(rows(images))) == 16


def test_training_images_without_augmentation_are_those_of_the_cache_in_memory(tmp_path):
    """Photographs of 6x4 pixels, enlarged once by Pillow before they are cached."""
    source = write_folders(tmp_path)
    for preprocessing in (COLOUR, GREYSCALE):
        device, memory = (epoch(on_device(source, RESIZING, (), preprocessing, cache=place)) for place in ("device", "memory"))
        assert torch.equal(device, memory)


@pytest.mark.parametrize("preprocessing", [COLOUR, GREYSCALE])
def test_an_evaluation_has_the_bits_of_the_cache_in_memory(tmp_path, preprocessing):
    source = write_folders(tmp_path)
    device, memory = (delivered(on_device(source, CIFAR, (), preprocessing, cache=place)) for place in ("device", "memory"))
    for batches in zip(device, memory, strict=True):
        assert all(torch.equal(*tensors) for tensors in zip(*batches, strict=True))


def test_labels_and_indices_belong_to_the_images(source):
    data = on_device(source, [])
    for batch in data.train_dataloader():
        images, labels, indices = transferred(data, batch, training=True)
        assert labels.tolist() == source.train.labels[indices].tolist()
        expected = [eval_transform(COLOUR)(Image.fromarray(source.train.images[index])) for index in indices.tolist()]
        assert torch.equal(images, torch.stack(expected))


def test_an_image_is_decoded_once(tmp_path):
    source = write_folders(tmp_path)
    data = on_device(source, RESIZING)
    first = epoch(data)
    for file in tmp_path.rglob("*.jpg"):
        file.unlink()
    assert torch.equal(epoch(data), first)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_an_image_that_cannot_be_decoded_stops_the_run_or_is_left_out(tmp_path, on_error):
    source = write_folders(tmp_path)
    file = tmp_path / "val" / source.val.files[1]
    file.write_bytes(file.read_bytes()[:100])
    data = on_device(source, RESIZING, on_error=on_error)
    if on_error == "raise":
        with pytest.raises(UserError, match=re.escape(f"cannot decode image {file}")):
            delivered(data)
    else:
        indices = torch.cat([indices for _, _, indices in delivered(data)]).tolist()
        assert indices == [index for index in range(len(source.val.labels)) if index != 1]
        assert len(data.skipped) == 1


def test_draws_are_uniform_and_independent():
    """Means of 10^5 numbers: 5 standard errors are 0.0046 for numbers, and 0.016 for correlations."""
    generator = draws(100_000)
    first, second = generator.uniform(), generator.uniform()
    streams = [first, second, draws(100_000, number=1).uniform(), draws(100_000, seed=1).uniform(), np.roll(first, 1)]
    for stream in streams:
        assert abs(stream.mean() - 0.5) < 0.0046
        assert stream.min() >= 0
        assert stream.max() < 1
    assert np.abs(np.corrcoef(streams) - np.eye(5)).max() < 0.016


def steps_of(*image_transforms):
    return BatchAugmentation(train_transform(COLOUR, list(image_transforms), []), (SIDE, SIDE)).steps


def test_shifts_of_random_affine_have_torchvision_s_distribution():
    """Shares of 20,000 draws; 5 standard errors are at most 0.018. The reach is 3 pixels across and 6 down."""
    transform = v2.RandomAffine(0, translate=(0.25, 0.5))
    actual = steps_of(transform)[0].draw(draws(20_000))
    torch.manual_seed(0)
    drawn = [transform.make_params([torch.empty(3, SIDE, SIDE)])["translate"] for _ in range(20_000)]
    for axis, reach in enumerate((3, 6)):
        shares = [np.bincount(values + 6, minlength=13) / 20_000 for values in (actual[axis], np.array(drawn)[:, axis])]
        assert np.abs(shares[0] - shares[1]).max() < 0.018
        assert np.abs(actual[axis]).max() == reach


@pytest.mark.parametrize(
    "transform", [v2.RandomAffine(0, translate=(0.25, 0.5)), v2.RandomCrop(SIDE, padding=3), v2.RandomCrop(SIDE)]
)
def test_shifted_images_have_torchvision_s_pixels(transform):
    step, images = steps_of(transform)[0], noise(64)
    across, down = step.draw(draws(64))
    shifted = step(images, across, down)
    for image, actual, *shift in zip(images, shifted, across.tolist(), down.tolist(), strict=True):
        assert torch.equal(functional.affine(image, 0.0, shift, 1.0, [0.0, 0.0]), actual)


def test_offsets_of_a_random_crop_are_uniform():
    """7 offsets in each direction; 5 standard errors of a share of 20,000 draws are 0.0124."""
    for shift in steps_of(v2.RandomCrop(SIDE, padding=3))[0].draw(draws(20_000)):
        assert np.abs(np.bincount(shift + 3, minlength=7) / 20_000 - 1 / 7).max() < 0.0124


@pytest.mark.parametrize(("kind", "dim"), [(v2.RandomHorizontalFlip, -1), (v2.RandomVerticalFlip, -2)])
def test_a_flip_has_its_probability_and_direction(kind, dim):
    """5 standard errors of a share of 20,000 draws are 0.0154."""
    step = steps_of(kind(p=0.25))[0]
    assert abs(step.draw(draws(20_000))[0].mean() - 0.25) < 0.0154
    images = noise(3)
    flipped = step(images.clone(), np.array([True, False, True]))
    assert torch.equal(flipped, torch.stack([images[0].flip(dim), images[1], images[2].flip(dim)]))


def test_rectangles_have_torchvision_s_distribution():
    """Means over 4,000 rectangles: the standard deviations of the sides are below 6 pixels, 5 standard errors of a difference
    below 0.67."""
    transform = v2.RandomErasing(p=0.5)
    found = draw_rectangles(transform, draws(8_000), 32, 32)
    assert abs(len(found) / 8_000 - 0.5) < 0.028
    actual = np.array([rectangle[:4] for _, rectangle in found])
    torch.manual_seed(0)
    params = [transform.make_params([torch.empty(3, 32, 32)]) for _ in range(4_000)]
    expected = np.array([[each[key] for key in "ijhw"] for each in params])
    assert np.abs(actual.mean(0) - expected.mean(0)).max() < 0.67
    assert np.abs(actual.std(0) - expected.std(0)).max() < 0.67
    assert len({position for position, _ in found}) == len(found)


def test_rectangles_are_erased_after_normalisation(source):
    images = epoch(on_device(source, [], [v2.RandomErasing(p=1.0)]))
    assert all((image == 0).all(dim=0).any() for image in images)


def test_operations_and_magnitudes_of_trivial_augment_have_torchvision_s_distribution(monkeypatch):
    """Shares of 3,000 draws of torchvision and 30,000 here: 5 standard errors are 0.025; mean magnitudes within 15 per cent."""
    drawn = []
    transform = v2.TrivialAugmentWide()
    monkeypatch.setattr(
        transform, "_apply_image_or_video_transform", lambda image, name, value, **_: drawn.append((name, value)) or image
    )
    torch.manual_seed(0)
    for _ in range(3_000):
        transform(torch.zeros(3, 2, 2, dtype=torch.uint8))
    operation, magnitude = TrivialAugment(transform).draw(draws(30_000))
    for number, name in enumerate(OPERATIONS):
        expected = np.array([value for other, value in drawn if other == name])
        actual = magnitude[operation == number]
        assert abs(len(expected) / 3_000 - len(actual) / 30_000) < 0.025, name
        assert np.abs(expected).mean() == pytest.approx(np.abs(actual).mean(), rel=0.15), name
        assert set(expected) <= set(actual), name
        assert np.mean(actual < 0) == pytest.approx(0.48, abs=0.06) or actual.min() >= 0, name


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_of_trivial_augment_has_torchvision_s_pixels(name, interpolation):
    """Every magnitude of both signs; at most one value in 1,000 may be rounded differently."""
    transform = v2.TrivialAugmentWide(interpolation=interpolation)
    batched = TrivialAugment(transform)
    number = OPERATIONS.index(name)
    signs = (1, -1) if batched.signed[number] else (1,)
    magnitudes = np.concatenate([batched.table[number] * sign for sign in signs])
    images = noise(len(magnitudes), 16, 12)
    actual = batched(images.clone(), np.full(len(magnitudes), number), magnitudes)
    expected = torch.stack(
        [
            transform._apply_image_or_video_transform(image, name, value, interpolation, transform._fill)
            for image, value in zip(images, magnitudes.tolist(), strict=True)
        ]
    )
    different = actual != expected
    assert different.float().mean() < 1e-3
    assert (actual.int() - expected.int()).abs().max() <= 1


def test_greyscale_of_a_batch_has_pillow_s_pixels():
    images = noise(4)
    step = BatchAugmentation(train_transform(GREYSCALE, [], []), (SIDE, SIDE)).steps[0]
    expected = [pixels_of(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L")) for image in images]
    assert torch.equal(step(images), torch.stack(expected))


class Identity(nn.Module):
    """A transform of a user."""

    def forward(self, value):
        return value


@pytest.mark.parametrize(
    ("image_transforms", "tensor_transforms", "named"),
    [
        ([v2.RandomResizedCrop(SIDE)], [], "RandomResizedCrop"),
        ([v2.RandomAffine(5)], [], "RandomAffine"),
        ([v2.RandomAffine(0, translate=(0.1, 0.1), fill=128)], [], "RandomAffine"),
        ([v2.RandomHorizontalFlip(), v2.CenterCrop(SIDE)], [], "CenterCrop"),
        ([v2.TrivialAugmentWide(fill=128)], [], "TrivialAugmentWide"),
        ([v2.RandomCrop(SIDE, padding=2, padding_mode="reflect")], [], "RandomCrop"),
        ([Identity()], [], "Identity"),
        ([], [Identity()], "Identity"),
        ([], [v2.RandomErasing(value="random")], "RandomErasing"),
        ([], TimmAugment(img_size=SIDE, mean=IMAGENET_MEAN).tensor_transforms, "Erasing"),
    ],
)
def test_a_transform_that_cannot_be_applied_to_a_batch_is_refused_by_name(source, image_transforms, tensor_transforms, named):
    message = rf"data.cache=device cannot apply {named} .*; use data.cache=memory"
    with pytest.raises(UserError, match=message):
        on_device(source, image_transforms, tensor_transforms)


def test_a_set_above_the_limit_is_refused_with_both_numbers_before_it_is_read():
    class Unread:
        labels = np.zeros(2_500, dtype=np.int64)

    source = Synthetic(num_classes=3, train_images=16, val_images=5, img_size=SIDE)
    source.train = Unread()
    with pytest.raises(UserError, match=r"2,500 images of 12x12 need 2 MiB, more than data\.cache_mib=1;"):
        on_device(source, cache_mib=1)  # 2500 * 3 * 12 * 12 bytes are 1.03 MiB


def test_images_of_another_size_without_resizing_are_refused_with_both_sizes(source):
    source.train = ArrayImages(np.zeros((16, 9, 8, 3), dtype=np.uint8), np.zeros(16, dtype=np.int64), "small")
    with pytest.raises(UserError, match=re.escape("small[0] has 9x8 pixels, and the network takes 12x12")):
        epoch(on_device(source, [v2.RandomHorizontalFlip()]))


def test_scaled_decoding_is_refused():
    with pytest.raises(UserError, match=r"data\.decode_size=crop needs random crops of every size"):
        LoaderConfig(cache="device", decode_size="crop")


@pytest.mark.parametrize("number", [None, 0])
def test_no_workers_are_started(source, number):
    assert on_device(source, num_workers=number).train_dataloader().num_workers == 0


def test_a_number_of_workers_is_refused():
    with pytest.raises(
        UserError, match=r"data\.num_workers=2 has no effect on data\.cache=device.*\nChoose data\.num_workers=0"
    ):
        LoaderConfig(cache="device", num_workers=2)


def results(folder):
    (file,) = folder.rglob("results.json")
    return final_metrics(file.parent)


def test_a_run_without_augmentation_gives_the_results_of_the_cache_in_memory(command: Command, tmp_path) -> None:
    """With drop path, whose random numbers come from torch's generator."""
    for place in ("memory", "device"):
        options = ("augment=none", "model.drop_path_rate=0.2", f"data.cache={place}", f"out={place}")
        outcome = command("train", *TINY, *options)
        assert outcome.code == 0, outcome.err
    assert results(tmp_path / "memory") == results(tmp_path / "device")


def test_an_evaluation_of_a_checkpoint_keeps_its_images_on_the_device(command: Command, tmp_path) -> None:
    command("train", *TINY, "augment=none", "data.cache=device", "out=run")
    (run,) = (file.parent for file in (tmp_path / "run").rglob("results.json"))
    outcome = command("eval", f"checkpoint={run}", "out=again", "trainer.accelerator=cpu")
    assert outcome.code == 0, outcome.err
    assert results(tmp_path / "again") == final_metrics(run)


def test_a_run_trains_with_augmentation_on_the_device(command: Command) -> None:
    outcome = command("train", *TINY, "augment=cifar", "data.cache=device", "precision=bf16-true", "trainer.max_epochs=1")
    assert outcome.code == 0, outcome.err


def test_an_augmentation_that_cannot_run_on_batches_is_refused_before_the_run_exists(command: Command, tmp_path) -> None:
    outcome = command("train", *TINY, "augment=light", "data.cache=device")
    assert outcome.code == 2
    assert "data.cache=device cannot apply RandomAffine" in outcome.err
    assert not (tmp_path / "runs").exists()
