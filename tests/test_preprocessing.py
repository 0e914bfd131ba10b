"""Preprocessing: its values are checked, and it survives a checkpoint."""

import json

import pytest

from swin_lab.errors import UserError
from swin_lab.preprocessing import Preprocessing


def preprocessing(**changes):
    values = {"img_size": (32, 32), "channels": 3, "crop_pct": 1.0, "interpolation": "bicubic"}
    return Preprocessing.for_data(**values | {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.5]} | changes)


def test_rgb_statistics_are_averaged_for_a_greyscale_network():
    grey = preprocessing(channels=1, mean=[0.1, 0.2, 0.6], std=[0.2, 0.2, 0.5])
    assert grey.mean == pytest.approx((0.3,))
    assert grey.std == pytest.approx((0.3,))


def test_preprocessing_survives_a_checkpoint():
    made = preprocessing(img_size=(24, 48), crop_pct=0.9)
    assert Preprocessing.from_dict(json.loads(json.dumps(made.as_dict()))) == made


def test_a_file_that_does_not_mention_the_exif_orientation_was_written_when_all_images_were_rotated():
    stored = preprocessing(preset="official", exif_orientation=False).as_dict()
    del stored["exif_orientation"]
    assert Preprocessing.from_dict(stored).exif_orientation


def test_preprocessing_as_a_dict_is_plain_python():
    values = preprocessing(mean=(0.5, 0.4, 0.3)).as_dict()
    flat = [x for value in values.values() for x in (value if isinstance(value, list) else [value])]
    assert {type(x) for x in flat} == {int, float, str, bool, type(None)}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"channels": 4}, "in_channels=4"),
        ({"crop_pct": 0}, "crop_pct=0 must be a number above 0 and at most 1"),
        ({"crop_pct": 1.1}, r"crop_pct=1\.1"),
        ({"crop_pct": "most"}, "crop_pct=most"),
        ({"interpolation": "bicubik"}, "did you mean bicubic"),
        ({"interpolation": None}, "interpolation=null"),
        ({"mean": [0.5, 0.5]}, "data.mean"),
        ({"mean": 0.5}, r"data.mean=0\.5"),
        ({"mean": [123.7, 116.3, 103.5]}, "data.mean"),  # of values from 0 to 255
        ({"std": [0.2, 0.0, 0.2]}, "data.std"),
        ({"std": [0.2]}, "data.std"),
        ({"exif_orientation": "no"}, "data.exif_orientation=no must be true or false"),
        ({"resize_mode": "squeeze"}, "data.resize_mode=squeeze is unknown; choose one of crop, stretch"),
    ],
    ids=str,
)
def test_an_invalid_value_is_rejected_by_name(wrong, message):
    with pytest.raises(UserError, match=message):
        preprocessing(**wrong)
