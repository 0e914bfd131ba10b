"""`swin-lab replay`."""

from typing import Annotated, Literal

import typer

PrecisionName = Literal["32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true"]
"""Equals swin_lab.run.trainer.PRECISIONS without short names, as a test checks; importing that module would import torch."""


def replay(
    dump: Annotated[str, typer.Argument(metavar="DUMP", help="The file nonfinite_UPDATE.pt of a run directory.")],
    precision: Annotated[
        PrecisionName | None, typer.Option(help="Another precision than the run's.", show_default=False)
    ] = None,
    device: Annotated[Literal["auto", "cpu", "gpu"], typer.Option(help="Where to compute.")] = "auto",
    trust: Annotated[
        bool, typer.Option("--trust", metavar="", help="Let the dump name classes from outside swin_lab, which are imported.")
    ] = False,
) -> None:
    """Compute an update again whose loss or gradient was NaN or infinite, and show where that begins.

    Example: [bold]swin-lab replay runs/NAME/TIME/nonfinite_1200.pt[/bold]
    """
    from swin_lab.report import print_lines, print_table
    from swin_lab.run.replay import replay as compute

    groups, rows = compute(dump, precision=precision, device=device, trust=trust)
    for lines in groups:
        print_lines(lines)
    if rows:
        print_table(["process", "image", "pixels", "output"], rows[:MAX_ROWS], title=f"{len(rows)} images that are not finite")


MAX_ROWS = 20
"""Number of printed rows at most."""
