"""Pages in a real browser, headless Chromium without a network."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
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


WITH_PIPE = """
import os, sys
for number, given in [(3, sys.argv[1]), (4, sys.argv[2])]:
    os.dup2(int(given), number + 60)
for number in (3, 4):
    os.dup2(number + 60, number)
os.execvp(sys.argv[3], sys.argv[3:])"""
"""Starts Chromium with the descriptors 3 and 4, which it reads and writes."""


class Browser:
    """Headless Chromium that takes commands from a pipe, for pages that load parts of themselves as they go."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        to_browser, own_output = os.pipe()
        own_input, from_browser = os.pipe()
        command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
        command += [f"--user-data-dir={profile}", "--window-size=1400,1000"]
        start = [sys.executable, "-c", WITH_PIPE, str(to_browser), str(from_browser), *command]
        self._process = subprocess.Popen(start, pass_fds=(to_browser, from_browser), stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self._output, self._input = os.fdopen(own_output, "wb", buffering=0), os.fdopen(own_input, "rb")
        self._number, self._session = 0, ""

    def __enter__(self) -> "Browser":
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._output.close()
        self._input.close()

    def open(self, address: str) -> None:
        """Goes to an address."""
        self._call("Page.navigate", url=address)

    def wait_for(self, expression: str, seconds: float = 60) -> Any:
        """Returns the value of JavaScript once it is true; fails if it does not become true."""
        return self._evaluate(
            f"""new Promise((done, failed) => {{
              {TEXTS}
              const end = Date.now() + {1000 * seconds};
              const look = () => {{
                const value = {expression};
                if (value) done(value); else if (Date.now() > end) failed(texts().join(" | ").slice(0, 3000));
                else setTimeout(look, 200);
              }};
              look(); }})"""
        )

    def screenshot(self, file: Path) -> None:
        """Writes what is visible as a PNG."""
        file.write_bytes(base64.b64decode(self._call("Page.captureScreenshot")["data"]))

    def _evaluate(self, code: str) -> Any:
        answer = self._call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, json.dumps(answer["exceptionDetails"])[:4000]
        return answer["result"].get("value")

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": self._number, "method": method, "params": parameters} | session
        self._output.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = json.loads(self._message())
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _message(self) -> bytes:
        found = bytearray()
        while (byte := self._input.read(1)) != b"\0":
            assert byte, "the browser has ended"
            found += byte
        return bytes(found)


TEXTS = """
const walk = node => node.nodeType === 3 ? [node.textContent.trim()] : ["STYLE", "SCRIPT"].includes(node.tagName) ? [] : [
  ...[node.shadowRoot, node.contentDocument && node.contentDocument.documentElement].filter(part => part).flatMap(walk),
  ...[...node.childNodes].flatMap(walk)];
const texts = () => document.documentElement ? walk(document.documentElement).filter(text => text) : [];  // null at first
const has = text => texts().includes(text), count = pattern => texts().filter(text => pattern.test(text)).length;"""
"""Functions of the code: the texts of the page, of its frames and of its components."""
