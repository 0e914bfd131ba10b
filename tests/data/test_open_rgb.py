"""Images of every mode that data sets hold arrive as upright RGB with the right pixels, or not at all."""

import random
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from swin_lab.data.images import UNREADABLE, open_rgb


def encoded(image, kind="PNG", **options):
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(file):
    image = open_rgb(file)
    assert image.mode == "RGB"
    return np.asarray(image)


def grey(values):
    """Each value in three equal channels: what a row of greys must look like as RGB."""
    return np.repeat(np.asarray(values, dtype=np.uint8)[None, :, None], 3, axis=2)


def photograph(height=24, width=20):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


SIXTEEN_BITS = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
THEIR_HIGH_BYTES = grey([0, 0, 1, 128, 255])


def test_an_rgb_image_keeps_every_pixel():
    assert (pixels(encoded(photograph())) == np.asarray(photograph())).all()


def test_a_file_and_its_bytes_give_the_same_image(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(photograph()))
    assert (pixels(tmp_path / "a.png") == pixels(encoded(photograph()))).all()


def test_8_bit_grey_becomes_three_equal_channels():
    row = np.array([[0, 1, 127, 255]], dtype=np.uint8)
    assert (pixels(encoded(Image.fromarray(row))) == grey(row[0])).all()


def test_16_bit_grey_png_is_scaled_and_not_clipped():
    assert (pixels(encoded(Image.fromarray(SIXTEEN_BITS))) == THEIR_HIGH_BYTES).all()


@pytest.mark.parametrize(("mode", "byte_order"), [("I;16", "<u2"), ("I;16B", ">u2")])
def test_16_bit_grey_tiff_of_either_byte_order_is_scaled_and_not_clipped(mode, byte_order):
    tiff = encoded(Image.frombytes(mode, (5, 1), SIXTEEN_BITS.astype(byte_order).tobytes()), "TIFF")
    assert (pixels(tiff) == THEIR_HIGH_BYTES).all()


def test_16_bit_values_held_in_32_bits_are_scaled_and_not_clipped():
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


STORED = {  # EXIF 2.32, tag 0x0112: how an upright array lies in a file of each orientation
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
def test_a_image_is_turned_as_its_exif_orientation_says(orientation, kind):
    upright = np.asarray(photograph())
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    assert (pixels(encoded(stored, kind, exif=exif)) == upright).all()


def test_a_phone_s_jpeg_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the phone held upright
    sideways = Image.new("RGB", (32, 16), "black")
    sideways.paste("white", (0, 0, 16, 16))  # stored left is seen at the top
    seen = pixels(encoded(sideways, "JPEG", quality=95, exif=exif))
    assert seen.shape == (32, 16, 3)
    assert seen[:16].min() > 250
    assert seen[16:].max() < 5


def test_an_animation_is_its_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    gif = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (pixels(gif) == [255, 0, 0]).all()


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.95])
def test_a_jpeg_that_ends_too_early_is_unreadable(kept):
    whole = encoded(photograph(64, 64), "JPEG")
    with pytest.raises(UNREADABLE):
        open_rgb(whole[: int(len(whole) * kept)])


def test_a_png_that_ends_too_early_is_unreadable():
    whole = encoded(photograph(64, 64))
    with pytest.raises(UNREADABLE):
        open_rgb(whole[: len(whole) // 2])


@pytest.mark.parametrize("content", [b"", b"This is no image.\n" * 100], ids=["empty", "text"])
def test_a_file_that_is_no_image_is_unreadable(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UNREADABLE):
        open_rgb(tmp_path / "a.jpg")


def test_a_file_that_has_gone_is_unreadable(tmp_path):
    with pytest.raises(UNREADABLE):
        open_rgb(tmp_path / "gone.jpg")


def test_a_image_that_would_fill_the_memory_is_unreadable(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UNREADABLE):
        open_rgb(encoded(photograph()))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP"])
@pytest.mark.filterwarnings("ignore")  # Pillow's own about strange headers
def test_no_damage_to_a_file_raises_anything_else_than_unreadable(kind):
    chance, whole = random.Random(0), encoded(photograph(), kind)
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(chance.choice([1, 3, 10])):
            damaged[chance.randrange(min(len(damaged), 400))] = chance.randrange(256)
        try:
            image = open_rgb(bytes(damaged))
        except UNREADABLE:
            continue
        assert image.mode == "RGB"
