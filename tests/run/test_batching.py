"""The global batch cut into equal parts that fit a device."""

import pytest

from swin_lab.errors import UserError
from swin_lab.run.batching import Batching, cut


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
def test_a_global_batch_is_cut_into_the_largest_equal_parts_within_the_limit(
    global_batch, devices, limit, device_batch, accumulate
):
    assert cut(global_batch, devices, limit) == Batching(global_batch, devices, device_batch, accumulate)


@pytest.mark.parametrize("devices", [1, 2, 3, 8])
@pytest.mark.parametrize("limit", [None, 1, 2, 7, 16, 100])
def test_parts_times_devices_times_accumulation_is_the_global_batch(devices, limit):
    for per_device in range(1, 65):
        parts = cut(per_device * devices, devices, limit)
        assert parts.devices * parts.device_batch * parts.accumulate == per_device * devices
        assert parts.device_batch <= (limit or per_device)


@pytest.mark.parametrize("limit", range(1, 25))
def test_no_cut_with_fewer_accumulation_steps_exists(limit):
    for per_device in range(1, 25):
        fitting = [size for size in range(1, limit + 1) if per_device % size == 0]
        assert cut(per_device, 1, limit).accumulate == per_device // max(fitting)


@pytest.mark.parametrize("prime", [2, 7, 127])
def test_a_prime_part_that_does_not_fit_is_accumulated_one_by_one(prime):
    assert cut(prime, 1, prime - 1) == Batching(prime, 1, 1, prime)


@pytest.mark.parametrize("prime", [2, 7, 127])
def test_a_prime_part_that_fits_stays_whole(prime):
    assert cut(4 * prime, 4, prime) == Batching(4 * prime, 4, prime, 1)


@pytest.mark.parametrize(
    ("global_batch", "devices", "nearest"), [(100, 8, "96 or 104"), (65, 2, "64 or 66"), (9, 4, "8 or 12")]
)
def test_a_batch_that_cannot_be_shared_brings_the_nearest_that_can(global_batch, devices, nearest):
    with pytest.raises(UserError, match=f"global_batch={global_batch} .* {devices} devices; the nearest are {nearest}"):
        cut(global_batch, devices, None)


def test_a_batch_smaller_than_the_devices_does_not_bring_zero():
    with pytest.raises(UserError, match=r"; the nearest (is|are) 4$"):
        cut(3, 4, None)


@pytest.mark.parametrize("value", [0, -8, 2.5, "64", True, float("nan")])
def test_a_global_batch_that_is_no_number_of_images_is_refused_by_name(value):
    with pytest.raises(UserError, match=f"^global_batch={value} "):
        cut(value, 1, None)


def test_a_missing_global_batch_is_refused_by_name():
    with pytest.raises(UserError, match="global_batch=None"):
        cut(None, 1, None)


@pytest.mark.parametrize("value", [0, -8, 2.5, "64", True])
def test_a_limit_that_is_no_number_of_images_is_refused_by_name(value):
    with pytest.raises(UserError, match=f"^max_device_batch={value} "):
        cut(64, 1, value)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((64, 1, None), "64 = 1 device x 64 images"),
        ((64, 2, None), "64 = 2 devices x 32 images"),
        ((64, 2, 16), "64 = 2 devices x 16 images x 2 accumulated"),
    ],
)
def test_the_cut_reads_as_a_product(arguments, text):
    assert str(cut(*arguments)) == text
