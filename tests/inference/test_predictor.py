"""`swin_lab.Predictor`: the same results for every form of an image, from every kind of checkpoint."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_classifier import CLASSES, classifier, write_image

import swin_lab
from swin_lab.errors import UserError


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return swin_lab.save_weights(classifier(), tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="module")
def predictor(weights: Path) -> swin_lab.Predictor:
    return swin_lab.Predictor(weights, device="cpu", batch=4)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_image(tmp_path / "a.png", 5)


def test_probabilities_are_those_of_the_network_on_its_own_preprocessing(predictor, file):
    network = classifier()
    with torch.no_grad():
        expected = network(swin_lab.image_transform(network.preprocessing)(file)[None]).softmax(1)[0]
    found = predictor(file, top=3)
    order = expected.argsort(descending=True).tolist()
    assert found.names == tuple(CLASSES[i] for i in order)
    assert found.probabilities == pytest.approx(expected[order].tolist(), abs=1e-6)
    assert (found.name, found.probability) == (found.names[0], found.probabilities[0])


def test_every_form_of_an_image_gives_the_same(predictor, file):
    image = Image.open(file).convert("RGB")
    array = np.asarray(image)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    forms = [str(file), file, file.read_bytes(), image, array, tensor, tensor / 255]
    expected = predictor(file)
    assert [predictor(form) for form in forms] == [expected] * len(forms)
    for found in predictor(forms):
        assert found.names == expected.names
        assert found.probabilities == pytest.approx(
            expected.probabilities, abs=1e-6
        )  # Batches of another size round otherwise.


def test_arrays_and_tensors_of_four_dimensions_are_several_images(predictor):
    batch = np.random.default_rng(0).integers(0, 255, (3, 20, 30, 3), dtype=np.uint8)
    expected = predictor(list(batch))
    assert len(expected) == 3
    assert predictor(batch) == expected
    assert predictor(torch.from_numpy(batch).permute(0, 3, 1, 2)) == expected


def test_an_iterator_is_read_one_batch_at_a_time(predictor, file):
    read = []

    def images():
        for i in range(6):
            read.append(i)
            yield file

    assert len(predictor(images())) == 6
    assert read == list(range(6))


def test_no_images_give_no_results(predictor):
    assert predictor([]) == []
    assert predictor.embed([]).shape == (0, 16)


def test_embeddings_are_those_of_the_network(predictor, file):
    network = classifier()
    image = swin_lab.image_transform(network.preprocessing)(file)[None]
    with torch.no_grad():
        expected = network.embedding(image)[0].numpy()
        maps = [x[0].numpy() for x in network.features(image)]
        normed = network.features(image, [1], [network.norm])[0][0].numpy()
    assert predictor.embed(file) == pytest.approx(expected, abs=1e-5)
    assert predictor.embed([file, file]).shape == (2, 16)
    assert predictor.embed(file, stage=0) == pytest.approx(maps[0].mean((1, 2)), abs=1e-5)
    assert predictor.embed(file, stage=0, pool="map") == pytest.approx(maps[0], abs=1e-5)
    assert predictor.embed(file, pool="map") == pytest.approx(normed, abs=1e-5)
    assert predictor.embed(file, pool="map").mean((1, 2)) == pytest.approx(expected, abs=1e-5)


def test_flip_makes_the_result_the_same_for_an_image_and_its_mirror_image(weights, file):
    flipping = swin_lab.Predictor(weights, device="cpu", flip=True)
    image = Image.open(file)
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert flipping.embed(image) == pytest.approx(flipping.embed(mirrored), abs=1e-4)
    assert flipping(image).probabilities == pytest.approx(flipping(mirrored).probabilities, abs=1e-4)
    assert flipping.embed(image, pool="map") == pytest.approx(flipping.embed(mirrored, pool="map")[..., ::-1], abs=1e-4)


def test_bfloat16_is_near_float32_and_leaves_the_network_as_it_was(predictor, file):
    network = classifier()
    half = swin_lab.Predictor(network, device="cpu", precision="bf16-mixed")
    assert half(file, top=3).probability == pytest.approx(predictor(file, top=3).probability, abs=0.05)
    assert not any("forward" in vars(module) for module in network.modules())


def test_a_network_and_its_state_dict_are_checkpoints(predictor, file):
    network = classifier()
    assert swin_lab.Predictor(network, device="cpu")(file) == predictor(file)
    indexed = swin_lab.Predictor(network.state_dict(), device="cpu")
    assert indexed.class_names == ["0", "1", "2"]


def test_the_checkpoint_of_a_run_knows_its_classes(trained, tmp_path):
    predictor = swin_lab.Predictor(trained, device="cpu")
    assert len(predictor.class_names) == 6
    assert predictor.preprocessing.img_size == (32, 32)
    assert len(predictor(write_image(tmp_path / "a.png", 0)).names) == 5


def test_a_network_of_another_library_predicts_and_embeds(tmp_path, file):
    from swin_lab.models.external import TimmModel

    predictor = swin_lab.Predictor(TimmModel("convnext_atto", 4, img_size=64), device="cpu")
    assert len(predictor(file).names) == 4
    assert predictor.embed(file).shape == (320,)
    with pytest.raises(UserError, match="stages and maps are those of a Swin Transformer"):
        predictor.embed(file, pool="map")


def test_the_classes_of_imagenet_are_named_in_words(file):
    predictor = swin_lab.Predictor(classifier(None, 1000), device="cpu")
    names = predictor.class_names
    assert (names[0], names[999]) == ("tench, Tinca tinca", "toilet tissue, toilet paper, bathroom tissue")
    assert {"crane (n02012849)", "crane (n03126707)"} <= set(names)
    assert len(set(names)) == 1000
    assert predictor(file).name in names


def test_more_classes_than_there_are_give_all(predictor, file):
    assert len(predictor(file, top=100).names) == 3


@pytest.mark.parametrize(
    ("image", "part"),
    [
        ("nowhere.png", "nowhere.png cannot be read"),
        (".", "cannot be read"),
        (b"abc", r"images\[0\] cannot be read"),
        (np.zeros((4, 4, 7), dtype=np.uint8), r"images\[0\] has a ndarray of shape \(4, 4, 7\)"),
        (torch.full((3, 4, 4), -2.0), "values from -2 to -2"),
        (3, "images are a int"),
        ([3], r"images\[0\] has a int"),
    ],
)
def test_an_image_that_cannot_be_read_is_named(predictor, image, part: str):
    with pytest.raises(UserError, match=part):
        predictor(image)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"device": "tpu"}, "device=tpu must be one of"),
        ({"device": "cuda:77"}, "no such device"),
        ({"precision": "fp8"}, "precision=fp8 is unknown"),
        ({"precision": "16-mixed", "device": "cpu"}, "needs a GPU"),
        ({"batch": 0}, "batch=0 must be"),
        ({"flip": "yes"}, "flip=yes must be"),
    ],
)
def test_invalid_settings_are_refused(weights, settings, part: str):
    with pytest.raises(UserError, match=part):
        swin_lab.Predictor(weights, **settings)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [({"stage": 2}, "stage=2 does not exist"), ({"stage": -1}, "stage=-1 must be"), ({"pool": "max"}, "pool=max is unknown")],
)
def test_vectors_that_do_not_exist_are_refused(predictor, file, arguments, part: str):
    with pytest.raises(UserError, match=part):
        predictor.embed(file, **arguments)


def test_a_network_without_a_head_embeds_but_does_not_predict(file):
    predictor = swin_lab.Predictor(classifier(None, 0), device="cpu")
    assert predictor.embed(file).shape == (16,)
    with pytest.raises(UserError, match="has no head"):
        predictor(file)
