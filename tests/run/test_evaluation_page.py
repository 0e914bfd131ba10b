"""eval.py page=true: the page of an evaluation, as text and in headless Chromium without a network."""

import re
from pathlib import Path

import numpy as np
import pytest
from conftest import Command
from pages import look, needs_chromium

from swin_lab.report.calibration import reliability
from swin_lab.report.evaluation import Curve, Matrix, Sheet, Table, write_page

RECORD = {
    "checkpoint": "/runs/</script><b>.ckpt",
    "run.images": 300,
    "run.ended": "2026-01-31T12:00:00",
    "data.source": "Folder",
    "preprocessing.description": "own",
    "metrics.final.acc1": 0.9,
    "metrics.final.loss": 0.5,
    "formats.acc1.label": "top-1",
    "formats.acc1.percent": True,
    "formats.loss.label": "loss",
    "formats.loss.percent": False,
    "intervals.acc1.low": 0.86,
    "intervals.acc1.high": 0.93,
    "calibration.same_images": True,
}


def test_eval_writes_the_page_only_on_request_and_it_loads_nothing(command: Command, trained: Path) -> None:
    assert command("eval", f"checkpoint={trained}", "out=without").code == 0
    outcome = command("eval", f"checkpoint={trained}", "out=with", "page=true")
    assert outcome.code == 0, outcome.err
    assert not (trained.parents[2] / "without" / "page.html").exists()
    text = (trained.parents[2] / "with" / "page.html").read_text()
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=", text.replace("</script>", ""))
    assert '"run.images","30"' in text  # the record


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of 45 classes, with the curves without and with a temperature."""
    generator = np.random.default_rng(0)
    names = [f"<b>{i}" for i in range(45)]
    confidence = generator.uniform(0.2, 1, 300)
    curves = [Curve(label, reliability(confidence, generator.random(300) < confidence)) for label in ("before", "after")]
    images = [np.zeros((8, 8, 3), np.uint8), np.full((100, 300, 3), 200, np.uint8)]
    rows = [[f"class {i}", f"{i * 400:,}", f"{i}.00%", f"{i}.0% to {i + 1}.0%"] for i in (9, 10, 2)]
    file = tmp_path_factory.mktemp("page") / "page.html"
    write_page(
        RECORD,
        file,
        tables=[Table("Accuracy per class", ["class", "images", "accuracy", "interval"], rows)],
        matrices=[Matrix("top-1", generator.integers(0, 9, (45, 45)), names, "truth", "prediction")],
        curves=curves,
        sheets=[Sheet("Mistakes", images, ["a → b 90%", "<i>"])],
    )
    return file


@needs_chromium
@pytest.mark.browser
def test_the_page_shows_metrics_with_intervals_calibration_confusions_mistakes_and_the_record(page: Path) -> None:
    code = """
      found.metrics = pick("#metrics div"); found.title = document.title;
      found.captions = pick(".sheet figcaption"); found.images = document.querySelectorAll(".sheet img").length;
      found.curves = document.querySelectorAll("#reliability .scatterlayer .trace").length;
      found.matrix = document.querySelectorAll("#matrices .heatmaplayer image").length; found.note = pick("#matrices .note");
      found.calibration = pick("#calibration-note")[0].includes("on the same images");
      const filter = document.getElementById("filter");
      filter.value = "run.IMAGES"; filter.dispatchEvent(new Event("input"));
      found.record = pick("#record tbody td");"""
    assert look(page, code) == {
        "errors": [],
        "metrics": ["top-190.0000%95% interval 86.00% to 93.00%", "loss0.500000"],
        "title": "Evaluation of script><b>.ckpt",
        "captions": ["a → b 90%", "<i>"],
        "images": 2,
        "curves": 3,
        "matrix": 1,
        "note": ["45 classes in 25 groups of often confused ones, named after one of them."],
        "calibration": True,
        "record": ["run.images", "300"],
    }


@needs_chromium
@pytest.mark.browser
def test_a_click_on_the_name_of_a_column_sorts_by_numbers(page: Path) -> None:
    code = """
      const click = i => document.querySelectorAll("#tables th button")[i].click();
      const column = i => pick(`#tables tbody td:nth-child(${i})`);
      found.before = column(1); click(1); found.images = column(2); click(1); found.reverse = column(2);
      click(0); found.names = column(1); click(3); found.ranges = document.querySelectorAll("#tables svg.range").length;
      found.sort = pick("#tables th", th => th.ariaSort);"""
    assert look(page, code) == {
        "errors": [],
        "before": ["class 9", "class 10", "class 2"],
        "images": ["800", "3,600", "4,000"],
        "reverse": ["4,000", "3,600", "800"],
        "names": ["class 2", "class 9", "class 10"],
        "ranges": 3,
        "sort": ["none", "none", "none", "ascending"],
    }
