"""The map's page, as text and in headless Chromium without a network."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from swin_lab.errors import UserError
from swin_lab.report.embedding_map import Point, write_map

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

REPORT = """<pre id="report"></pre><script>
const map = document.getElementById("map"), found = {};
const countTraces = () => map.querySelectorAll(".scatterlayer .trace").length;
const visible = () => map.data.map(trace => trace.marker.opacity);
const point = row => {
  const {xaxis: x, yaxis: y} = map._fullLayout, box = map.getBoundingClientRect();
  return {clientX: box.left + x._offset + x.l2p(DATA.x[row]), clientY: box.top + y._offset + y.l2p(DATA.y[row])};
};
const hover = row => ["mouseover", "mousemove"].forEach(type =>
  map.querySelector(".nsewdrag").dispatchEvent(new MouseEvent(type, {...point(row), bubbles: true})));
const box = () => ["label", "path"].map(id => document.getElementById(id).textContent);
const type = text => {
  document.getElementById("emphasised").value = text;
  document.getElementById("emphasised").dispatchEvent(new Event("input"));
};
setTimeout(() => { %s
  setTimeout(() => { %s
    document.getElementById("report").textContent = JSON.stringify({...found, errors}); }, 500); }, 1000);
</script></body>"""
"""It is added to a copy of the page: code that acts as a user does, and code that reports what the page shows then."""


def points(classes: int, per_class: int = 3, label: str = "class {}") -> list[Point]:
    return [
        Point(float(i), float((i * 7) % 11), f"photos/{i}.png", label.format(i // per_class), Image.new("RGB", (24, 16), "red"))
        for i in range(classes * per_class)
    ]


def written(some: list[Point], folder: Path) -> Path:
    write_map(some, folder / "map.html", title="vectors.parquet", note="A note.")
    return folder / "map.html"


def look(page: Path, act: str, report: str) -> dict[str, Any]:
    """Opens a copy of a page in Chromium and returns what the code has put into `found`, and the errors of the page."""
    first = "<head><script>const errors = []; onerror = e => { errors.push(String(e)); };</script>"
    copy = page.with_name("copy.html")
    text = page.read_text().replace("<head>", first).removesuffix("</body>\n</html>\n")
    copy.write_text(text + REPORT % (act, report))
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,900", "--dump-dom"]
    command += ["--virtual-time-budget=10000", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command += [f"--user-data-dir={page.parent / 'profile'}", f"file://{copy}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="report">(.+?)</pre>', done.stdout, re.S)
    assert found is not None, done.stderr
    values: dict[str, Any] = json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    return values


def test_the_page_loads_nothing_and_names_end_no_script(tmp_path: Path) -> None:
    name = "</script><script>alert(1)</script>"
    text = written([Point(0, 1, name, name, None), *points(1)], tmp_path).read_text()
    assert not re.search(r"<(script|link|iframe)[^>]*(src|href)=", text.replace("</script>", ""))
    assert name not in text


@pytest.mark.parametrize("label", ["{}", "class {}"])
def test_numbers_in_the_names_of_classes_are_in_their_order(tmp_path: Path, label: str) -> None:
    text = written(points(12, label=label), tmp_path).read_text()
    found = re.search(r'"classes":(\[.*?\])', text)
    assert found is not None
    assert json.loads(found[1]) == [label.format(i) for i in range(12)]


def test_a_page_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write .*map\.html: no such file or directory"):
        written(points(1), tmp_path / "nowhere")


@needs_chromium
@pytest.mark.browser
def test_pointing_at_an_image_shows_it_and_a_class_can_be_emphasised(tmp_path: Path) -> None:
    act = 'found.traces = countTraces(); found.legend = map.querySelectorAll(".legendtext").length; hover(4);'
    report = """found.box = box(); found.width = document.getElementById("image").width;
      found.hidden = document.getElementById("hover").hidden; type("class 2"); found.visible = visible();
      found.shown = document.getElementById("shown").textContent; type("zebra");
      found.unknown = document.getElementById("shown").textContent;"""
    found = look(written(points(4), tmp_path), act, report)
    assert found["errors"] == []
    assert (found["traces"], found["legend"]) == (4, 4)
    assert (found["box"], found["hidden"], found["width"]) == (["class 1", "photos/4.png"], False, 48)
    assert (found["visible"], found["shown"]) == ([0.08, 0.08, 0.85, 0.08], "class 2: 3 images")
    assert found["unknown"] == "no such class"


@needs_chromium
@pytest.mark.browser
def test_of_many_classes_the_one_under_the_mouse_is_emphasised(tmp_path: Path) -> None:
    act = 'found.traces = countTraces(); found.legend = map.querySelectorAll(".legendtext").length; hover(4);'
    report = "found.emphasised = map.data[1].customdata; found.box = box();"
    found = look(written(points(60), tmp_path), act, report)
    assert found["errors"] == []
    assert (found["legend"], found["emphasised"], found["box"]) == (0, [3, 4, 5], ["class 1", "photos/4.png"])


@needs_chromium
@pytest.mark.browser
def test_images_without_label_and_thumbnail_are_points_all_the_same(tmp_path: Path) -> None:
    some = [Point(float(i), float(i), f"{i}.png", None, None) for i in range(5)]
    act = "found.points = map.querySelectorAll('.point').length; hover(2);"
    found = look(written(some, tmp_path), act, 'found.box = box(); found.image = document.getElementById("image").hidden;')
    assert found == {"errors": [], "points": 5, "box": ["", "2.png"], "image": True}
