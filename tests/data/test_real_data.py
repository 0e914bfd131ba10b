"""Real data in ../shared/data; the tests are skipped where that folder does not exist, as in a user's clone."""

from pathlib import Path

import numpy as np
import pytest
from layouts import decoded

from swin_lab.data import Folder, Parquet
from swin_lab.data.decoding import decode
from swin_lab.errors import UserError

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
CIFAR = DATA / "cifar10"
SAMPLE = DATA / "imagenet-sample" / "val"

with_cifar = pytest.mark.skipif(not CIFAR.is_dir(), reason=f"no CIFAR-10 parquet files at {CIFAR}")
with_sample = pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"no ImageNet images at {SAMPLE}")


@pytest.fixture(scope="module")
def cifar():
    return Parquet(str(CIFAR))


@with_cifar
def test_cifar10_has_50000_training_and_10000_test_images(cifar):
    assert (len(cifar.train.labels), len(cifar.val.labels)) == (50_000, 10_000)


@with_cifar
def test_cifar10_classes_have_their_names_and_equally_many_images(cifar):
    assert cifar.class_names == ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    assert np.bincount(cifar.train.labels).tolist() == [5000] * 10
    assert np.bincount(cifar.val.labels).tolist() == [1000] * 10


@with_cifar
@pytest.mark.parametrize("index", [0, 4_999, 9_999])
def test_a_cifar10_image_is_rgb_of_32_by_32(cifar, index):
    image = decoded(cifar.val, index)
    assert (image.mode, image.size) == ("RGB", (32, 32))


@with_sample
def test_one_image_per_class_cannot_be_split_and_the_message_says_what_would_help():
    with pytest.raises(UserError, match=r"500 images cannot be split .* more images per class"):
        Folder(str(SAMPLE), val_fraction=0.1)


@with_sample
def test_the_same_tree_as_training_and_validation_set_is_500_classes(tmp_path):
    for name in ("train", "val"):
        (tmp_path / name).symlink_to(SAMPLE)
    source = Folder(str(tmp_path))
    assert len(source.class_names) == 500
    assert source.val.labels.tolist() == list(range(500))


@with_sample
def test_all_500_imagenet_images_become_rgb():
    files = sorted(SAMPLE.rglob("*.JPEG"))
    assert len(files) == 500
    assert {decode(file.read_bytes()).mode for file in files} == {"RGB"}
