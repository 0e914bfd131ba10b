"""ReaL labels of ImageNet's validation images, found by file name: against timm's own reading of them."""

import numpy as np
import pytest
from timm.data import RealLabelsImagenet

from swin_lab.data.images import ArrayImages
from swin_lab.data.real import real_labels
from swin_lab.errors import UserError

COUNT = 50_000


class NamedImages(ArrayImages):
    """Images that nobody looks at."""

    def __init__(self, names):
        super().__init__(np.zeros((len(names), 1, 1, 3), dtype=np.uint8), np.zeros(len(names), dtype=np.int64), "")
        self.names = names

    def name(self, index):
        return self.names[index]


def file_name(number):
    return f"ILSVRC2012_val_{number:08d}.JPEG"


@pytest.fixture(scope="module")
def of_timm():
    return RealLabelsImagenet([file_name(number) for number in range(1, COUNT + 1)]).real_labels


def told(numbers):
    """The classes of each image, without what fills the table up."""
    table = real_labels(NamedImages([file_name(number) for number in numbers]), 1000)
    return [[label for label in row if label >= 0] for row in table.tolist()]


def test_labels_are_those_of_timm(of_timm):
    numbers = [1, 2, 3, 1000, 31415, COUNT]
    assert told(numbers) == [of_timm[file_name(number)] for number in numbers]


def test_labels_of_all_images_in_any_order_are_those_of_timm(of_timm):
    numbers = np.random.default_rng(0).permutation(COUNT) + 1
    assert told(numbers) == [of_timm[file_name(number)] for number in numbers]


def test_the_table_is_as_wide_as_the_image_with_most_classes(of_timm):
    most = max(range(1, COUNT + 1), key=lambda number: len(of_timm[file_name(number)]))
    width = len(of_timm[file_name(most)])
    table = real_labels(NamedImages([file_name(1), file_name(most)]), 1000)
    assert table.shape == (2, width)
    assert width > 1
    assert (table[1] >= 0).all()


def test_a_image_without_classes_is_a_row_of_minus_ones(of_timm):
    without = next(number for number in range(1, COUNT + 1) if not of_timm[file_name(number)])
    assert real_labels(NamedImages([file_name(without)]), 1000).tolist() == [[-1]]


def test_a_set_without_images_has_an_empty_table():
    assert real_labels(NamedImages([]), 1000).shape == (0, 1)


@pytest.mark.parametrize(
    "name",
    ["/data/val/n01440764/{}", "/data/val.zip@/n01440764/{}", "/data/val-000000.tar@/n01440764/{}", "{}"],
)
def test_a_image_is_known_wherever_it_lies(of_timm, name):
    table = real_labels(NamedImages([name.format(file_name(7))]), 1000)
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
def test_a_name_that_does_not_tell_which_image_it_is_is_refused(name):
    with pytest.raises(UserError, match=rf"real=true goes by file names like ILSVRC2012_val_00000001\.JPEG; {name} is none"):
        real_labels(NamedImages([file_name(1), name]), 1000)


@pytest.mark.parametrize("num_classes", [10, 999, 21841])
def test_other_numbers_of_classes_are_refused(num_classes):
    with pytest.raises(UserError, match=f"real=true is for the 1000 classes of ImageNet-1k; the data has {num_classes}"):
        real_labels(NamedImages([file_name(1)]), num_classes)


def test_a_timm_without_these_labels_is_told_with_what_helps(monkeypatch):
    monkeypatch.setattr("swin_lab.data.real.pkgutil.get_data", lambda package, file: None)
    with pytest.raises(UserError, match="install a newer timm"):
        real_labels(NamedImages([file_name(1)]), 1000)
