"""The metadata of a file: every field has its type, and a message names the file and the field."""

import copy
import json

import pytest
import torch

from swin_lab.errors import UserError
from swin_lab.metadata import Metadata

VALUES = {
    "format": 2,
    "version": "0.1.0",
    "model": {"_target_": "swin_lab.models.SwinTransformer", "depths": [2, 2]},
    "class_names": ["a", "b"],
    "preprocessing": {
        "img_size": [32, 32],
        "channels": 3,
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "resize_mode": "crop",
        "preset": None,
        "exif_orientation": True,
    },
    "run": {"precision": "32-true", "device_batch": 4, "config": {}},
}
FIELDS = [
    *((key,) for key in ("format", "model", "class_names", "preprocessing", "run")),
    *(("preprocessing", key) for key in VALUES["preprocessing"]),
    *(("run", key) for key in VALUES["run"]),
    ("model", "_target_"),
    ("class_names", 1),
]


def changed(path, value):
    values = copy.deepcopy(VALUES)
    part = values
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return values


def assert_refused(values, *parts):
    with pytest.raises(UserError) as refusal:
        Metadata.from_dict(values, "a.ckpt")
    message = str(refusal.value)
    assert len(message.splitlines()) <= 2
    for part in ("a.ckpt is damaged: ", *parts):
        assert part in message
    for internal in ("object", "argument", "NoneType", "attribute", "iterable"):
        assert internal not in message


@pytest.mark.parametrize("path", FIELDS, ids=lambda path: ".".join(map(str, path)))
@pytest.mark.parametrize("value", [True, -1.5, float("nan"), {"a": 1}, [[1]]], ids=str)
def test_a_value_of_another_type_is_refused_with_its_field(path, value):
    is_valid = (path == ("run", "config") and value == {"a": 1}) or (path[-1] == "exif_orientation" and value is True)
    if not is_valid:
        assert_refused(changed(path, value), str(path[0]))


def test_these_values_are_intact():
    metadata = Metadata.from_dict(VALUES, "a.ckpt")
    assert metadata.as_dict() == VALUES


def test_metadata_without_a_temperature_is_written_without_one_so_that_earlier_versions_read_it():
    calibrated = VALUES | {"calibration": {"temperature": 1.5, "images": "abc"}}
    assert "calibration" not in Metadata.from_dict(VALUES, "a.ckpt").as_dict()
    assert Metadata.from_dict(calibrated, "a.ckpt").as_dict() == calibrated


@pytest.mark.parametrize("where", [(), ("preprocessing",), ("run",)])
def test_an_unknown_key_is_named(where):
    assert_refused(changed((*where, "colour"), 1), "'colour'")


@pytest.mark.parametrize("key", [key for key in VALUES if key not in ("format", "version")])
def test_a_missing_key_is_named(key):
    assert_refused({name: value for name, value in VALUES.items() if name != key}, f"has no {key}")


@pytest.mark.parametrize(
    ("path", "value", "part"),
    [
        (("preprocessing", "crop_pct"), 1e-9, "crop_pct"),
        (("preprocessing", "std"), [1e-300] * 3, "metadata.preprocessing.std"),
        (("preprocessing", "img_size"), [10**6, 10**6], "pixels"),
        (("preprocessing", "mean"), [0.5], "3 numbers"),
        (("run", "device_batch"), 10**9, "device_batch"),
        (("run", "precision"), "transformer-engine", "precision"),
        (("class_names",), ["a\nb", "c"], "control character"),
        (("calibration",), {"temperature": 1e9, "images": ""}, "temperature"),
        (("calibration",), {"temperature": 2.0}, "metadata.calibration has no images"),
        (("model", "attention_backend"), "\x1b[2J", "control characters"),
        (("model", "x"), 10**5000, "more than 1000 digits"),
        (("model", "x"), "y" * 5000, "more than 4096 characters"),
        (("run", "config"), {"x": torch.zeros(1)}, "contains a Tensor"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isprintable() else "",
)
def test_values_without_bounds_are_refused(path, value, part):
    assert_refused(changed(path, value), part)


def nested(levels):
    """Returns lists that contain the same list twice, at every level: 2**levels values in little memory."""
    value = [1]
    for _ in range(levels):
        value = [value, value]
    return value


def test_metadata_that_grows_without_limit_is_refused():
    assert_refused(changed(("run", "config"), {"x": nested(30)}), "more than")


def test_metadata_that_contains_itself_is_refused():
    cycle = {}
    cycle["x"] = cycle
    assert_refused(changed(("run", "config"), cycle), "levels deep")


def test_a_number_in_json_that_is_none_is_refused():
    text = json.dumps(changed(("preprocessing", "mean"), [float("nan")] * 3))
    assert_refused(json.loads(text), "metadata.preprocessing.mean")
