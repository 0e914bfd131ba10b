"""Decoding of nothing but the random crop: the pixels and the random numbers of decoding the whole image."""

import os
import random
from importlib.util import find_spec
from io import BytesIO

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, Command, final_metrics
from layouts import write_folders
from PIL import Image
from test_datamodule import epoch, image_data
from torchvision.transforms import v2

from swin_lab.data import TimmAugment
from swin_lab.data.crops import CropDecoder, crop_decoder
from swin_lab.data.decoders import PACKAGES, RegionDecoder, build_decoder
from swin_lab.data.decoding import UNREADABLE, decode
from swin_lab.data.nvimgcodec import _one_extension, on_the_host
from swin_lab.errors import UserError
from swin_lab.preprocessing import Preprocessing

MISSING = any(find_spec(module) is None for module in PACKAGES["nvimgcodec"][1])
pytestmark = pytest.mark.skipif(MISSING, reason="nvImageCodec is not installed")

REAL = ROOT.parent / "shared" / "data" / "imagenet-sample" / "val"
SIDE = 32
WIDTH, HEIGHT = 122, 100
SMOOTH = Image.fromarray(np.random.default_rng(0).integers(0, 256, (13, 16, 3), dtype=np.uint8)).resize((WIDTH, HEIGHT))
CROPS = {
    "timm": lambda: TimmAugment(img_size=SIDE, mean=(0.5,) * 3, interpolation="random").image_transforms[0],
    "torchvision": lambda: v2.RandomResizedCrop(SIDE, interpolation=3),
}


@pytest.fixture(params=sorted(CROPS))
def crop(request):
    return CROPS[request.param]()


def decoder(exif_orientation=True):
    values = {"channels": 3, "crop_pct": 1.0, "interpolation": "bicubic", "mean": (0.5,) * 3, "std": (0.5,) * 3}
    return build_decoder(Preprocessing(img_size=(8, 8), **values, exif_orientation=exif_orientation), "nvimgcodec")


def encoded(image=SMOOTH, kind="JPEG", **options):
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def boxes(count, width=WIDTH, height=HEIGHT):
    """Returns random boxes, of which the first ones are the image, its corners and single pixels."""
    generator = np.random.default_rng(0)
    yield from [(0, 0, width, height), (0, 0, 1, 1), (width - 1, height - 1, width, height), (0, height - 9, 9, height)]
    for _ in range(count):
        left, top = int(generator.integers(width)), int(generator.integers(height))
        yield left, top, int(generator.integers(left + 1, width + 1)), int(generator.integers(top + 1, height + 1))


def seeded(call, argument, seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return np.asarray(call(argument)), random.random(), torch.rand(1).item()


def assert_same_crop(crop, content, seeds, exif_orientation=True):
    """Asserts that decoding the crop gives the pixels of cropping the whole image, and leaves the generators alike."""
    for seed in seeds:
        ours, *after = seeded(CropDecoder(crop, decoder(exif_orientation), reduced=False), content, seed)
        theirs, *expected = seeded(lambda content: crop(decode(content, exif_orientation)), content, seed)
        assert np.array_equal(ours, theirs)
        assert after == expected


# Pixels


KINDS = [{"subsampling": each} for each in ("4:4:4", "4:2:2", "4:2:0", "4:1:1")]
KINDS += [{"progressive": True}, {"restart_marker_blocks": 3}, {"keep_rgb": True}, {"quality": 5}, {"optimize": True}]


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_a_region_of_every_kind_of_colour_jpeg_has_the_pixels_of_pillow(options):
    """Upsampled chroma depends on the neighbours of the region; the difference is bounded by 0 nevertheless."""
    content = encoded(**options)
    whole = decode(content)
    for box in boxes(40):
        assert np.array_equal(np.asarray(decoder().region(content, box)), np.asarray(whole.crop(box))), box


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real images of {REAL} are absent")
def test_crops_of_real_photographs_have_the_pixels_and_the_random_numbers_of_the_transform(crop):
    for seed, file in enumerate(sorted(REAL.rglob("*.JPEG"))[::5]):
        assert_same_crop(crop, file.read_bytes(), [seed])


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_jpegs_of_other_modes_have_the_pixels_of_the_transform(crop, mode):
    assert_same_crop(crop, encoded(SMOOTH.convert(mode)), range(5))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_other_formats_have_the_pixels_of_the_transform(crop, kind):
    assert_same_crop(crop, encoded(kind=kind), range(5))


def test_an_array_has_the_pixels_of_the_transform(crop):
    assert_same_crop(crop, np.asarray(SMOOTH), range(5))


@pytest.mark.parametrize("exif_orientation", [True, False])
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_exif_orientation_is_applied_before_the_crop_is_drawn_if_it_is_wanted(crop, orientation, exif_orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert_same_crop(crop, encoded(exif=exif), range(5), exif_orientation)


def test_workers_deliver_the_batches_of_pillow(tmp_path):
    """The decoder is made before the processes of the workers are forked."""
    source, crop = write_folders(tmp_path), v2.RandomResizedCrop(8, interpolation=3)
    after = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
    expected = epoch(image_data(source, v2.Compose([crop, after]), cache_mib=0))
    data = image_data(source, after, decode=CropDecoder(crop, decoder(), reduced=False), num_workers=2, cache_mib=0)
    assert torch.equal(epoch(data), expected)


# What is decoded


def test_the_package_is_asked_for_the_region_only():
    asked = []

    def colour_region(content, box):
        asked.append(box)
        return SMOOTH.crop(box)

    crop = CROPS["torchvision"]()
    for seed in range(3):
        seeded(CropDecoder(crop, RegionDecoder(colour_region, True), reduced=False), encoded(), seed)
    assert len(asked) == 3
    assert all((right - left) * (bottom - top) < WIDTH * HEIGHT for left, top, right, bottom in asked)


def test_an_augmentation_without_a_random_crop_decodes_whole_images():
    assert crop_decoder(v2.Resize(8), decoder(), reduced=False) is None
    assert crop_decoder(None, decoder(), reduced=False) is None


def test_decoders_of_whole_images_do_not_decode_crops(crop):
    assert crop_decoder(crop, decode, reduced=False) is None


def test_large_crops_can_be_decoded_at_a_fraction_and_others_as_regions(crop):
    regions = []

    def colour_region(content, box):
        regions.append(box)
        return decode(content).crop(box)

    large, small = encoded(SMOOTH.resize((640, 640))), encoded(SMOOTH.resize((40, 40)))
    for seed in range(5):
        seeded(CropDecoder(crop, RegionDecoder(colour_region, True), reduced=True), large, seed)
    assert len(regions) < 5
    regions.clear()
    seeded(CropDecoder(crop, RegionDecoder(colour_region, True), reduced=True), small, 0)
    assert len(regions) == 1


# Damage


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.95, 0.999])
@pytest.mark.parametrize("box", [(0, 0, WIDTH, 8), (0, HEIGHT - 8, WIDTH, HEIGHT)], ids=["above", "below"])
def test_a_truncated_file_raises_the_error_of_pillow_also_if_the_region_is_complete(kept, box):
    content = encoded()
    truncated = content[: int(len(content) * kept)]
    messages = []
    for call in (lambda: decoder().region(truncated, box), lambda: decode(truncated)):
        with pytest.raises(UNREADABLE) as raised:
            call()
        messages.append((raised.type, str(raised.value)))
    assert messages[0] == messages[1]


def damaged_files():
    """Returns files with some wrong bytes, without those whose header is so wrong that Pillow decodes them."""
    generator, complete = np.random.default_rng(0), encoded()
    for _ in range(200):
        damaged = bytearray(complete)
        for position in generator.integers(0, len(damaged), generator.choice([1, 3, 10])):
            damaged[position] = generator.integers(256)
        yield bytes(damaged)


def test_no_damage_that_pillow_accepts_gives_another_region_or_an_error():
    accepted = 0
    for content in damaged_files():
        try:
            whole = decode(content)
        except UNREADABLE:
            continue
        box = (whole.width // 3, whole.height // 3, whole.width // 2 + 1, whole.height)
        assert np.array_equal(np.asarray(decoder().region(content, box)), np.asarray(whole.crop(box)))
        accepted += 1
    assert accepted > 50


def test_damage_in_the_last_row_that_pillow_refuses_is_refused_if_the_region_contains_it():
    refused = 0
    for content in damaged_files():
        try:
            decode(content)
        except UNREADABLE:
            with pytest.raises(UNREADABLE):
                decoder().region(content, (0, 0, WIDTH, HEIGHT))
            refused += 1
    assert refused > 20


# The package


def test_the_environment_is_as_before_when_the_package_was_imported(monkeypatch):
    monkeypatch.setenv("PYNVIMGCODEC_VERBOSITY", "3")
    monkeypatch.delenv("NVIMGCODEC_EXTENSIONS_PATH", raising=False)
    before = dict(os.environ)
    with _one_extension():
        assert os.environ["PYNVIMGCODEC_VERBOSITY"] == "0"
        (library,) = os.listdir(os.environ["NVIMGCODEC_EXTENSIONS_PATH"])
        assert library.startswith("libjpeg_turbo_ext.so")
    assert dict(os.environ) == before


def test_an_installation_without_libjpeg_turbo_is_refused(monkeypatch):
    monkeypatch.setattr("swin_lab.data.nvimgcodec.EXTENSION", "another")
    with pytest.raises(UserError, match=r"data\.decoder=nvimgcodec needs another, which the installed nvImageCodec"):
        on_the_host.__wrapped__()


# Runs


def test_a_run_has_the_losses_of_one_with_pillow(command: Command, tmp_path) -> None:
    write_folders(tmp_path / "images")
    losses = []
    for name in ("pillow", "nvimgcodec"):
        options = ("data=folder", "data.root=images", f"data.decoder={name}", "augment=imagenet", "model.img_size=32")
        data = (
            "data.num_workers=0",
            "data.cache_mib=0",
            "data.mean=[0.5,0.5,0.5]",
            "data.std=[0.5,0.5,0.5]",
            "global_batch=4",
            f"out={name}",
        )
        kept = [option for option in TINY if not option.startswith(("data", "global_batch"))]
        outcome = command("train", *kept, *options, *data)
        assert outcome.code == 0, outcome.err
        (file,) = (tmp_path / name).rglob("results.json")
        losses.append(final_metrics(file.parent))
    assert losses[0] == losses[1]


def test_a_run_without_a_random_crop_trains(command: Command) -> None:
    outcome = command("train", *TINY, "augment=light", "data.decoder=nvimgcodec", "trainer.max_epochs=1")
    assert outcome.code == 0, outcome.err


def test_a_cache_on_the_device_still_refuses_random_crops(command: Command) -> None:
    outcome = command("train", *TINY, "augment=crop", "data.decoder=nvimgcodec", "data.cache=device")
    assert outcome.code == 2
    assert "data.cache=device cannot apply RandomResizedCrop" in outcome.err
