"""`swin-lab init DIR`: a new project that extends swin_lab."""

import shlex
import shutil
from pathlib import Path
from typing import Annotated

import typer

from swin_lab.errors import UserError

SKELETON = Path(__file__).parent / "skeleton"
"""Folder of the files that are copied; the tests run them."""


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
) -> None:
    """Write train.py, eval.py and an editable conf/ that extends the configurations of swin_lab.

    Example: [bold]swin-lab init my_project[/bold]
    """
    target = folder.expanduser().absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} exists and is not an empty folder; nothing was written. Choose a new one")
    try:
        shutil.copytree(SKELETON, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    except OSError as error:  # shutil.Error is a subclass.
        raise UserError(f"cannot write {target}: {error.strerror or error}") from error
    for file in sorted(path for path in target.rglob("*") if path.is_file()):
        print(f"{'written':<10} {folder / file.relative_to(target)}")
    print(f"{'train':<10} {shlex.join(['python', str(folder / 'train.py'), 'experiment=my_experiment'])}")
    by_command = ["swin-lab", "train", "--config-dir", str(folder / "conf"), "experiment=my_experiment"]
    print(f"{'or':<10} {shlex.join(by_command)}")
