"""Splitting of the global batch into equal parts that fit a device."""

import pytest

from swin_lab.errors import UserError
from swin_lab.run.batching import Batching, split_batch


@pytest.mark.parametrize(
    ("global_batch", "devices", "limit", "device_batch", "accumulate"),
    [
        (64, 1, None, 64, 1),
        (1024, 8, 128, 128, 1),
        (1024, 8, 64, 64, 2),
        (1024, 1, 128, 128, 8),
        (64, 1, 1000, 64, 1),
        (96, 1, 40, 32, 3),
        (48, 2, 10, 8, 3),
        (1, 1, None, 1, 1),
        (64, 1, 1, 1, 64),
    ],
)
def test_a_global_batch_is_split_into_the_largest_equal_parts_within_the_limit(
    global_batch, devices, limit, device_batch, accumulate
):
    assert split_batch(global_batch, devices, limit) == Batching(global_batch, devices, device_batch, accumulate)


def split_or_none(*arguments):
    try:
        return split_batch(*arguments)
    except UserError:
        return None


@pytest.mark.parametrize(("global_batch", "devices", "limit"), [(1, 1, None), (4, 4, None), (64, 1, 1)])
def test_a_batch_of_one_image_cannot_be_mixed(global_batch, devices, limit):
    assert split_batch(global_batch, devices, limit).device_batch == 1
    with pytest.raises(UserError, match=r"mixing needs two images at once on a device, and global_batch is .*set mixing=none"):
        split_batch(global_batch, devices, limit, mixes=True)


@pytest.mark.parametrize("devices", [1, 2, 3, 8])
@pytest.mark.parametrize("limit", [None, 1, 2, 7, 16, 100])
def test_parts_times_devices_times_accumulation_is_the_global_batch(devices, limit):
    for per_device in range(1, 65):
        parts = split_or_none(per_device * devices, devices, limit)
        if parts is not None:
            assert parts.devices * parts.device_batch * parts.accumulate == per_device * devices
            assert parts.device_batch <= (limit or per_device)


@pytest.mark.parametrize("limit", range(1, 25))
def test_a_split_has_the_fewest_steps_or_is_refused_as_more_than_twice_the_necessary(limit):
    for per_device in range(1, 65):
        fewest = per_device // max(size for size in range(1, limit + 1) if per_device % size == 0)
        split = split_or_none(per_device, 1, limit)
        assert (split.accumulate if split else None) == (fewest if fewest <= 2 * -(-per_device // limit) else None)


@pytest.mark.parametrize(
    ("arguments", "steps", "nearest"),
    [
        ((34, 2, 16), "17 accumulated batches of 1", "32 or 36"),
        ((127, 1, 64), "127 accumulated batches of 1", "126 or 128"),
        ((2 * 17, 1, 16), "17 accumulated batches of 2", "33 or 35"),
    ],
)
def test_a_split_into_tiny_batches_is_refused_with_the_nearest_that_are_not(arguments, steps, nearest):
    """Batches of one image are slow, and mixup and CutMix have nothing to mix in them."""
    with pytest.raises(UserError, match=f"global_batch={arguments[0]} .* takes {steps}; .* {nearest}$") as refusal:
        split_batch(*arguments)
    for size in nearest.split(" or "):
        assert split_batch(int(size), *arguments[1:])
    assert str(refusal.value).count("\n") < 3


@pytest.mark.parametrize("prime", [2, 7, 127])
def test_a_prime_part_within_the_limit_is_not_split(prime):
    assert split_batch(4 * prime, 4, prime) == Batching(4 * prime, 4, prime, 1)


@pytest.mark.parametrize(
    ("global_batch", "devices", "nearest"), [(100, 8, "96 or 104"), (65, 2, "64 or 66"), (9, 4, "8 or 12")]
)
def test_a_batch_that_is_not_divisible_is_refused_with_the_nearest_that_are(global_batch, devices, nearest):
    with pytest.raises(UserError, match=f"global_batch={global_batch} .* {devices} devices; the nearest are {nearest}"):
        split_batch(global_batch, devices, None)


def test_for_a_batch_smaller_than_the_devices_zero_is_not_proposed():
    with pytest.raises(UserError, match=r"; the nearest (is|are) 4$"):
        split_batch(3, 4, None)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (-8, "-8"), (2.5, "2.5"), ("64", "'64'"), (True, "true"), (float("nan"), "nan"), (None, "null")],
)
def test_a_global_batch_that_is_not_a_positive_integer_is_refused_by_name(value, shown):
    with pytest.raises(UserError, match=f"^global_batch={shown} must be a positive integer$"):
        split_batch(value, 1, None)


@pytest.mark.parametrize(("value", "shown"), [(0, "0"), (-8, "-8"), (2.5, "2.5"), ("64", "'64'"), (True, "true")])
def test_a_limit_that_is_not_a_positive_integer_is_refused_by_name(value, shown):
    with pytest.raises(UserError, match=f"^max_device_batch={shown} must be a positive integer or null$"):
        split_batch(64, 1, value)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((64, 1, None), "64 = 1 device x 64 images"),
        ((64, 2, None), "64 = 2 devices x 32 images"),
        ((64, 2, 16), "64 = 2 devices x 16 images x 2 accumulated"),
    ],
)
def test_the_split_is_printed_as_a_product(arguments, text):
    assert str(split_batch(*arguments)) == text
