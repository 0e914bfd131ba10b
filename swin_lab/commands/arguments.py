"""Arguments and options that several commands share, with the completion of their values."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from swin_lab.errors import UserError
from swin_lab.paths import CONF


def complete_model(incomplete: str) -> list[str]:
    """Returns the Swin variants with this beginning. It reads file names only, as importing torch would take seconds."""
    return sorted(file.stem for file in (CONF / "model").glob("swin*.yaml") if file.stem.startswith(incomplete))


def complete_override(incomplete: str) -> list[str]:
    """Completes `group=choice` from the files of the configuration."""
    group, separator, choice = incomplete.partition("=")
    if not separator:
        return sorted(f"{folder.name}=" for folder in CONF.iterdir() if folder.is_dir() and folder.name.startswith(group))
    found = (file.stem for file in (CONF / group).glob("*.yaml") if not file.stem.startswith("_"))
    return sorted(f"{group}={name}" for name in found if name.startswith(choice))


def check_new_file(given: str, endings: Sequence[str], *, overwrite: bool) -> Path:
    """Returns the absolute path of a file that a command will write.

    Raises:
        UserError: it has the wrong ending, exists and is not to be replaced, or its folder does not exist.
    """
    file = Path(given).expanduser().absolute()
    if file.suffix.lower() not in endings:
        raise UserError(f"{file.name}: choose the ending {', '.join(endings)}")
    if file.is_dir() or not file.parent.is_dir():
        raise UserError(f"{file} is a folder" if file.is_dir() else f"{file.parent} is not a folder; create it first")
    if file.exists() and not overwrite:
        raise UserError(f"{file} exists already; nothing was written. Give another name, or --overwrite")
    return file


Source = Annotated[
    str, typer.Argument(metavar="IN", help="A weight file of any layout, a run directory, a folder, or OWNER/NAME on the hub.")
]
Name = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="The variant it contains, for V2 files that do not contain their window sizes.",
        autocompletion=complete_model,
    ),
]
Ema = Annotated[bool, typer.Option("--ema", metavar="", help="Use the EMA weights, if the file contains both.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE", help="Overrides of train.py, such as experiment=NAME.", autocompletion=complete_override
    ),
]
Devices = Annotated[int, typer.Option(metavar="N", min=1, max=10**6, help="Number of devices that share the global batch.")]
Images = Annotated[
    int | None, typer.Option(metavar="N", min=1, max=10**12, help="Images per epoch, if the data is not available.")
]
ConfigDir = Annotated[
    Path | None,
    typer.Option(metavar="DIR", exists=True, file_okay=False, help="A directory with further configuration files."),
]
