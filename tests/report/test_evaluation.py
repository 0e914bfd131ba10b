"""What a confusion matrix says of the classes: numbers, tables and an image."""

import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from swin_lab.report import ClassResults

COUNTS = np.array(
    [
        [8, 2, 0, 0],  # ant
        [1, 3, 1, 0],  # bee
        [0, 4, 16, 0],  # cat
        [0, 0, 0, 0],  # dog: no images
    ]
)
NAMES = ["ant", "bee", "cat", "dog"]


@pytest.fixture
def results():
    return ClassResults(NAMES, COUNTS)


def printed(results, **options):
    console = Console(record=True, width=120, file=io.StringIO())
    results.print(console, **options)
    return console.export_text()


def test_classes_come_with_images_and_accuracy_worst_first(results):
    assert results.per_class() == [
        {"class": "bee", "images": 5, "accuracy": 3 / 5},
        {"class": "ant", "images": 10, "accuracy": 8 / 10},
        {"class": "cat", "images": 20, "accuracy": 16 / 20},
    ]


def test_a_class_without_images_has_no_accuracy(results):
    assert "dog" not in {row["class"] for row in results.per_class()}


def test_confusions_come_most_frequent_first_with_their_part_of_the_truth(results):
    assert results.worst_confusions() == [
        {"truth": "cat", "prediction": "bee", "count": 4, "fraction": 4 / 20},
        {"truth": "ant", "prediction": "bee", "count": 2, "fraction": 2 / 10},
        {"truth": "bee", "prediction": "ant", "count": 1, "fraction": 1 / 5},
        {"truth": "bee", "prediction": "cat", "count": 1, "fraction": 1 / 5},
    ]


def test_only_the_most_frequent_confusions_are_kept(results):
    assert [row["truth"] for row in results.worst_confusions(most=2)] == ["cat", "ant"]


def test_without_mistakes_there_are_no_confusions():
    assert ClassResults(NAMES, np.diag([1, 2, 3, 0])).worst_confusions() == []


def test_results_are_plain_python_for_json(results):
    values = [value for row in results.per_class() + results.worst_confusions() for value in row.values()]
    assert {type(value) for value in values} == {str, int, float}


def test_the_counts_are_left_as_they_were(results):
    before = COUNTS.copy()
    results.worst_confusions()
    assert (results.counts == before).all()


def test_the_tables_show_accuracies_and_confusions_in_percent(results):
    text = printed(results)
    assert "60.00%" in text
    assert "Most frequent confusions" in text


def test_the_tables_stop_at_the_worst_and_say_of_how_many(results):
    text = printed(results, most=1)
    assert "The 1 worst of 3 classes" in text
    assert "80.00%" not in text


def test_without_mistakes_no_table_of_confusions_is_printed():
    assert "confusions" not in printed(ClassResults(NAMES, np.diag([1, 2, 3, 0])))


@pytest.mark.parametrize("name", ["[other]", "[red]", "[/b]", "a[1]"])
def test_a_class_name_in_square_brackets_is_printed_as_it_is(name):
    assert name in printed(ClassResults([name, "x"], np.eye(2, dtype=int)))


@pytest.mark.parametrize("count", [2, 10, 30, 60])
def test_the_confusion_image_is_a_png_that_opens(tmp_path, count):
    counts = np.random.default_rng(0).integers(0, 9, (count, count))
    ClassResults([f"class {i}" for i in range(count)], counts).draw(tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 300


def test_classes_without_images_are_drawn_without_a_warning(tmp_path, results, recwarn):
    results.draw(tmp_path / "confusion.png")
    assert [str(warning.message) for warning in recwarn if "divide" in str(warning.message)] == []


def test_the_darkest_cell_is_the_one_with_the_largest_share(tmp_path):
    """Right answers alone make a dark diagonal: the corners of the matrix differ as light from dark."""
    ClassResults(list("ab"), np.diag([5, 5])).draw(tmp_path / "right.png")
    ClassResults(list("ab"), np.diag([5, 5])[::-1]).draw(tmp_path / "wrong.png")
    right, wrong = (np.asarray(Image.open(tmp_path / name).convert("L"), int) for name in ("right.png", "wrong.png"))
    height, width = right.shape
    upper_left = np.s_[height // 4 : height // 3, width // 4 : width // 3]
    assert np.median(right[upper_left]) + 100 < np.median(wrong[upper_left])


@pytest.mark.parametrize("name", ["$5_ to $6_", r"a$\frac$b", "50% off", "__init__"])
def test_a_class_name_that_looks_like_a_formula_is_drawn_as_text(tmp_path, name):
    ClassResults([name, "x"], np.eye(2, dtype=int)).draw(tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").is_file()
