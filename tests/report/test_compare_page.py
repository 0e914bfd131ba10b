"""The page of `swin-lab compare` in a real browser, headless Chromium without a network."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, Command
from pages import look as opened
from pages import needs_chromium
from synthetic_runs import write_predictions, write_run

from swin_lab.report.compare import read_runs, write_page

LEARNING_RATES, DROP_RATES = (1e-4, 3e-4, 1e-3), (0, 0.1)

HELPERS = """
const column = key => pick("#runs th", th => th.dataset.key).indexOf(key);
const cells = key => pick(`#runs tbody td:nth-child(${column(key) + 1})`);
const curves = id => document.querySelectorAll(`#${id} .scatterlayer .trace`).length;
"""


def look(page: Path, code: str, *, state: str = "") -> dict[str, Any]:
    """Returns what code finds that uses the functions above."""
    return opened(page, HELPERS + code, state=state)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of six runs, as of a sweep of two keys, with predictions."""
    folder = tmp_path_factory.mktemp("page")
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 300)
    for job in range(6):
        lr, rate = LEARNING_RATES[job // 2], DROP_RATES[job % 2]
        differs = [f"optimizer.lr={lr}", f"model.drop_path_rate={rate}"]
        config = {"optimizer.lr": lr, "model.drop_path_rate": rate, "name": str(job), "seed": 0, "task.note": "</script><b>"}
        changes = {"run.group": "sweep", "run.job": job, "run.differs": differs}
        run = write_run(folder / str(job) / "time", " ".join(differs), 0.5 + 0.07 * (job * 5 % 6), config, changes=changes)
        wrong = generator.random(300) < 0.1 * job
        write_predictions(run, labels, np.where(wrong, (labels + 1) % 3, labels))
    write_page(read_runs([str(folder)])[0], folder / "page.html")
    return folder / "page.html"


def test_the_page_loads_nothing_and_text_of_a_run_ends_no_script(page: Path, tmp_path: Path) -> None:
    text = page.read_text()
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=", text.replace("</script>", ""))
    label = "</script><script>alert(1)</script>"
    write_run(tmp_path / "a", label, 0.5)
    write_page(read_runs([str(tmp_path)])[0], tmp_path / "page.html")
    assert label not in (tmp_path / "page.html").read_text()


@needs_chromium
@pytest.mark.browser
def test_the_page_shows_six_curves_and_a_click_sorts_by_top_1_and_the_swept_keys_are_named(page: Path) -> None:
    code = """
      const isSwept = key => DATA.columns.some(c => c.key === key && c.kind === "config");
      found.keys = pick("#runs th", th => th.dataset.key).filter(isSwept);
      found.curves = [curves("curves-left"), curves("curves-right")];
      const click = key => document.querySelector(`#runs th[data-key="${key}"] button`).click();
      click("run"); click("best.acc1"); found.once = cells("best.acc1"); click("best.acc1"); found.twice = cells("best.acc1");
      found.state = location.hash; found.values = pick("#values tbody td:nth-child(2)");
      found.text = pick("#legend span:not(.swatch)"); found.images = document.querySelectorAll("#images tbody tr").length;
      found.matrices = document.querySelectorAll("#matrix-a .heatmaplayer image, #matrix-b .heatmaplayer image").length;
      found.bars = document.querySelectorAll("#bars .barlayer .point").length;
      found.points = document.querySelectorAll("#scatter .point").length;
      found.parallel = document.querySelectorAll("#parallel .axis-title").length;"""
    found = look(page, code)
    assert found["errors"] == []
    assert found["curves"] == [6, 6]
    assert found["keys"] == ["optimizer.lr", "model.drop_path_rate"]
    assert found["values"] == ["optimizer.lr", "model.drop_path_rate"]
    assert found["once"] == ["85.00%", "78.00%", "71.00%", "64.00%", "57.00%", "50.00%"]
    assert found["twice"] == found["once"][::-1]
    assert found["state"] == "#sort=best.acc1&order=asc"
    assert (len(found["text"]), found["matrices"], found["bars"], found["points"], found["parallel"]) == (6, 2, 18, 6, 3)
    assert found["images"] > 10


@needs_chromium
@pytest.mark.browser
def test_the_address_of_the_page_keeps_its_state_and_a_filter_applies_to_all(page: Path) -> None:
    state = "sort=optimizer.lr&order=desc&filter=lr>=3e-4%20drop_path_rate=0.1&x=update&xscale=log&smooth=0.6"
    code = """
      found.lr = cells("optimizer.lr"); found.rate = cells("model.drop_path_rate"); found.curves = curves("curves-left");
      found.title = pick("#curves-left .xtitle"); found.shown = document.getElementById("shown").textContent;
      found.compared = document.querySelectorAll("#significance tbody tr").length;"""
    found = look(page, code, state=state)
    assert found["errors"] == []
    assert (found["lr"], found["rate"]) == (["0.001", "0.0003"], ["0.1", "0.1"])
    assert found["curves"] == 4  # two runs, smoothed and not
    assert (found["title"], found["shown"]) == (["update"], "2 of 6 runs are shown")
    assert found["compared"] <= 2


@needs_chromium
@pytest.mark.browser
def test_the_page_of_a_single_run_that_has_just_begun_has_no_error(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "<b>&amp;", None, state="running", updates=0, changes={"run.images_per_second": None})
    write_page(read_runs([str(tmp_path)])[0], tmp_path / "page.html")
    found = look(tmp_path / "page.html", 'found.runs = cells("run"); found.states = cells("state");')
    assert (found["errors"], found["runs"], found["states"]) == ([], ["<b>&amp;"], ["crashed"])


@needs_chromium
@pytest.mark.browser
@pytest.mark.slow
def test_a_sweep_prints_the_command_that_writes_its_page(process: Callable[..., Any], cli: Command, tmp_path: Path) -> None:
    overrides = [entry for entry in TINY if not entry.startswith(("optimizer.lr", "name"))]
    outcome = process("train", "-m", *overrides, "optimizer.lr=1e-4,1e-3", "model.drop_path_rate=0,0.1", "trainer.max_epochs=1")
    assert outcome.code == 0, outcome.err
    (line,) = [line for line in outcome.out.splitlines() if line.startswith("compare")]
    words = line.split()
    assert words[1:5] == ["python", "-m", "swin_lab", "compare"]
    written = cli(*words[4:])
    assert written.code == 0, written.err
    code = 'found.keys = DATA.columns.filter(c => c.kind === "config").map(c => c.key); found.curves = curves("curves-left");'
    code += "found.sets = DATA.predictions.map(set => set.runs.length);"
    assert look(tmp_path / "page.html", code) == {
        "keys": ["optimizer.lr", "model.drop_path_rate"],
        "curves": 4,
        "sets": [4],
        "errors": [],
    }
