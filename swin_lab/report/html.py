"""HTML pages that are one file and need no network: Plotly, the data and the code of the page are inside."""

import base64
import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from swin_lab.errors import UserError


def check_plotly() -> None:
    """Raises UserError if Plotly is not installed."""
    if find_spec("plotly") is None:
        raise UserError("the page needs the package plotly: pip install plotly")


SHARED = ("page.css", "page.js")
"""What pages of tables and charts share: their look, and functions that draw them."""


def image_address(image: Image.Image, quality: int = 80) -> str:
    """Returns an address that contains an image: as PNG if it has at most 32 pixels a side, else as JPEG.

    Args:
        image: in RGB.
        quality: of the JPEG.
    """
    written = BytesIO()
    kind = "png" if max(image.size) <= 32 else "jpeg"
    image.save(written, kind, quality=quality, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(written.getvalue()).decode()}"


def write_html(file: Path, *, title: str, data: Any, assets: Sequence[str]) -> None:
    """Writes a page.

    Args:
        file: the page; an existing file is replaced.
        title: plain text.
        data: plain Python, which the page finds as JSON in its element `data`; without NaN and infinity.
        assets: paths in swin_lab.report of style sheets (.css), the body (.html), and scripts (.js), which run after Plotly.

    Raises:
        UserError: the file cannot be written, or Plotly is not installed.
    """
    check_plotly()
    from plotly.offline import get_plotlyjs

    texts = {name: (files("swin_lab.report") / name).read_text("utf-8") for name in assets}
    style, body, *_ = ("".join(text for name, text in texts.items() if name.endswith(end)) for end in (".css", ".html"))
    scripts = [text for name, text in texts.items() if name.endswith(".js")]
    values = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    parts = [
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>\n{style}</style>\n</head>\n<body>\n{body}",
        f'<script type="application/json" id="data">{values}</script>',
        *(f"<script>{code}</script>" for code in (get_plotlyjs(), *scripts)),
        "</body>\n</html>\n",
    ]
    try:
        file.write_text("\n".join(parts), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {file}: {(error.strerror or str(error)).lower()}") from error
