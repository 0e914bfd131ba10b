"""Runs in comparison: what is found, in which state, which values are shown, and what predictions say."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rich
from conftest import ROOT, Command
from filelock import FileLock
from synthetic_runs import CLASSES, UPDATES_PER_EPOCH, write_predictions, write_run

from swin_lab.record import LOCK
from swin_lab.report.compare import read_runs
from swin_lab.report.compare.columns import config_columns, metric_columns
from swin_lab.report.compare.curves import read_curves
from swin_lab.report.compare.page import page_data
from swin_lab.report.compare.predictions import MAX_CLASSES, compare_predictions

SAME = {"model.depths": [2, 2], "seed": 0}


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A folder with three runs that differ in the learning rate and in one that drops paths."""
    for name, accuracy, lr, rate in (("a", 0.8, 1e-3, 0), ("b", 0.9, 3e-4, 0), ("c", 0.85, 1e-4, 0.1)):
        config = {**SAME, "optimizer.lr": lr, "model.drop_path_rate": rate, "name": name, "out": f"/somewhere/{name}"}
        write_run(tmp_path / "runs" / name, f"digits/{name}", accuracy, config)
    return tmp_path / "runs"


@pytest.fixture
def set_width() -> Iterator[Callable[[int], None]]:
    """Sets the width of the terminal, which Rich keeps for the rest of the process otherwise."""
    yield lambda width: rich.reconfigure(width=width)
    rich.reconfigure()


def test_runs_are_read_best_first(three: Path) -> None:
    runs, unreadable = read_runs([str(three)])
    assert [run.label for run in runs] == ["digits/b", "digits/c", "digits/a"]
    assert unreadable == []


def test_a_smaller_value_is_better_where_the_run_says_so(tmp_path: Path) -> None:
    for name, loss in (("a", 0.5), ("b", 0.2)):
        changes = {"derived.monitor": "loss", "derived.monitor_mode": "min", "metrics.best.loss": loss}
        write_run(tmp_path / name, name, 0.5, changes=changes)
    assert [run.label for run in read_runs([str(tmp_path)])[0]] == ["b", "a"]


def test_runs_are_given_as_directories_folders_and_patterns(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(three.parent)
    found = [{run.label for run in read_runs(arguments)[0]} for arguments in (["runs/a"], ["runs/[ab]"], [".", "runs/c"])]
    assert found == [{"digits/a"}, {"digits/a", "digits/b"}, {"digits/a", "digits/b", "digits/c"}]


def test_only_configuration_values_that_differ_are_shown_and_not_where_a_run_is_written(three: Path) -> None:
    runs, _ = read_runs([str(three)])
    columns = {column.key: [column.text(i) for i in range(3)] for column in config_columns(runs)}
    assert columns == {"optimizer.lr": ["0.0003", "0.0001", "0.001"], "model.drop_path_rate": ["0", "0.1", "0"]}


def test_keys_that_a_sweep_has_set_come_first_and_a_key_that_a_run_lacks_is_a_dash(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "a", 0.9, {"ema.decay": 0.99, "seed": 1}, changes={"run.differs": ["seed=1"]})
    write_run(tmp_path / "b", "b", 0.8, {"ema": None, "seed": 2}, changes={"run.differs": ["seed=2"]})
    columns = {column.key: [column.text(i) for i in range(2)] for column in config_columns(read_runs([str(tmp_path)])[0])}
    assert columns == {"seed": ["1", "2"], "ema.decay": ["0.99", "–"], "ema": ["–", "null"]}
    assert next(iter(columns)) == "seed"


def test_metrics_are_those_of_the_weights_that_are_monitored(tmp_path: Path) -> None:
    changes = {"derived.monitor_weights": "ema", "metrics.best_ema.acc1": 0.95, "metrics.last_ema.acc1": 0.94}
    write_run(tmp_path / "a", "a", 0.5, changes=changes)
    columns = metric_columns(read_runs([str(tmp_path)])[0])
    assert [(column.label, column.text(0)) for column in columns] == [("top-1", "95.00%"), ("last top-1", "94.00%")]


def test_the_state_of_a_run_is_running_while_its_directory_is_locked_and_crashed_after(
    tmp_path: Path, cli: Command, set_width: Callable[[int], None]
) -> None:
    set_width(160)
    going = write_run(tmp_path / "runs" / "going", "going", None, state="running")
    write_run(tmp_path / "runs" / "done", "done", 0.9)
    changes = {"run.reason": "SIGTERM"}
    write_run(tmp_path / "runs" / "stopped", "stopped", 0.5, state="interrupted", changes=changes)
    with FileLock(going / LOCK):
        while_running = {run.label: run.record["run.state"] for run in read_runs([str(tmp_path)])[0]}
    runs, _ = read_runs([str(tmp_path)])
    assert while_running == {"done": "finished", "stopped": "interrupted", "going": "running"}
    assert [(run.label, run.record["run.state"]) for run in runs][-1] == ("going", "crashed")  # last: it has no result
    assert "interrupted: SIGTERM" in cli("compare", "runs").out


def test_records_that_cannot_be_read_are_named_in_one_line_and_skipped(three: Path, cli: Command) -> None:
    (three / "a" / "results.json").write_text("{")
    (three / "b" / "results.json").write_text('{"metrics": {"val/acc1": 0.5}}')
    begun = three / "begun"
    begun.mkdir()
    for name in ("config.yaml", "overrides.txt"):
        (begun / name).touch()
    (three / "eval_1").mkdir()
    (three / "eval_1" / "results.json").write_text('{"version": 1, "kind": "evaluation", "run.state": "finished"}')
    outcome = cli("compare", three)
    assert outcome.code == 0
    lines = outcome.err.splitlines()
    assert [line.startswith("skipped: ") for line in lines] == [True] * 3
    for folder, what in (("a", "is damaged"), ("b", "is no record of a run"), ("begun", "cannot be read")):
        assert any(f"{folder}/results.json" in line and what in line for line in lines), lines
    assert "1 run, best first by top-1" in outcome.out


def test_a_folder_without_a_run_that_can_be_read_is_refused(tmp_path: Path, cli: Command) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "results.json").write_text("[]")
    for argument, message in (
        ("empty", "empty contains no run, which is a directory with results.json"),
        ("damaged", "no run can be read in damaged\n"),
        ("no*", "no* does not exist; give the directory of a run"),
    ):
        outcome = cli("compare", argument)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err.startswith(f"error: {message}")


def test_the_terminal_shows_metrics_and_differences(three: Path, cli: Command, set_width: Callable[[int], None]) -> None:
    set_width(160)
    lines = [line.split() for line in cli("compare", three).out.splitlines()]
    assert " ".join(lines[0]) == "3 runs, best first by top-1"
    assert lines[1] == ["optimizer.", "model."]
    heads = [*("run", "epochs", "top-1", "lr", "drop_path_rate", "last", "top-1", "loss", "images/s", "time")]
    assert lines[2] == heads
    assert lines[3] == ["b", "3/3", "90.00%", "0.0003", "0", "90.00%", "0.1000", "812", "1:01"]
    assert [line[0] for line in lines[3:]] == ["b", "c", "a"]


def test_columns_that_do_not_fit_into_the_terminal_are_only_named(
    three: Path, cli: Command, set_width: Callable[[int], None]
) -> None:
    set_width(60)
    lines = cli("compare", three).out.splitlines()
    assert lines[-1] == "not shown: last top-1, images/s, time"
    assert len(lines) == 1 + 2 + 3 + 1  # No cell is folded.


def test_the_csv_file_has_all_digits_and_the_keys_of_the_record(three: Path, cli: Command) -> None:
    outcome = cli("compare", three, "-o", "table.csv")
    assert outcome.code == 0, outcome.err
    with Path("table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["metrics.best.acc1"]) for row in rows] == [0.9, 0.85, 0.8]
    assert [row["config.optimizer.lr"] for row in rows] == ["0.0003", "0.0001", "0.001"]
    assert rows[0]["directory"] == str(three / "b")
    assert "config.seed" not in rows[0]


def test_a_file_that_exists_is_replaced_only_with_overwrite(three: Path, cli: Command) -> None:
    Path("table.csv").write_text("precious")
    refused = cli("compare", three, "-o", "table.csv")
    assert refused.code == 2
    assert refused.err.endswith("exists; choose another name, or allow it with --overwrite\n")
    assert Path("table.csv").read_text() == "precious"
    assert cli("compare", three, "-o", "table.csv", "--overwrite").code == 0
    assert Path("table.csv").read_text() != "precious"


def test_runs_of_two_sweeps_with_the_same_overrides_have_different_names(tmp_path: Path) -> None:
    for sweep in ("one", "two"):
        for job in range(2):
            changes = {"run.group": sweep, "run.job": job, "run.differs": [f"optimizer.lr={job}"]}
            write_run(tmp_path / sweep / str(job) / "time", f"optimizer.lr={job}", 0.5, changes=changes)
    runs, _ = read_runs([str(tmp_path)])
    assert sorted(run.label for run in runs) == ["one lr=0", "one lr=1", "two lr=0", "two lr=1"]
    assert sorted(run.place for run in runs) == ["one/0", "one/1", "two/0", "two/1"]


# ---- curves


def test_the_curve_of_a_run_that_is_going_ends_with_its_last_whole_record(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", updates=12)
    with (folder / "metrics.csv").open("a") as file:
        file.write("1,12,0.")
    curves = read_curves(folder, max_points=100)
    assert curves.by_metric["train/loss"].updates.tolist() == list(range(1, 13))
    assert curves.by_metric["val/acc1"].updates.tolist() == [UPDATES_PER_EPOCH]
    assert curves.updates_per_epoch == UPDATES_PER_EPOCH


def test_a_long_curve_is_thinned_out_and_keeps_its_ends(tmp_path: Path) -> None:
    curve = read_curves(write_run(tmp_path / "a", updates=200), max_points=50).by_metric["train/loss"]
    assert (len(curve.updates), curve.updates[0], curve.updates[-1]) == (50, 1, 200)
    assert curve.values == pytest.approx(2 / curve.updates, abs=1e-6)


@pytest.mark.parametrize("text", [None, "", "epoch,step\n", "nonsense\n1,2,3\n", "step,val/acc1\none,two\n", "\x00\xff\n"])
def test_a_missing_or_damaged_file_has_no_curves(tmp_path: Path, text: str | None) -> None:
    folder = write_run(tmp_path / "a")
    (folder / "metrics.csv").unlink()
    if text is not None:
        (folder / "metrics.csv").write_text(text)
    assert read_curves(folder, max_points=50).by_metric == {}


def test_wall_time_leaves_out_the_pause_before_a_resumed_attempt(tmp_path: Path) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    folder = write_run(tmp_path / "a", updates=20)
    for name, start, steps in (("1", 1000.0, range(10)), ("2", 9000.0, range(10, 20))):
        with (folder / f"events.out.tfevents.{name}").open("wb") as file:
            writer = RecordWriter(file)
            writer.write(Event(wall_time=start, step=steps[0], file_version="brain.Event:2").SerializeToString())
            for i, step in enumerate(steps):
                value = Summary(value=[Summary.Value(tag="train/loss", simple_value=1.0)])
                writer.write(Event(wall_time=start + 2 * (i + 1), step=step, summary=value).SerializeToString())
            value = Summary(value=[Summary.Value(tag="final/figure")])
            writer.write(Event(wall_time=start + 20, step=0, summary=value).SerializeToString())
            file.write(b"\x05")  # The process was killed while it wrote.
    seconds = read_curves(folder, max_points=100).by_metric["train/loss"].seconds
    assert seconds is not None
    assert seconds.tolist() == [2.0 * (i + 1) for i in range(20)]


# ---- predictions


def predicted(tmp_path: Path, classes: dict[str, np.ndarray], labels: np.ndarray, **options: object) -> list[dict]:
    """Writes runs that predict these classes, and returns how they compare; the accuracy of their records is the true one."""
    for name, values in classes.items():
        folder = write_run(tmp_path / name, name, float((values == labels).mean()))
        write_predictions(folder, labels, values, **options)  # type: ignore[arg-type]
    return compare_predictions(read_runs([str(tmp_path)])[0])


def test_runs_on_the_same_images_are_compared_pair_by_pair(tmp_path: Path) -> None:
    labels = np.arange(90) % 3
    worse = np.where(np.arange(90) < 40, (labels + 1) % 3, labels)
    (entry,) = predicted(tmp_path, {"good": labels, "bad": worse}, labels)
    pairs = entry["pairs"]
    assert (pairs["wins"][0], pairs["losses"][0]) == ([0, 40], [0, 0])
    assert pairs["adjusted"][0][1] < 1e-9
    assert pairs["low"][0][1] < 40 / 90 < pairs["high"][0][1]
    assert (pairs["different"], pairs["tested"], entry["images"]) == (1, 1, 90)


def test_runs_on_other_images_are_not_compared(tmp_path: Path) -> None:
    labels = np.arange(30) % 3
    for name, fingerprint, count in (("a", "x", 30), ("b", "y", 30), ("c", "x", 29), ("d", "x", 30)):
        write_predictions(write_run(tmp_path / name, name), labels[:count], labels[:count], fingerprint=fingerprint)
    write_run(tmp_path / "without", "without")
    (write_run(tmp_path / "damaged", "damaged") / "predictions.parquet").write_text("damaged")
    runs, _ = read_runs([str(tmp_path)])
    groups = [sorted(runs[i].label for i in entry["runs"]) for entry in compare_predictions(runs)]
    assert sorted(groups, key=len) == [["b"], ["c"], ["a", "d"]] or sorted(groups, key=len) == [["c"], ["b"], ["a", "d"]]


def test_a_confusion_matrix_counts_every_image(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    labels, classes = generator.integers(0, 3, (2, 100))
    (entry,) = predicted(tmp_path, {"a": classes}, labels)
    expected = [[int(((labels == i) & (classes == j)).sum()) for j in range(3)] for i in range(3)]
    assert [row[:3] for row in entry["confusion"]["counts"][0]] == expected
    assert [row[3] for row in entry["confusion"]["counts"][0]] == [0, 0, 0]


def test_of_many_classes_those_with_most_errors_are_shown_and_the_others_are_one_column(tmp_path: Path) -> None:
    labels = np.repeat(np.arange(100), 2)
    classes = labels.copy()
    classes[100:130:2] = 99  # classes 50 to 64
    (entry,) = predicted(tmp_path, {"a": classes}, labels, names=tuple(map(str, range(100))))
    shown, counts = entry["confusion"]["classes"], np.array(entry["confusion"]["counts"][0])
    assert {*range(50, 65), 99} <= set(shown)
    assert counts.shape == (MAX_CLASSES, MAX_CLASSES + 1)
    assert (counts.sum(axis=1) == 2).all()


def test_images_on_which_runs_disagree_are_listed_with_both_predictions(tmp_path: Path) -> None:
    labels = np.arange(30) % 3
    one, two = labels.copy(), labels.copy()
    one[4], two[7] = (labels[4] + 1) % 3, (labels[7] + 2) % 3
    one[9] = two[9] = (labels[9] + 1) % 3  # Both are wrong in the same way: no disagreement.
    (entry,) = predicted(tmp_path, {"one": one, "two": two}, labels)
    found = entry["disagreements"]
    assert (found["total"], found["index"], found["path"]) == (2, [4, 7], ["4.png", "7.png"])
    assert found["label"] == [int(labels[4]), int(labels[7])]
    assert {tuple(row) for row in found["class"]} == {(int(one[4]), int(one[7])), (int(two[4]), int(two[7]))}
    assert found["thumbnail"] == [None, None]


def test_thumbnails_are_those_of_files_below_the_folder_of_the_data(tmp_path: Path) -> None:
    from PIL import Image

    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (300, 200), "red").save(images / "0.png")
    (images / "1.png").write_text("no image")
    labels = np.zeros(3, dtype=int)
    for name, classes in (("a", labels), ("b", labels + 1)):
        folder = write_run(tmp_path / "runs" / name, name, config={"data.root": str(images)})
        write_predictions(folder, labels, classes)
    (entry,) = compare_predictions(read_runs([str(tmp_path / "runs")])[0])
    first, *others = entry["disagreements"]["thumbnail"]
    assert first.startswith("data:image/jpeg;base64,")
    assert others == [None, None]


def test_the_data_of_the_page_is_plain_json(three: Path) -> None:
    labels = np.arange(30) % len(CLASSES)
    for name in "abc":
        write_predictions(three / name, labels, np.roll(labels, ord(name)))
    data = page_data(read_runs([str(three)])[0])
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert [run["label"] for run in data["runs"]] == ["digits/b", "digits/c", "digits/a"]


def test_a_comparison_needs_no_torch(three: Path) -> None:
    """Importing it would take longer than comparing a hundred runs."""
    code = "import sys; sys.modules['torch'] = None; from swin_lab.commands.app import main; "
    code += f"sys.exit(main(['compare', {str(three)!r}, '-o', 'page.html']))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=three, env=environment)
    assert done.returncode == 0, done.stderr


def test_the_wall_time_of_a_real_run_increases_with_its_updates(trained: Path) -> None:
    curve = read_curves(trained, max_points=100).by_metric["val/acc1"]
    record = json.loads((trained / "results.json").read_text())
    assert curve.seconds is not None
    assert 0 < curve.seconds[0] < curve.seconds[-1] < record["run.wall_seconds"]
