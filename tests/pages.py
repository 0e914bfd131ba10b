"""Pages in a real browser, headless Chromium without a network."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

REPORT = """<pre id="report"></pre><script>
const pick = (selector, of = node => node.textContent) => [...document.querySelectorAll(selector)].map(of);
setTimeout(() => { const found = {}; %s
  document.getElementById("report").textContent = JSON.stringify({...found, errors}); }, 1500);
</script></body>"""
"""It is added to a copy of the page: code that clicks as a user does and reports what the page shows then."""


def look(page: Path, code: str, *, state: str = "") -> dict[str, Any]:
    """Opens a copy of a page in Chromium and returns what the code has put into `found`, and the errors of the page.

    Args:
        code: JavaScript.
        state: the part of the address after #.
    """
    text = page.read_text().replace(
        "<head>", "<head><script>const errors = []; onerror = e => { errors.push(String(e)); };</script>"
    )
    copy = page.with_name("copy.html")
    copy.write_text(text.removesuffix("</body>\n</html>\n") + REPORT % code)
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,2000", "--dump-dom"]
    command += [
        "--virtual-time-budget=10000",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={page.parent / 'profile'}",
    ]
    done = subprocess.run([*command, f"file://{copy}#{state}"], capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="report">(.*?)</pre>', done.stdout, re.S)
    assert found is not None, done.stderr
    values: dict[str, Any] = json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    return values
