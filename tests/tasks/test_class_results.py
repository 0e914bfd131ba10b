"""Accuracies and confusions of the classes from a confusion matrix, and their presentation."""

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from swin_lab.report import print_table
from swin_lab.tasks import Classification
from swin_lab.tasks.classification import accuracy_per_class, most_frequent_confusions
from swin_lab.training import DataDescription

COUNTS = np.array(
    [
        [8, 2, 0, 0],  # ant
        [1, 3, 1, 0],  # bee
        [0, 4, 16, 0],  # cat
        [0, 0, 0, 0],  # dog: no images
    ]
)
NAMES = ["ant", "bee", "cat", "dog"]


def presented(names=NAMES, counts=COUNTS):
    return Classification(data=DataDescription(class_names=tuple(names))).present({"confusion": counts})


def printed(presentation):
    console = Console(record=True, width=120, file=io.StringIO())
    for table in presentation.tables:
        print_table(table.columns, table.rows, title=table.title, console=console)
    return console.export_text()


def test_classes_have_images_and_accuracy_worst_first():
    rows = [(row["class"], row["images"], row["accuracy"]) for row in accuracy_per_class(NAMES, COUNTS)]
    assert rows == [("bee", 5, 3 / 5), ("ant", 10, 8 / 10), ("cat", 20, 16 / 20)]


def test_an_accuracy_has_the_ends_of_wilsons_interval():
    """Wilson's formula with z = 1.959964 for 95 %, within 1e-6."""
    (bee, *_) = accuracy_per_class(NAMES, COUNTS)
    n, p, z = 5, 3 / 5, 1.959964
    centre, half = (p + z**2 / (2 * n)) / (1 + z**2 / n), z / (1 + z**2 / n) * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    assert (bee["low"], bee["high"]) == pytest.approx((centre - half, centre + half), abs=1e-6)
    (certain,) = accuracy_per_class(["a"], np.array([[9]]))
    assert 0.6 < certain["low"] < certain["high"] == 1


def test_a_class_without_images_has_no_accuracy():
    assert "dog" not in {row["class"] for row in accuracy_per_class(NAMES, COUNTS)}


def test_confusions_are_sorted_by_frequency_and_have_their_fraction_of_the_class():
    assert most_frequent_confusions(NAMES, COUNTS, 10) == [
        {"truth": "cat", "prediction": "bee", "count": 4, "fraction": 4 / 20},
        {"truth": "ant", "prediction": "bee", "count": 2, "fraction": 2 / 10},
        {"truth": "bee", "prediction": "ant", "count": 1, "fraction": 1 / 5},
        {"truth": "bee", "prediction": "cat", "count": 1, "fraction": 1 / 5},
    ]


def test_only_the_most_frequent_confusions_are_returned():
    assert [row["truth"] for row in most_frequent_confusions(NAMES, COUNTS, 2)] == ["cat", "ant"]


def test_without_errors_there_are_no_confusions():
    assert most_frequent_confusions(NAMES, np.diag([1, 2, 3, 0]), 10) == []


def test_the_record_is_plain_python_for_json():
    record = presented().record
    values = [value for row in record["per_class"] + record["worst_confusions"] for value in row.values()]
    assert {type(value) for value in values} == {str, int, float}


def test_the_counts_are_not_changed():
    before = COUNTS.copy()
    presented()
    assert (before == COUNTS).all()


def test_the_tables_show_accuracies_and_confusions_in_percent():
    text = printed(presented())
    assert "60.00%" in text
    assert "Most frequent confusions" in text


def test_the_table_has_all_classes_worst_first():
    names, counts = [f"class {i:02}" for i in range(12)], np.diag(np.arange(2, 14))
    counts[0, 1] = 1
    table = presented(names, counts).tables[0]
    assert [row[0] for row in table.rows[:2]] == ["class 00", "class 01"]
    assert len(table.rows) == 12


def test_the_metrics_have_intervals_over_the_images():
    """Wilson's for 3 of 4 images, and mean +- 1.96 standard errors of the loss, within 1e-4."""
    task = Classification(data=DataDescription(class_names=tuple(f"{i}" for i in range(6))))
    classes = np.array([[0, 1, 2, 3, 4], [1, 0, 2, 3, 4], [2, 3, 0, 1, 4], [3, 1, 2, 0, 4]])
    label_probability = np.exp(-np.array([1.0, 2.0, 3.0, 4.0])).astype(np.float32)
    columns = {
        "index": np.arange(4),
        "label": np.array([0, 1, 2, 5]),
        "classes": classes,
        "label_probability": label_probability,
    }
    found = task.intervals(columns)
    assert found["acc1"] == found["acc5"] == pytest.approx((0.30064, 0.95441), abs=1e-4)
    assert found["loss"] == pytest.approx((2.5 - 1.26517, 2.5 + 1.26517), abs=1e-4)
    assert task.intervals({}) == {}


def test_without_errors_no_table_of_confusions_is_shown():
    assert "confusions" not in printed(presented(counts=np.diag([1, 2, 3, 0])))


def test_without_a_confusion_matrix_nothing_is_shown():
    presentation = Classification(data=DataDescription(class_names=("a", "b"))).present({})
    assert (list(presentation.tables), list(presentation.heatmaps), dict(presentation.record)) == ([], [], {})


@pytest.mark.parametrize("name", ["[other]", "[red]", "[/b]", "a[1]"])
def test_a_class_name_in_square_brackets_is_printed_unchanged(name):
    assert name in printed(presented([name, "x"], np.eye(2, dtype=int)))


def test_the_confusion_matrix_becomes_a_heatmap_of_truth_by_prediction():
    (heatmap,) = presented().heatmaps
    assert (Path(heatmap.file_name).suffix, heatmap.row_label, heatmap.column_label) == (".png", "truth", "prediction")
    assert heatmap.counts is COUNTS
