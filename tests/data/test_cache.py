"""Small sets that are decoded once and cached in memory: the same images, or the set stays on the disk."""

import numpy as np
import pytest
from layouts import decoded, same, write_folders
from PIL import Image
from test_datamodule import delivered, epoch, image_data

from swin_lab.data import Folder, Synthetic, fingerprint
from swin_lab.data.cache import CachedImages, cached_in_memory


@pytest.fixture
def folder(tmp_path):
    return write_folders(tmp_path)


class CountedImages:
    """Images of a given (width, height) that count how often they are read."""

    def __init__(self, count, size):
        self.labels = np.zeros(count, dtype=np.int64)
        self.size = size
        self.reads = 0

    def encoded(self, index):
        self.reads += 1
        return np.asarray(Image.new("RGB", self.size, (index, 0, 0)))

    def name(self, index):
        return f"image {index}"


def test_images_and_labels_stay_the_same(folder):
    cached = cached_in_memory(folder.train, 1)
    assert isinstance(cached, CachedImages)
    assert same(cached, folder.train)


def test_names_stay_the_same(folder):
    cached = cached_in_memory(folder.train, 1)
    assert [cached.name(i) for i in range(9)] == [folder.train.name(i) for i in range(9)]


def test_a_set_stays_the_same_by_its_fingerprint(folder):
    assert fingerprint(cached_in_memory(folder.train, 1)) == fingerprint(folder.train)


def test_an_image_is_decoded_once_however_often_it_is_used():
    images = CountedImages(3, (4, 4))
    cached = cached_in_memory(images, 1)
    after = images.reads
    for _ in range(3):
        assert [decoded(cached, i).getpixel((0, 0))[0] for i in range(3)] == [0, 1, 2]
    assert images.reads == after


def test_files_are_not_needed_any_more(folder, tmp_path):
    cached = cached_in_memory(folder.train, 1)
    for file in tmp_path.rglob("*.jpg"):
        file.unlink()
    assert decoded(cached, 3).size == (6, 4)


@pytest.mark.parametrize("index", [0, 4, 8])
def test_images_of_several_sizes_stay_on_the_disk(folder, index):
    Image.new("RGB", (4, 6)).save(folder.train.name(index))  # the same number of pixels, in portrait format
    assert cached_in_memory(folder.train, 1) is folder.train


@pytest.mark.parametrize("index", [0, 4, 8])
def test_a_set_with_an_unreadable_image_stays_on_the_disk(folder, index, tmp_path):
    file = tmp_path / "train" / folder.train.files[index]
    file.write_bytes(file.read_bytes()[:100])
    assert cached_in_memory(folder.train, 1) is folder.train


def test_images_that_just_fit_into_the_limit_are_cached():
    assert isinstance(cached_in_memory(CountedImages(4, (512, 512)), 3), CachedImages)  # 4 * 512 * 512 * 3 bytes are 3 MiB


def test_images_above_the_limit_stay_on_the_disk_and_are_not_all_read():
    images = CountedImages(5, (512, 512))
    assert cached_in_memory(images, 3) is images
    assert images.reads == 1


def test_a_limit_of_zero_caches_nothing(folder):
    assert cached_in_memory(folder.train, 0) is folder.train


def test_images_in_memory_are_not_copied():
    train = Synthetic(num_classes=2, train_images=4, val_images=2, img_size=4).train
    assert cached_in_memory(train, 1) is train


def test_a_set_without_images_is_not_cached():
    images = CountedImages(0, (4, 4))
    assert cached_in_memory(images, 1) is images


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_sees_the_same_images_from_the_cache_and_from_the_disk(folder, workers):
    for images in (epoch, lambda data: delivered(data)[0][0]):
        cached, uncached = (images(image_data(folder, num_workers=workers, cache_mib=mib)) for mib in (512, 0))
        assert cached.equal(uncached)


def test_images_from_png_files_with_transparency_are_cached_on_white(tmp_path):
    for name in "ab":
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(tmp_path / "train" / name / "1.png")
    train = Folder(str(tmp_path / "train"), val_only=True).val
    assert np.unique(np.asarray(decoded(cached_in_memory(train, 1), 0))).tolist() == [255]
