"""Map-style torch datasets as data: the forms of images, labels and class names, the split, and errors."""

import re

import numpy as np
import pytest
import torch
from layouts import decoded, loaded, same, write_folders
from PIL import Image
from test_datamodule import epoch, image_data
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset
from torchvision.datasets import FakeData, ImageFolder
from torchvision.transforms import ToTensor
from torchvision.transforms.v2 import PILToTensor

from swin_lab.data import MapDataset
from swin_lab.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 4, 6, 3), dtype=np.uint8)
LABELS = [0, 1, 2] * 10


class Items(Dataset):
    """A dataset without attributes that list its labels; it counts how often an item is loaded."""

    def __init__(self, images, labels):
        self.images = images
        self.item_labels = labels
        self.reads = 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.reads += 1
        return self.images[index], self.item_labels[index]


class ItemsWithTargets(Items):
    """A dataset that lists its labels."""

    def __init__(self, images, labels, name="targets"):
        super().__init__(images, labels)
        setattr(self, name, [(f"{i}.jpg", label) for i, label in enumerate(labels)] if name == "samples" else labels)


def converted(convert):
    """Returns the images in another form."""
    return [convert(Image.fromarray(pixels)) for pixels in PIXELS]


@pytest.mark.parametrize(
    "convert",
    [
        pytest.param(lambda image: image, id="PIL"),
        pytest.param(np.asarray, id="uint8-array"),
        pytest.param(lambda image: np.asarray(image) / 255, id="float-array"),
        pytest.param(ToTensor(), id="float-tensor"),
        pytest.param(PILToTensor(), id="uint8-tensor"),
    ],
)
def test_every_form_of_an_rgb_image_keeps_its_pixels(convert):
    source = MapDataset(Items(converted(convert), LABELS), Items(converted(convert), LABELS))
    for index, pixels in enumerate(PIXELS):
        assert (np.asarray(decoded(source.train, index)) == pixels).all()


@pytest.mark.parametrize(
    "convert",
    [
        pytest.param(lambda image: image, id="PIL"),
        pytest.param(np.asarray, id="array-without-channel"),
        pytest.param(lambda image: np.asarray(image)[..., None], id="array-with-channel"),
        pytest.param(ToTensor(), id="float-tensor"),
        pytest.param(lambda image: PILToTensor()(image)[0], id="tensor-without-channel"),
    ],
)
def test_a_greyscale_image_becomes_three_equal_channels(convert):
    grey = [Image.fromarray(pixels).convert("L") for pixels in PIXELS]
    source = MapDataset(Items([convert(image) for image in grey], LABELS))
    image = source.val.encoded(0)
    assert image.shape == (4, 6, 3)
    expected = np.asarray(grey[source.val.indices[0]])
    assert all((image[..., channel] == expected).all() for channel in range(3))


def test_transparent_pixels_of_an_image_are_composed_on_white():
    transparent = [Image.new("RGBA", (2, 2), (0, 0, 0, 0))] * 30
    assert np.unique(MapDataset(Items(transparent, LABELS)).train.encoded(0)).tolist() == [255]


def test_encoded_images_are_decoded_like_those_of_any_source(tmp_path):
    folder = write_folders(tmp_path).train
    encoded = [folder.encoded(i) for i in range(9)]
    assert same(MapDataset(Items(encoded, list(folder.labels)), Items(encoded, list(folder.labels))).train, folder)


def test_a_torchvision_folder_gives_the_images_labels_classes_and_paths_of_the_native_source(tmp_path):
    folder = write_folders(tmp_path)
    source = MapDataset(ImageFolder(str(tmp_path / "train")), ImageFolder(str(tmp_path / "val")))
    assert same(source.train, folder.train)
    assert same(source.val, folder.val)
    assert source.class_names == folder.class_names
    assert [source.val.name(i) for i in range(6)] == [folder.val.name(i) for i in range(6)]


def test_two_workers_read_the_images_that_one_process_reads():
    train = MapDataset(FakeData(24, (3, 8, 8), 2), FakeData(4, (3, 8, 8), 2)).train
    assert torch.equal(loaded(train, workers=2), loaded(train, workers=0))


@pytest.mark.parametrize("name", ["targets", "labels", "samples"])
def test_listed_labels_are_used_without_loading_the_images(name):
    dataset = ItemsWithTargets(PIXELS, LABELS, name)
    source = MapDataset(dataset, Items(PIXELS, LABELS))
    assert source.train.labels.tolist() == LABELS
    assert dataset.reads == 8  # their labels are compared


@pytest.mark.parametrize("labels", [torch.tensor(LABELS), np.array(LABELS), tuple(LABELS)], ids=lambda x: type(x).__name__)
def test_listed_labels_may_be_a_tensor_an_array_or_a_tuple(labels):
    source = MapDataset(ItemsWithTargets(PIXELS, labels), Items(PIXELS, LABELS))
    assert source.train.labels.tolist() == LABELS


def notes_of(monkeypatch):
    notes = []
    monkeypatch.setattr("swin_lab.data.sources.map_dataset.log.info", lambda text, *values: notes.append(text % values))
    return notes


def test_labels_that_are_not_listed_are_read_from_the_items_with_a_note(monkeypatch):
    notes = notes_of(monkeypatch)
    train = TensorDataset(torch.from_numpy(PIXELS).movedim(-1, 1), torch.tensor(LABELS))
    source = MapDataset(train, Subset(Items(PIXELS, LABELS), [1, 2]))
    assert source.train.labels.tolist() == LABELS
    assert source.val.labels.tolist() == [1, 2]
    assert "data.train lists no labels; its 30 items are loaded once" in notes[0]
    assert "data.val lists no labels; its 2 items are loaded once" in notes[1]


def test_labels_that_a_target_transform_changes_are_those_of_the_items():
    class Shifted(ItemsWithTargets):
        target_transform = "label + 1"

        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return image, label + 1

    assert MapDataset(Shifted(PIXELS, LABELS)).train.labels.max() == 3


def test_one_dataset_is_split_class_by_class_without_losing_an_image():
    source = MapDataset(ItemsWithTargets(PIXELS, LABELS), val_fraction=0.2, split_seed=1)
    assert np.bincount(source.train.labels).tolist() == [8, 8, 8]
    assert np.bincount(source.val.labels).tolist() == [2, 2, 2]
    assert sorted([*source.train.indices, *source.val.indices]) == list(range(30))
    for images in (source.train, source.val):
        for i, index in enumerate(images.indices):
            assert images.labels[i] == LABELS[index]
            assert (images.encoded(i) == PIXELS[index]).all()


def test_a_validation_set_alone_can_be_evaluated():
    source = MapDataset(None, ItemsWithTargets(PIXELS, LABELS))
    assert (len(source.train.labels), len(source.val.labels), source.class_names) == (0, 30, ["0", "1", "2"])


def test_no_dataset_at_all_is_rejected():
    with pytest.raises(UserError, match=r"data\.train and data\.val are null"):
        MapDataset()


def with_classes(classes):
    dataset = ItemsWithTargets(PIXELS, LABELS)
    dataset.classes = classes
    return dataset


def test_class_names_are_given_or_listed_or_the_indices():
    assert MapDataset(with_classes(["a", "b", "c"]), class_names=["x", "y", "z"]).class_names == ["x", "y", "z"]
    assert MapDataset(with_classes(["a", "b", "c"])).class_names == ["a", "b", "c"]
    assert MapDataset(with_classes([("a", "b"), ("c",), ("d",)])).class_names == [
        "a, b",
        "c",
        "d",
    ]  # as in torchvision's ImageNet
    assert MapDataset(ItemsWithTargets(PIXELS, LABELS)).class_names == ["0", "1", "2"]


def test_different_classes_of_the_two_datasets_are_rejected():
    with pytest.raises(UserError, match=r"data\.train\.classes and data\.val\.classes differ"):
        MapDataset(with_classes(["a", "b", "c"]), with_classes(["a", "c", "b"]))


def test_a_label_without_a_class_name_is_rejected():
    with pytest.raises(UserError, match="there are 2 class names, and the labels contain class 2"):
        MapDataset(Items(PIXELS, LABELS), class_names=["a", "b"])


class Stream(IterableDataset):
    """An iterable-style dataset."""

    def __iter__(self):
        return iter(zip(PIXELS, LABELS, strict=True))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Stream(), "data.train is iterable-style (Stream); give a dataset with __len__ and __getitem__"),
        (5, "data.train is not a map-style dataset (int)"),
        (Items([], []), "data.train (Items) is empty"),
        (list(PIXELS), "data.train[0] is a ndarray of shape (4, 6, 3); an item must be (image, label)"),
        ([(PIXELS[0], 0, 0)] * 2, "data.train[0] is a tuple of length 3; an item must be (image, label)"),
        ([{"image": PIXELS[0], "label": 0}], "data.train[0] is a dict; an item must be (image, label)"),
        (Items(PIXELS, ["ant"] * 30), "data.train[0] has the label 'ant'; an item must be (image, label) with the class index"),
        (Items(PIXELS, [0.5] * 30), "data.train[0] has the label 0.5"),
        (Items(PIXELS, [0, 1, -1] * 10), "data.train[2] has label -1; labels must be non-negative class indices"),
        (ItemsWithTargets(PIXELS, [0, 1, -1] * 10), "data.train[2] has label -1; labels must be non-negative class indices"),
        (Items(["1.jpg"] * 30, LABELS), "data.train[0] has a str as image; an image must be a PIL image, the bytes"),
        (Items(PIXELS.astype(np.int64), LABELS), "data.train[0] has an image of int64; an image must be"),
        (Items(PIXELS / 100, LABELS), "Remove the normalisation from the dataset's transforms: the run normalises."),
        (Items(np.full((30, 2, 2, 3), -1.5), LABELS), "data.train[0] has values from -1.5 to -1.5"),
        (Items(torch.zeros(30, 5, 4, 4), LABELS), "data.train[0] has a Tensor of shape (5, 4, 4) as image"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value[:30],
)
def test_a_dataset_that_cannot_be_used_is_rejected_with_what_is_expected(dataset, message):
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        MapDataset(dataset)
    assert len(str(raised.value).splitlines()) <= 3


def test_a_first_image_that_cannot_be_read_does_not_stop_the_construction():
    class Damaged(ItemsWithTargets):
        def __getitem__(self, index):
            if index == 0:
                raise OSError("truncated")
            return super().__getitem__(index)

    train = MapDataset(Damaged(PIXELS, LABELS), Items(PIXELS, LABELS)).train
    assert (train.encoded(1) == PIXELS[1]).all()
    with pytest.raises(OSError, match="truncated"):
        train.encoded(0)
    assert train.name(0) == "Damaged train[0]"


class RandomFlips(ItemsWithTargets):
    """A dataset with a random transform of its own."""

    def __getitem__(self, index):
        pixels, label = super().__getitem__(index)
        return (pixels[:, ::-1] if torch.rand(()) < 0.5 else pixels), label


def test_random_transforms_of_a_dataset_depend_on_seed_epoch_and_image_only():
    def images(workers, number):
        source = MapDataset(RandomFlips(PIXELS, LABELS), Items(PIXELS, LABELS))
        return epoch(image_data(source, num_workers=workers, cache_mib=0), number)

    assert torch.equal(images(0, 0), images(2, 0))
    as_sets = [{image.numpy().tobytes() for image in images(0, number)} for number in (0, 1)]
    assert len(as_sets[0] - as_sets[1]) > 2  # an epoch of 28 images leaves out at most two of the 30


def sized(length):
    class Sized(Items):
        def __len__(self):
            return length

    return Sized(PIXELS, LABELS)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (ItemsWithTargets(PIXELS, LABELS[::-1]), None),
        (sized(-1), "data.train (Sized) has no valid length"),
        (sized(2.5), "data.train (Sized) has no valid length"),
        (sized(10**12), "data.train (Sized) claims 1,000,000,000,000 items"),
        (sized(31), "data.train[30] does not exist: Sized has 31 items"),
        (Items(np.zeros((30, 0, 4, 3), dtype=np.uint8), LABELS), "which has no pixels"),
        (Items(PIXELS, [torch.tensor([0, 2])] * 30), "data.train[0] has the label tensor([0, 2])"),
        (Items([None] * 30, LABELS), "data.train[0] has a NoneType as image"),
        (Items(PIXELS, [10**9] * 30), "data has class index 1000000000, above the maximum"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value[:40],
)
def test_a_dataset_with_a_wrong_length_or_wrong_items_is_refused(dataset, message):
    if message is None:
        assert len(MapDataset(dataset).train.labels) == 27
        return
    with pytest.raises(UserError, match=re.escape(message)):
        MapDataset(dataset)


@pytest.mark.parametrize("name", ["targets", "labels", "samples"])
def test_listed_labels_that_differ_from_those_of_the_items_are_refused(name):
    dataset = ItemsWithTargets(PIXELS, LABELS, name)
    dataset.item_labels = [(label + 1) % 3 for label in LABELS]
    with pytest.raises(UserError, match=r"data\.train lists label 0 for item 0, and the item has label 1; make them equal"):
        MapDataset(dataset)


def test_given_class_names_must_be_unique_and_listed_ones_that_are_not_get_their_index():
    with pytest.raises(UserError, match="classes 0 and 2 have the same name, 'x'"):
        MapDataset(ItemsWithTargets(PIXELS, LABELS), class_names=["x", "y", "x"])
    cranes = with_classes([("crane",), ("ant",), ("crane",)])  # torchvision's ImageNet has two
    assert MapDataset(cranes).class_names == ["crane (0)", "ant", "crane (2)"]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_item_that_is_no_image_stops_the_run_with_its_message_also_if_unreadable_images_are_skipped(workers):
    images = [*PIXELS[:15], "15.jpg", *PIXELS[16:]]
    data = image_data(MapDataset(Items(images, LABELS), Items(PIXELS, LABELS)), num_workers=workers, on_error="skip")
    with pytest.raises(UserError, match=r"^data\.train\[15\] has a str as image") as raised:
        epoch(data)
    assert len(str(raised.value).splitlines()) <= 3


HOT = np.eye(3, dtype=np.uint8)[LABELS] | np.eye(3, dtype=np.uint8)[LABELS[::-1]]


@pytest.mark.parametrize(
    "dataset",
    [
        Items(PIXELS, HOT),
        Items(PIXELS, torch.from_numpy(HOT).float()),
        ItemsWithTargets(PIXELS, torch.from_numpy(HOT)),
        ItemsWithTargets(PIXELS, HOT.astype(bool), "labels"),
    ],
    ids=["arrays", "float tensors", "a list of tensors", "a list of booleans"],
)
def test_arrays_of_0_and_1_as_labels_are_several_labels_per_image(dataset):
    source = MapDataset(dataset, class_names=["ant", "bee", "cat"])
    found = np.concatenate([source.train.labels, source.val.labels])
    assert found.dtype == np.uint8
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, HOT.tolist()))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([HOT[0]] * 29 + [HOT[0, :2]], r"data.train has labels of shape \(3,\) and \(2,\)"),
        ([HOT[0]] * 29 + [2 * HOT[0]], r"data.train\[29\] has the label array"),
        ([HOT[0]] * 29 + [1], r"data.train has labels of shape \(3,\) and \(\)"),
    ],
    ids=["of another length", "another value", "a class index"],
)
def test_labels_that_are_not_arrays_of_0_and_1_of_one_length_are_refused(labels, message):
    with pytest.raises(UserError, match=message):
        MapDataset(Items(PIXELS, labels))
