"""Makes the figures of docs/how-swin-works.md again, by the commands that the page shows.

python docs/figures.py DIGITS.safetensors     # the trained weights that the page makes in its first section
"""

import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image

from swin_lab.commands.app import main
from swin_lab.data import Digits

FOLDER = Path(__file__).parent / "how-swin-works"


def draw(weights: str, work: Path) -> None:
    """Runs the commands in a folder."""
    image = work / "three.png"
    Image.fromarray(Digits().val.images[8]).save(image)
    commands = [
        ["look", weights, str(image), "-o", str(work / "attention")],
        ["look", weights, str(image), "--stage", "1", "--pixel", "14", "20", "-o", str(work / "token")],
        ["explain", "swin_large_patch4_window7_224", "-o", str(work / "swin_large.png")],
    ]
    for command in commands:
        if main(command) != 0:
            raise SystemExit(f"failed: {command}")


def keep_palette(file: Path, name: str) -> None:
    """Writes a drawing with 256 colours on white, which makes its file several times as small."""
    with Image.open(file) as figure:
        page = Image.alpha_composite(Image.new("RGBA", figure.size, "white"), figure.convert("RGBA")).convert("RGB")
    page.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(FOLDER / name, optimize=True)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        draw(str(Path(sys.argv[1]).absolute()), work)
        shutil.copy(work / "attention" / "attention_three.png", FOLDER / "attention.png")
        shutil.copy(work / "attention" / "position_bias.png", FOLDER / "position_bias.png")
        shutil.copy(work / "token" / "attention_three.png", FOLDER / "token.png")
        keep_palette(work / "swin_large.png", "swin_large.png")
