"""Decoding at a fraction of the size: the same crops, nearly the same pixels, and only where the crop is reduced anyway."""

import random
from io import BytesIO

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, Command
from PIL import Image
from torchvision.transforms import v2

from swin_lab.data import TimmAugment
from swin_lab.data.crops import CropDecoder
from swin_lab.data.decoding import UNREADABLE, decode

REAL = ROOT.parent / "shared" / "data" / "imagenet-sample" / "val"
SIDE = 32


def encoded(width, height, kind="JPEG", **options):
    """Returns a file of a smooth image, as photographs are."""
    noise = np.random.default_rng(0).integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(buffer, kind, **options)
    return buffer.getvalue()


def seeded(call, argument, seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return np.asarray(call(argument)), random.random(), torch.rand(1).item()


CROPS = {
    "timm": lambda: TimmAugment(img_size=SIDE, mean=(0.5,) * 3, interpolation="random").image_transforms[0],
    "torchvision": lambda: v2.RandomResizedCrop(SIDE, interpolation=3),
}


@pytest.fixture(params=sorted(CROPS))
def crop(request):
    return CROPS[request.param]()


@pytest.mark.parametrize("size", [(60, 50), (33, 90)], ids=str)
def test_small_crops_have_the_pixels_and_the_random_numbers_of_the_transform(crop, size):
    content = encoded(*size)
    for seed in range(20):
        ours, *after = seeded(CropDecoder(crop, decode, reduced=True), content, seed)
        theirs, *expected = seeded(lambda content: crop(decode(content)), content, seed)
        assert np.array_equal(ours, theirs)
        assert after == expected


def test_large_crops_are_decoded_at_a_fraction_with_nearly_the_same_pixels_and_the_same_random_numbers(crop):
    content, differences = encoded(640, 480), []
    for seed in range(20):
        ours, *after = seeded(CropDecoder(crop, decode, reduced=True), content, seed)
        theirs, *expected = seeded(lambda content: crop(decode(content)), content, seed)
        differences.append(np.abs(ours.astype(int) - theirs).mean())
        assert after == expected
    assert 0 < max(differences) < 6  # of 256 levels; such random colours are no photograph


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real images of {REAL} are absent")
def test_real_photographs_differ_by_two_levels_on_average_at_most(crop):
    differences = []
    for seed, file in enumerate(sorted(REAL.rglob("*.JPEG"))[::10]):
        ours, theirs = (
            seeded(call, file.read_bytes(), seed)[0].astype(int)
            for call in (CropDecoder(crop, decode, reduced=True), lambda content: crop(decode(content)))
        )
        differences.append(np.abs(ours - theirs).mean())
    assert np.mean(differences) < 2


@pytest.mark.parametrize("options", [{"kind": "PNG"}, {"exif": 6}], ids=["png", "rotated"])
def test_other_files_have_the_pixels_of_the_transform(crop, options):
    if "exif" in options:
        exif = Image.Exif()
        exif[0x0112] = options["exif"]
        options = {"exif": exif}
    content = encoded(640, 480, **options)
    for seed in range(5):
        assert np.array_equal(
            seeded(CropDecoder(crop, decode, reduced=True), content, seed)[0],
            seeded(lambda content: crop(decode(content)), content, seed)[0],
        )


def test_a_truncated_file_is_unreadable(crop):
    content = encoded(640, 480)
    for seed in range(5):
        with pytest.raises(UNREADABLE):
            seeded(CropDecoder(crop, decode, reduced=True), content[: len(content) // 2], seed)


def test_an_augmentation_without_a_random_crop_is_refused_before_the_run_exists(command: Command, tmp_path) -> None:
    outcome = command("train", *TINY, "augment=light", "data.decode_size=crop")
    assert outcome.code == 2
    assert "data.decode_size=crop needs an augmentation that begins with a random resized crop" in outcome.err
    assert "ResizeToCover" in outcome.err
    assert not (tmp_path / "runs").exists()


def test_a_run_with_scaled_decoding_trains(command: Command) -> None:
    assert command("train", *TINY, "augment=crop", "data.decode_size=crop", "trainer.max_epochs=1").code == 0
