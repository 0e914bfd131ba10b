"""`swin-lab train` and `swin-lab eval`: train.py and eval.py without a checkout."""

from typing import Annotated

import typer

from swin_lab.commands.arguments import complete_override

HydraArguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Overrides and Hydra flags, as for train.py and eval.py.",
        autocompletion=complete_override,
        show_default=False,
    ),
]


def train(arguments: HydraArguments = None) -> None:
    """Train a model. All choices and keys: [bold]swin-lab train --help[/bold]"""
    from swin_lab.run.entry import main

    raise typer.Exit(main("train", arguments or [], launcher="swin-lab"))


def evaluate(arguments: HydraArguments = None) -> None:
    """Evaluate a checkpoint. All choices and keys: [bold]swin-lab eval --help[/bold]"""
    from swin_lab.run.entry import main

    raise typer.Exit(main("eval", arguments or [], launcher="swin-lab"))
