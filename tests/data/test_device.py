"""Batches travel as uint8, and the device normalises and erases them: the same values as per image in a worker."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from test_datamodule import epoch, image_data, trainer_of, transferred
from torchvision.transforms import ToTensor, v2

from swin_lab.data import Synthetic, TimmAugment
from swin_lab.data.device import DeviceStage, Erasing, Rectangle
from swin_lab.data.transforms import eval_transform, train_transform
from swin_lab.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

VALUES = {"channels": 3, "crop_pct": 1.0, "interpolation": "bicubic", "mean": IMAGENET_MEAN, "std": IMAGENET_STD}
PREPROCESSING = Preprocessing(img_size=(8, 8), **VALUES)


@pytest.fixture
def source():
    return Synthetic(num_classes=3, train_images=16, val_images=5, img_size=8)


def augmented(source, *tensor_transforms, **loading):
    transform = train_transform(PREPROCESSING, [v2.RandomHorizontalFlip()], list(tensor_transforms))
    return image_data(source, transform, **loading)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_device_stage_gives_the_bits_of_to_tensor_and_normalize(memory_format):
    """All 256 values in every channel."""
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(np.stack([values, values.T, 255 - values], axis=-1))
    pixels = v2.functional.pil_to_tensor(image)[None].to(memory_format=memory_format)
    expected = v2.Normalize(list(IMAGENET_MEAN), list(IMAGENET_STD))(ToTensor()(image))
    actual = DeviceStage(IMAGENET_MEAN, IMAGENET_STD)(pixels)
    assert torch.equal(actual[0], expected)
    assert actual.is_contiguous()


def test_pixels_are_not_changed_by_the_device_stage():
    pixels = torch.full((1, 3, 2, 2), 7, dtype=torch.uint8)
    DeviceStage((0.5,) * 3, (0.5,) * 3)(pixels)
    assert pixels.unique().tolist() == [7]


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_of_training_and_evaluation_travel_as_uint8(source, workers):
    data = augmented(source, v2.RandomErasing(p=1.0), num_workers=workers)
    data.eval_transform = eval_transform(PREPROCESSING)
    for loader in (data.train_dataloader(), data.val_dataloader()):
        for batch in loader:
            assert batch.images.dtype == torch.uint8


def test_a_transform_of_the_user_on_the_normalised_tensor_still_runs_per_image_in_the_worker(source):
    seen = []

    def spy(image):
        seen.append((image.shape, image.dtype))
        return image + 1

    plain, changed = augmented(source), augmented(source, spy)
    assert next(iter(changed.train_dataloader())).images.is_floating_point()
    seen.clear()
    assert torch.equal(epoch(changed), epoch(plain) + 1)
    assert set(seen) == {((3, 8, 8), torch.float32)}


def test_a_batch_has_the_values_of_its_images_one_by_one(source):
    """Erased rectangles included: they do not depend on the batch."""
    timm = TimmAugment(img_size=8, mean=IMAGENET_MEAN, erase=0.7, erase_count=3)
    transform = train_transform(PREPROCESSING, timm.image_transforms, timm.tensor_transforms)
    sorted_rows = [
        sorted(row.numpy().tobytes() for row in epoch(image_data(source, transform, device_batch=size))) for size in (1, 4)
    ]
    assert sorted_rows[0] == sorted_rows[1]


@pytest.mark.parametrize("workers", [1, 2])
def test_noise_does_not_depend_on_workers(source, workers):
    timm = TimmAugment(img_size=8, mean=IMAGENET_MEAN, erase=1.0)
    transform = train_transform(PREPROCESSING, timm.image_transforms, timm.tensor_transforms)
    assert torch.equal(epoch(image_data(source, transform)), epoch(image_data(source, transform, num_workers=workers)))


def test_noise_is_another_one_in_another_epoch_and_for_another_image(source):
    stage = Erasing(lambda channels, height, width: [(0, 0, height, width)], "pixel")
    data = augmented(source, stage)
    rows = torch.cat([epoch(data, 0), epoch(data, 1)])
    assert len({row.numpy().tobytes() for row in rows}) == len(rows)


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_erasing_of_torchvision_on_the_device_equals_torchvision_s(p):
    step = v2.RandomErasing(p=p)
    staged = train_transform(PREPROCESSING, [], [step])
    in_worker = train_transform(PREPROCESSING, [], [lambda image: step(image)])
    assert staged.device is not None
    assert in_worker.device is None
    image = Image.effect_noise((8, 8), 64).convert("RGB")
    for seed in range(30):
        torch.manual_seed(seed)
        expected = in_worker(image)
        torch.manual_seed(seed)
        assert torch.equal(staged(image), expected), seed


def test_erasing_of_torchvision_with_noise_stays_in_the_worker():
    assert train_transform(PREPROCESSING, [], [v2.RandomErasing(p=1.0, value="random")]).device is None


def test_erasing_fills_its_rectangle_and_nothing_else():
    images = torch.full((2, 3, 6, 6), 9.0)
    Erasing(lambda channels, height, width: [], "pixel").erase(images, [(1, Rectangle(1, 2, 3, 4, seed=5))])
    changed = images != 9
    assert changed[1, :, 1:4, 2:6].all()
    assert changed.sum() == 3 * 3 * 4


def test_noise_of_one_seed_is_the_same_every_time():
    rectangle = Rectangle(0, 0, 4, 4, seed=random.getrandbits(63))
    one, other = torch.zeros(2, 1, 3, 4, 4)
    for images in (one, other):
        Erasing(lambda channels, height, width: [], "pixel").erase(images, [(0, rectangle)])
    assert torch.equal(one, other)


@pytest.mark.parametrize(("precision", "dtype"), [("32-true", torch.float32), ("bf16-true", torch.bfloat16)])
def test_the_network_gets_images_in_the_precision_of_the_run(source, precision, dtype):
    data = augmented(source)
    data.trainer = trainer_of(precision=precision)
    assert transferred(data, next(iter(data.train_dataloader())), training=True)[0].dtype == dtype
