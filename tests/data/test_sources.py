"""Sources without a folder of images (digits, random patterns, CIFAR), and the annotated arguments of all sources."""

import hashlib
import inspect
import pickle
import re
import urllib.request
from urllib.error import URLError

import numpy as np
import pytest
from layouts import decoded
from torchvision.datasets import CIFAR10, CIFAR100

from swin_lab.data import Cifar, Digits, Synthetic, sources
from swin_lab.errors import UserError
from swin_lab.validation import check_value, type_hints


@pytest.fixture(scope="module")
def digits():
    return Digits()


def as_set(images):
    """Returns the bytes of each image."""
    return {image.tobytes() for image in images.images}


def test_the_digits_are_1437_training_and_360_validation_scans(digits):
    assert (len(digits.train.labels), len(digits.val.labels)) == (1437, 360)


def test_there_are_ten_digits_named_0_to_9(digits):
    assert digits.class_names == list("0123456789")
    assert set(digits.train.labels) == set(digits.val.labels) == set(range(10))


def test_every_digit_is_split_in_the_same_proportion(digits):
    train, val = np.bincount(digits.train.labels), np.bincount(digits.val.labels)
    assert np.abs(val - 0.2 * (train + val)).max() < 1  # up to one image


def test_a_digit_is_a_grey_rgb_image_of_32_by_32(digits):
    image = decoded(digits.train, 0)
    assert (image.mode, image.size) == ("RGB", (32, 32))
    assert (np.asarray(image)[..., 0] == np.asarray(image)[..., 2]).all()


def test_the_digits_use_the_whole_range_of_greys(digits):
    assert digits.train.images.min() == 0
    assert digits.train.images.max() == 255


def test_no_digit_is_in_both_sets(digits):
    assert not as_set(digits.train) & as_set(digits.val)


def test_labels_stay_with_their_scans(digits):
    from sklearn.datasets import load_digits

    scans, labels = load_digits(return_X_y=True)
    by_scan = {scan.tobytes(): label for scan, label in zip((scans / 16 * 255).round().astype(np.uint8), labels, strict=True)}
    small = Digits(img_size=8)
    assert all(
        by_scan[image[..., 0].tobytes()] == label for image, label in zip(small.val.images, small.val.labels, strict=True)
    )


def test_the_same_split_seed_gives_the_same_split(digits):
    assert (Digits(split_seed=0).val.images == digits.val.images).all()


def test_another_split_seed_gives_another_split(digits):
    assert as_set(Digits(split_seed=1).val) != as_set(digits.val)


def test_synthetic_images_have_the_configured_numbers_and_size():
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


@pytest.mark.parametrize(
    ("source", "key", "value", "message"),
    [
        ("Cifar", "variant", "cifar-10", "data.variant=cifar-10 is unknown; did you mean cifar10?"),
        ("Cifar", "download", "no", "data.download=no must be true or false"),
        ("Digits", "img_size", 0, "data.img_size=0 must be an integer of at least 1 and at most 256"),
        ("Digits", "val_fraction", 1, "data.val_fraction=1 must be a number above 0 and below 1"),
        ("Folder", "root", 3, "data.root=3 must be a string"),
        ("Folder", "val_fraction", 0.0, "data.val_fraction=0.0 must be a number above 0 and below 1"),
        ("Folder", "split_seed", -1, "data.split_seed=-1 must be an integer of at least 0 and below 4294967296"),
        ("Folder", "split_seed", 2**32, "data.split_seed=4294967296 must be an integer of at least 0 and below"),
        ("Folder", "val_fraction", float("nan"), "data.val_fraction=nan must be a number above 0 and below 1"),
        ("Digits", "img_size", 10**6, "data.img_size=1000000 must be an integer of at least 1 and at most 256"),
        ("Folder", "val_only", "true", "data.val_only='true' must be true or false"),
        ("ImageNet", "variant", "imagenet", "data.variant=imagenet is unknown; did you mean imagenet1k?"),
        ("ImageNet", "layout", "zips", "data.layout=zips is unknown; did you mean zip?"),
        ("ImageNet", "train_images", 1.5, "data.train_images=1.5 must be a positive integer or null"),
        ("Listed", "num_classes", 0, "data.num_classes=0 must be an integer of at least 1 and at most 1000000 or null"),
        ("MapDataset", "class_names", "ant", "data.class_names=ant must be a list"),
        ("Parquet", "in_memory", 1, "data.in_memory=1 must be true or false or null"),
        ("Shards", "val_only", None, "data.val_only=null must be true or false"),
        ("Synthetic", "num_classes", 0, "data.num_classes=0 must be an integer of at least 1 and at most 1000000"),
        ("Synthetic", "val_images", -1, "data.val_images=-1 must be a positive integer"),
        ("Synthetic", "img_size", 3, "data.img_size=3 must be an integer of at least 4"),
        ("Zipped", "root", None, "data.root=null must be a string"),
    ],
)
def test_the_annotations_of_a_source_reject_invalid_arguments(source, key, value, message):
    annotation = type_hints(getattr(sources, source).__init__)[key]
    with pytest.raises(UserError, match=re.escape(message)):
        check_value(f"data.{key}", value, annotation)


@pytest.mark.parametrize("name", sources.__all__)
def test_every_argument_of_a_source_is_annotated(name):
    source = getattr(sources, name)
    assert set(type_hints(source.__init__)) >= set(inspect.signature(source).parameters)


def write(file, content):
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(pickle.dumps(content))
    return [file.name, hashlib.md5(file.read_bytes()).hexdigest()]


def random_images(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    """Writes six training and four test images in the files that torchvision reads."""
    top = tmp_path / CIFAR10.base_folder
    train = [write(top / f"data_batch_{i}", {"data": random_images(3, i).reshape(3, -1), "labels": [i, 9, 4]}) for i in (1, 2)]
    test = [write(top / "test_batch", {"data": random_images(4, 5).reshape(4, -1), "labels": [0, 1, 2, 3]})]
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
    image = decoded(Cifar("cifar10", str(cifar10), download=False).train, 4)
    assert (np.asarray(image) == random_images(3, 2)[1].transpose(1, 2, 0)).all()


def test_cifar100_has_the_fine_classes(tmp_path, monkeypatch):
    top = tmp_path / CIFAR100.base_folder
    batch = {"data": random_images(2, 0).reshape(2, -1), "fine_labels": [99, 3], "coarse_labels": [1, 2]}
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
def test_a_damaged_cifar_file_is_rejected(cifar10, no_network, download):
    file = cifar10 / CIFAR10.base_folder / "data_batch_2"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(UserError, match="cifar10"):
        Cifar("cifar10", str(cifar10), download)
