"""Images of every mode in data sets are decoded to upright RGB with the right pixels, or are unreadable."""

import random
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from layouts import write_folders
from PIL import Image
from test_datamodule import delivered, epoch, image_data

from swin_lab.data.decoding import UNREADABLE, decode


def encoded(image, kind="PNG", **options):
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(content):
    image = decode(content)
    assert image.mode == "RGB"
    return np.asarray(image)


def grey(values):
    """Returns a row of greyscale values as RGB, with three equal channels."""
    return np.repeat(np.asarray(values, dtype=np.uint8)[None, :, None], 3, axis=2)


def photograph(height=24, width=20):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


SIXTEEN_BITS = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
THEIR_HIGH_BYTES = grey([0, 0, 1, 128, 255])


def test_an_rgb_image_keeps_every_pixel():
    assert (pixels(encoded(photograph())) == np.asarray(photograph())).all()


def test_an_array_keeps_every_pixel():
    assert (pixels(np.asarray(photograph())) == np.asarray(photograph())).all()


def test_8_bit_grey_becomes_three_equal_channels():
    row = np.array([[0, 1, 127, 255]], dtype=np.uint8)
    assert (pixels(encoded(Image.fromarray(row))) == grey(row[0])).all()


def test_16_bit_grey_png_is_scaled_and_not_clipped():
    assert (pixels(encoded(Image.fromarray(SIXTEEN_BITS))) == THEIR_HIGH_BYTES).all()


@pytest.mark.parametrize(("mode", "byte_order"), [("I;16", "<u2"), ("I;16B", ">u2")])
def test_16_bit_grey_tiff_of_either_byte_order_is_scaled_and_not_clipped(mode, byte_order):
    tiff = encoded(Image.frombytes(mode, (5, 1), SIXTEEN_BITS.astype(byte_order).tobytes()), "TIFF")
    assert (pixels(tiff) == THEIR_HIGH_BYTES).all()


def test_16_bit_values_stored_in_32_bits_are_scaled_and_not_clipped():
    tiff = encoded(Image.fromarray(SIXTEEN_BITS.astype(np.int32)), "TIFF")
    assert Image.open(BytesIO(tiff)).mode == "I"
    assert (pixels(tiff) == THEIR_HIGH_BYTES).all()


def test_1_bit_images_become_black_and_white():
    bits = Image.fromarray(np.array([[0, 255, 255, 0]], dtype=np.uint8)).convert("1")
    assert (pixels(encoded(bits)) == grey([0, 255, 255, 0])).all()


def palette():
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 128, 0, 0, 0, 64])
    image.putdata([2, 0, 1])
    return image


def test_palette_indices_become_their_colours():
    assert pixels(encoded(palette())).tolist() == [[[0, 0, 64], [255, 0, 0], [0, 128, 0]]]


def test_a_transparent_palette_entry_becomes_white():
    assert pixels(encoded(palette(), transparency=0)).tolist() == [[[0, 0, 64], [255, 255, 255], [0, 128, 0]]]


def test_transparent_pixels_are_shown_on_white():
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 128]]], dtype=np.uint8)
    expected = [[10, 20, 30], [255, 255, 255], [127, 127, 127]]
    assert np.abs(pixels(encoded(Image.fromarray(rgba)))[0].astype(int) - expected).max() <= 1  # one level of rounding


def test_transparent_grey_is_shown_on_white():
    la = Image.merge("LA", [Image.new("L", (2, 1), 40), Image.fromarray(np.array([[255, 0]], dtype=np.uint8))])
    assert (pixels(encoded(la)) == grey([40, 255])).all()


def test_a_cmyk_jpeg_has_its_colours_and_not_their_negative():
    magenta_and_yellow = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    assert np.abs(pixels(magenta_and_yellow).astype(int) - [255, 0, 0]).max() <= 4  # JPEG is lossy


STORED = {  # EXIF 2.32, tag 0x0112: how an upright array is stored in a file of each orientation
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(upright, 2).transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("orientation", sorted(STORED))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_an_image_is_rotated_according_to_its_exif_orientation(orientation, kind):
    upright = np.asarray(photograph())
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    assert (pixels(encoded(stored, kind, exif=exif)) == upright).all()


def test_a_phone_s_jpeg_is_rotated_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the phone held upright
    sideways = Image.new("RGB", (32, 16), "black")
    sideways.paste("white", (0, 0, 16, 16))  # the left of the file is the top of the image
    seen = pixels(encoded(sideways, "JPEG", quality=95, exif=exif))
    assert seen.shape == (32, 16, 3)
    assert seen[:16].min() > 250
    assert seen[16:].max() < 5


def test_an_animation_is_its_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    gif = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (pixels(gif) == [255, 0, 0]).all()


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.95])
def test_a_truncated_jpeg_is_unreadable(kept):
    complete = encoded(photograph(64, 64), "JPEG")
    with pytest.raises(UNREADABLE):
        decode(complete[: int(len(complete) * kept)])


def test_a_truncated_png_is_unreadable():
    complete = encoded(photograph(64, 64))
    with pytest.raises(UNREADABLE):
        decode(complete[: len(complete) // 2])


@pytest.mark.parametrize("content", [b"", b"This is not an image.\n" * 100], ids=["empty", "text"])
def test_a_file_that_is_not_an_image_is_unreadable_with_the_same_message_every_time(content):
    messages = set()
    for _ in range(2):
        with pytest.raises(UNREADABLE) as raised:
            decode(bytes(bytearray(content)))
        messages.add(str(raised.value))
    assert messages == {"the bytes are not an image of a known format"}


def test_a_deleted_file_is_unreadable(tmp_path):
    source = write_folders(tmp_path)
    Path(source.val.name(0)).unlink()
    with pytest.raises(UNREADABLE):
        source.val.encoded(0)


@pytest.mark.parametrize("cache_mib", [0, 512])
def test_another_decoder_replaces_the_decoder_of_training_and_evaluation_in_one_argument(tmp_path, cache_mib):
    seen = []

    def white(encoded_image):
        seen.append(encoded_image)
        return Image.new("RGB", (6, 4), "white")

    data = image_data(write_folders(tmp_path), decode=white, cache_mib=cache_mib)
    assert epoch(data).unique().tolist() == [1.0]
    assert torch.cat([images for images, _, _ in delivered(data)]).unique().tolist() == [1.0]
    assert seen[0][:2] == b"\xff\xd8"  # the start of a JPEG file


def test_a_decompression_bomb_is_unreadable(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UNREADABLE):
        decode(encoded(photograph()))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP"])
@pytest.mark.filterwarnings("ignore")  # Pillow's own about strange headers
def test_no_damage_to_a_file_raises_another_error_than_unreadable(kind):
    generator, complete = random.Random(0), encoded(photograph(), kind)
    for _ in range(150):
        damaged = bytearray(complete)
        for _ in range(generator.choice([1, 3, 10])):
            damaged[generator.randrange(min(len(damaged), 400))] = generator.randrange(256)
        try:
            image = decode(bytes(damaged))
        except UNREADABLE:
            continue
        assert image.mode == "RGB"


def test_floats_from_0_to_1_are_scaled_and_not_black():
    floats = np.array([[0, 0.5, 1]], dtype=np.float32)
    assert (pixels(encoded(Image.fromarray(floats), "TIFF")) == grey([0, 128, 255])).all()


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0, 200.0]], dtype=np.float32),
        np.array([[np.nan, 0]], dtype=np.float32),
        np.array([[-1, 1]], dtype=np.float32),
        np.array([[0, 255]], dtype=np.int32),
        np.array([[0, 2**30]], dtype=np.int32),
        np.array([[-5, 3000]], dtype=np.int32),
    ],
    ids=lambda values: f"{values.dtype}-{values.max()}",
)
def test_values_whose_white_is_not_defined_are_unreadable_and_not_black(values):
    with pytest.raises(UNREADABLE, match="no defined white"):
        decode(encoded(Image.fromarray(values), "TIFF"))


def test_a_black_image_of_32_bits_is_black():
    assert pixels(encoded(Image.fromarray(np.zeros((1, 2), dtype=np.int32)), "TIFF")).max() == 0
