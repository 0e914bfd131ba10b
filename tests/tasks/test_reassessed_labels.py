"""ReaL labels of ImageNet's validation images, found by file name, compared with timm's reader."""

import numpy as np
import pytest
from timm.data import RealLabelsImagenet

from swin_lab.errors import UserError
from swin_lab.tasks.reassessed import reassessed_labels
from swin_lab.training import DataDescription

COUNT = 50_000


def table_of(names, num_classes=1000):
    classes = tuple(map(str, range(num_classes)))
    data = DataDescription(class_names=classes, num_val_images=len(names), val_image_name=names.__getitem__)
    return reassessed_labels(data)


def file_name(number):
    return f"ILSVRC2012_val_{number:08d}.JPEG"


@pytest.fixture(scope="module")
def of_timm():
    return RealLabelsImagenet([file_name(number) for number in range(1, COUNT + 1)]).real_labels


def labels_of(numbers):
    """Returns the classes of each image without the padding of the table."""
    table = table_of([file_name(number) for number in numbers])
    return [[label for label in row if label >= 0] for row in table.tolist()]


def test_labels_are_those_of_timm(of_timm):
    numbers = [1, 2, 3, 1000, 31415, COUNT]
    assert labels_of(numbers) == [of_timm[file_name(number)] for number in numbers]


def test_labels_of_all_images_in_any_order_are_those_of_timm(of_timm):
    numbers = np.random.default_rng(0).permutation(COUNT) + 1
    assert labels_of(numbers) == [of_timm[file_name(number)] for number in numbers]


def test_the_table_is_as_wide_as_the_image_with_most_classes(of_timm):
    most = max(range(1, COUNT + 1), key=lambda number: len(of_timm[file_name(number)]))
    width = len(of_timm[file_name(most)])
    table = table_of([file_name(1), file_name(most)])
    assert table.shape == (2, width)
    assert width > 1
    assert (table[1] >= 0).all()


def test_an_image_without_classes_is_a_row_of_minus_ones(of_timm):
    without = next(number for number in range(1, COUNT + 1) if not of_timm[file_name(number)])
    assert table_of([file_name(without)]).tolist() == [[-1]]


def test_a_set_without_images_has_an_empty_table():
    assert table_of([]).shape == (0, 1)


@pytest.mark.parametrize(
    "name",
    ["/data/val/n01440764/{}", "/data/val.zip@/n01440764/{}", "/data/val-000000.tar@/n01440764/{}", "{}"],
)
def test_an_image_is_found_by_its_file_name_in_any_folder(of_timm, name):
    table = table_of([name.format(file_name(7))])
    assert table[0].tolist() == of_timm[file_name(7)]


@pytest.mark.parametrize(
    "name",
    [
        "/data/train/n01440764/n01440764_10026.JPEG",
        "val.parquet row 3",
        "ILSVRC2012_val_00000000.JPEG",
        "ILSVRC2012_val_00050001.JPEG",
        "ILSVRC2012_val_17.JPEG",
        "ILSVRC2012_test_00000001.JPEG",
    ],
)
def test_a_file_name_that_does_not_identify_the_image_is_refused(name):
    with pytest.raises(UserError, match=rf"needs file names like ILSVRC2012_val_00000001\.JPEG, not {name}"):
        table_of([file_name(1), name])


@pytest.mark.parametrize("num_classes", [10, 999, 21841])
def test_other_numbers_of_classes_are_refused(num_classes):
    with pytest.raises(
        UserError, match=f"task.real_labels=true needs the 1000 classes of ImageNet-1k; the data has {num_classes}"
    ):
        table_of([file_name(1)], num_classes)


def test_a_timm_without_these_labels_is_refused_with_the_next_step(monkeypatch):
    monkeypatch.setattr("swin_lab.tasks.reassessed.pkgutil.get_data", lambda package, file: None)
    with pytest.raises(UserError, match="install a newer timm"):
        table_of([file_name(1)])
