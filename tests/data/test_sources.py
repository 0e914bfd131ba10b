"""Sources that need no folder of images: the digits, the random patterns, and CIFAR in torchvision's files."""

import hashlib
import pickle
import urllib.request
from urllib.error import URLError

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100

from swin_lab.data import Cifar, Digits, Synthetic
from swin_lab.errors import UserError


@pytest.fixture(scope="module")
def digits():
    return Digits()


def as_set(images):
    """Each image's bytes."""
    return {image.tobytes() for image in images.images}


def test_the_digits_are_1437_scans_to_train_on_and_360_held_out(digits):
    assert (len(digits.train.labels), len(digits.val.labels)) == (1437, 360)


def test_there_are_ten_digits_named_0_to_9(digits):
    assert digits.class_names == list("0123456789")
    assert set(digits.train.labels) == set(digits.val.labels) == set(range(10))


def test_every_digit_is_held_out_in_the_same_proportion(digits):
    train, val = np.bincount(digits.train.labels), np.bincount(digits.val.labels)
    assert np.abs(val - 0.2 * (train + val)).max() < 1  # to the image


def test_a_digit_is_a_grey_rgb_image_of_32_by_32(digits):
    image = digits.train.image(0)
    assert (image.mode, image.size) == ("RGB", (32, 32))
    assert (np.asarray(image)[..., 0] == np.asarray(image)[..., 2]).all()


def test_the_digits_use_the_whole_range_of_greys(digits):
    assert digits.train.images.min() == 0
    assert digits.train.images.max() == 255


def test_no_digit_is_both_trained_on_and_held_out(digits):
    assert not as_set(digits.train) & as_set(digits.val)


def test_labels_stay_with_their_scans(digits):
    from sklearn.datasets import load_digits

    scans, labels = load_digits(return_X_y=True)
    by_scan = {scan.tobytes(): label for scan, label in zip((scans / 16 * 255).round().astype(np.uint8), labels, strict=True)}
    small = Digits(img_size=8)
    assert all(
        by_scan[image[..., 0].tobytes()] == label for image, label in zip(small.val.images, small.val.labels, strict=True)
    )


def test_the_same_split_seed_holds_out_the_same_digits(digits):
    assert (Digits(split_seed=0).val.images == digits.val.images).all()


def test_another_split_seed_holds_out_other_digits(digits):
    assert as_set(Digits(split_seed=1).val) != as_set(digits.val)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_a_fraction_that_is_no_part_is_refused(fraction):
    with pytest.raises(UserError, match=r"data\.val_fraction="):
        Digits(val_fraction=fraction)


def test_synthetic_images_have_the_wanted_numbers_and_size():
    source = Synthetic(num_classes=3, train_images=7, val_images=5, img_size=10)
    assert source.train.images.shape == (7, 10, 10, 3)
    assert source.val.images.shape == (5, 10, 10, 3)
    assert len(source.class_names) == 3


def test_synthetic_classes_come_in_turn():
    assert Synthetic(num_classes=3, train_images=7, val_images=5).train.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_synthetic_images_look_like_their_class():
    source = Synthetic(num_classes=4, train_images=400, val_images=40, img_size=16)
    means = np.stack([source.train.images[source.train.labels == label].mean(axis=0) for label in range(4)])
    distances = ((source.val.images[:, None] - means) ** 2).sum(axis=(2, 3, 4))
    assert (distances.argmin(axis=1) == source.val.labels).all()


def test_synthetic_images_depend_on_the_seed_alone():
    same, other = Synthetic(train_images=9, val_images=9), Synthetic(train_images=9, val_images=9, split_seed=1)
    assert (Synthetic(train_images=9, val_images=9).train.images == same.train.images).all()
    assert (other.train.images != same.train.images).any()


@pytest.mark.parametrize("wrong", [{"num_classes": 0}, {"train_images": 0}, {"val_images": -1}, {"img_size": 3}])
def test_a_synthetic_set_that_cannot_be_is_refused_by_name(wrong):
    with pytest.raises(UserError, match=rf"data\.{next(iter(wrong))}={next(iter(wrong.values()))}"):
        Synthetic(**wrong)


def write(file, content):
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(pickle.dumps(content))
    return [file.name, hashlib.md5(file.read_bytes()).hexdigest()]


def chance_images(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    """Six training and four test images in the files that torchvision reads."""
    top = tmp_path / CIFAR10.base_folder
    train = [write(top / f"data_batch_{i}", {"data": chance_images(3, i).reshape(3, -1), "labels": [i, 9, 4]}) for i in (1, 2)]
    test = [write(top / "test_batch", {"data": chance_images(4, 5).reshape(4, -1), "labels": [0, 1, 2, 3]})]
    _, meta = write(top / "batches.meta", {"label_names": [f"name {i}" for i in range(10)]})
    for name, value in (("train_list", train), ("test_list", test), ("meta", CIFAR10.meta | {"md5": meta})):
        monkeypatch.setattr(CIFAR10, name, value)
    return tmp_path


@pytest.fixture
def no_network(monkeypatch):
    def unreachable(*_args, **_kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)


def test_cifar_reads_training_and_test_files_where_they_are(cifar10, no_network):
    source = Cifar("cifar10", str(cifar10), download=True)
    assert source.train.labels.tolist() == [1, 9, 4, 2, 9, 4]
    assert source.val.labels.tolist() == [0, 1, 2, 3]
    assert source.class_names == [f"name {i}" for i in range(10)]


def test_a_cifar_image_is_rgb_with_rows_and_columns_in_place(cifar10):
    image = Cifar("cifar10", str(cifar10), download=False).train.image(4)
    assert (np.asarray(image) == chance_images(3, 2)[1].transpose(1, 2, 0)).all()


def test_cifar100_has_the_fine_classes(tmp_path, monkeypatch):
    top = tmp_path / CIFAR100.base_folder
    batch = {"data": chance_images(2, 0).reshape(2, -1), "fine_labels": [99, 3], "coarse_labels": [1, 2]}
    monkeypatch.setattr(CIFAR100, "train_list", [write(top / "train", batch)])
    monkeypatch.setattr(CIFAR100, "test_list", [write(top / "test", batch)])
    _, meta = write(top / "meta", {"fine_label_names": [f"fine {i}" for i in range(100)]})
    monkeypatch.setattr(CIFAR100, "meta", CIFAR100.meta | {"md5": meta})
    source = Cifar("cifar100", str(tmp_path), download=False)
    assert source.train.labels.tolist() == [99, 3]
    assert source.class_names[99] == "fine 99"


@pytest.mark.parametrize("download", [False, True])
@pytest.mark.parametrize(("variant", "kind"), [("cifar10", CIFAR10), ("cifar100", CIFAR100)])
def test_missing_cifar_files_offline_name_the_folder_and_the_address(tmp_path, no_network, variant, kind, download):
    with pytest.raises(UserError) as raised:
        Cifar(variant, str(tmp_path / "none"), download)
    assert str(tmp_path / "none") in str(raised.value)
    assert kind.base_folder in str(raised.value)
    assert kind.url in str(raised.value)
    assert len(str(raised.value).splitlines()) <= 3


@pytest.mark.parametrize("download", [False, True])
def test_a_damaged_cifar_file_is_refused(cifar10, no_network, download):
    file = cifar10 / CIFAR10.base_folder / "data_batch_2"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(UserError, match="cifar10"):
        Cifar("cifar10", str(cifar10), download)


def test_an_unknown_variant_brings_the_nearest(tmp_path):
    with pytest.raises(UserError, match="did you mean cifar10"):
        Cifar("cifar-10", str(tmp_path))
