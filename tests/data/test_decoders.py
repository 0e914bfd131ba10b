"""Decoders of optional packages: the pixels, the errors and the orientation of Pillow."""

from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, TINY, Command
from PIL import Image

from swin_lab.data.decoders import PACKAGES, JpegDecoder, build_decoder
from swin_lab.data.decoding import UNREADABLE, decode
from swin_lab.preprocessing import Preprocessing

REAL = ROOT.parent / "shared" / "data" / "imagenet-sample" / "val"
PHOTOGRAPH = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 61, 3), dtype=np.uint8))


@pytest.fixture(params=["simplejpeg", "torchcodec", "nvimgcodec"])
def fast(request):
    if any(find_spec(module) is None for module in PACKAGES[request.param][1]):
        pytest.skip(f"{request.param} is not installed")

    def build(exif_orientation=True):
        values = {"channels": 3, "crop_pct": 1.0, "interpolation": "bicubic", "mean": (0.5,) * 3, "std": (0.5,) * 3}
        return build_decoder(Preprocessing(img_size=(8, 8), **values, exif_orientation=exif_orientation), request.param)

    return build


def encoded(image, kind="JPEG", **options):
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def assert_same(decoder, content, exif_orientation=True):
    ours, pillow = decoder(content), decode(content, exif_orientation)
    assert ours.mode == pillow.mode == "RGB"
    assert np.array_equal(np.asarray(ours), np.asarray(pillow))


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real images of {REAL} are absent")
def test_real_photographs_have_the_pixels_of_pillow(fast):
    """100 of them; the accurate DCT of libjpeg-turbo is deterministic, so the difference is bounded by 0."""
    for file in sorted(REAL.rglob("*.JPEG"))[::5]:
        assert_same(fast(), file.read_bytes())


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
def test_every_kind_of_colour_jpeg_has_the_pixels_of_pillow(fast, subsampling, progressive):
    assert_same(fast(), encoded(PHOTOGRAPH, subsampling=subsampling, progressive=progressive))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_jpegs_of_other_modes_are_left_to_pillow(fast, mode):
    assert_same(fast(), encoded(PHOTOGRAPH.convert(mode)))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_other_formats_are_left_to_pillow(fast, kind):
    assert_same(fast(), encoded(PHOTOGRAPH, kind))


def test_an_array_is_wrapped_unchanged(fast):
    assert_same(fast(), np.asarray(PHOTOGRAPH))


@pytest.mark.parametrize("exif_orientation", [True, False])
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_exif_orientation_is_applied_if_it_is_wanted(fast, orientation, exif_orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert_same(fast(exif_orientation), encoded(PHOTOGRAPH, exif=exif), exif_orientation)


def test_an_upright_file_with_exif_is_decoded_by_the_package():
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    marked = JpegDecoder(lambda content: Image.new("RGB", (1, 1)), True)
    assert marked(encoded(PHOTOGRAPH, exif=exif)).size == marked(encoded(PHOTOGRAPH)).size == (1, 1)


@pytest.mark.parametrize("kept", [0.01, 0.2, 0.6, 0.95])
def test_a_truncated_file_raises_the_error_of_pillow(fast, kept):
    content = encoded(PHOTOGRAPH)
    messages = []
    for decoder in (fast(), decode):
        with pytest.raises(UNREADABLE) as raised:
            decoder(content[: int(len(content) * kept)])
        messages.append((raised.type, str(raised.value)))
    assert messages[0] == messages[1]


def test_a_file_that_is_no_image_raises_the_error_of_pillow(fast):
    with pytest.raises(UNREADABLE, match="the bytes are not an image of a known format"):
        fast()(b"\xff\xd8 no image")


def test_a_decompression_bomb_is_unreadable(fast, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UNREADABLE):
        fast()(encoded(PHOTOGRAPH))


def test_no_damage_gives_another_image_or_another_kind_of_error_than_with_pillow(fast):
    generator, complete = np.random.default_rng(0), encoded(PHOTOGRAPH)
    for _ in range(150):
        damaged = bytearray(complete)
        for position in generator.integers(0, len(damaged), generator.choice([1, 3, 10])):
            damaged[position] = generator.integers(256)
        try:
            expected = np.asarray(decode(bytes(damaged)))
        except UNREADABLE:
            with pytest.raises(UNREADABLE):
                fast()(bytes(damaged))
        else:
            assert np.array_equal(np.asarray(fast()(bytes(damaged))), expected)


def test_a_file_that_the_package_refuses_is_left_to_pillow():
    def refuse(content):
        raise ValueError("strange marker")

    assert_same(JpegDecoder(refuse, True), encoded(PHOTOGRAPH))


@pytest.mark.parametrize(
    ("name", "package"), [("simplejpeg", "simplejpeg"), ("nvimgcodec", "nvidia-nvimgcodec-cu13 (Linux only)")]
)
def test_a_decoder_that_is_not_installed_is_refused_with_the_command_that_installs_it(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, package: str
) -> None:
    monkeypatch.setattr("swin_lab.data.decoders.find_spec", lambda name: None)
    outcome = command("train", *TINY, f"data.decoder={name}")
    assert outcome.code == 2
    assert f"data.decoder={name} needs {package} and" in outcome.err
    assert "pip install 'swin-lab[decoders]'" in outcome.err
    assert not (tmp_path / "runs").exists()


def test_an_unknown_decoder_is_refused(command: Command) -> None:
    outcome = command("train", *TINY, "data.decoder=opencv")
    assert outcome.code == 2
    assert "data.decoder=opencv is unknown; choose one of nvimgcodec, pillow, simplejpeg, torchcodec" in outcome.err
