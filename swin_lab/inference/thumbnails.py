"""Small versions of images, which are read again by the paths that a file of vectors contains."""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from swin_lab.data.decoding import UNREADABLE, decode, first_line
from swin_lab.data.images import read_image_file
from swin_lab.errors import UserError
from swin_lab.inference.inputs import Inputs, open_inputs

IN_ARCHIVE = re.compile(r"(?P<archive>.*\.(zip|tar))@/|(?P<parquet>.*\.parquet) row \d+$", re.IGNORECASE | re.DOTALL)
"""The paths of images in archives, see `swin_lab.inference.inputs.Inputs.name`."""
MAX_NAMED = 5
"""Images that are named at most if they cannot be read again."""


class Thumbnails:
    """Reads images by their paths.

    Args:
        paths: the images that may be asked for.
        side: longest side of the result, in pixels; smaller images are not enlarged.
    """

    def __init__(self, paths: Sequence[str], side: int) -> None:
        self._side = side
        self._archive_of = {path: archive for path in paths if (archive := _archive(path)) is not None}
        self._archives: dict[str, tuple[Inputs, dict[str, int]]] = {}
        self.missing: dict[str, str] = {}
        """Path of an image that could not be read -> the reason."""

    def __call__(self, path: str) -> Image.Image | None:
        """Returns an image in RGB, or None if it cannot be read."""
        try:
            if path in self._archive_of:
                inputs, positions = self._opened(self._archive_of[path])
                encoded = inputs.encoded(positions[path])
            else:
                encoded = read_image_file(Path(path))
            image = decode(encoded)
        except KeyError:
            self.missing[path] = "the file does not contain it"
        except (UserError, *UNREADABLE) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
            self.missing[path] = reason
        else:
            image.thumbnail((self._side, self._side), Image.Resampling.LANCZOS)
            return image
        return None

    def name_missing(self) -> None:
        """Names on stderr what could not be read."""
        for path, reason in list(self.missing.items())[:MAX_NAMED]:
            print(f"missing image {path}: {reason}", file=sys.stderr)
        if len(self.missing) > MAX_NAMED:
            print(f"missing image and {len(self.missing) - MAX_NAMED:,} more", file=sys.stderr)
        if any(not Path(path).is_absolute() for path in self.missing):
            print("Relative paths start in the folder where swin-lab embed was called", file=sys.stderr)

    def _opened(self, archive: str) -> tuple[Inputs, dict[str, int]]:
        if archive not in self._archives:
            wanted = {path for path, where in self._archive_of.items() if where == archive}
            inputs = open_inputs([archive])
            names = ((inputs.name(index), index) for index in range(len(inputs)))
            self._archives[archive] = inputs, {name: index for name, index in names if name in wanted}
        return self._archives[archive]


def _archive(path: str) -> str | None:
    """Returns the file that contains an image, or None if the image is a file itself."""
    found = IN_ARCHIVE.match(path)
    if found is None or Path(path).is_file():
        return None
    return found["archive"] or found["parquet"]


def read_all(thumbnails: Thumbnails, paths: Sequence[str]) -> Iterator[Image.Image | None]:
    """Yields images, and shows how many are left."""
    from swin_lab.inference.progress import shown_progress

    with shown_progress(len(paths)) as advance:
        for path in paths:
            yield thumbnails(path)
            advance(1)
