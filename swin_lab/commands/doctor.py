"""`swin-lab doctor`."""

from typing import Annotated

import typer

from swin_lab.commands.arguments import ConfigDir, complete_override


def doctor(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Overrides of train.py, for the needs of a run: model=... global_batch=...",
            autocompletion=complete_override,
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="Print JSON.")] = False,
    config_dir: ConfigDir = None,
) -> None:
    """Check versions, GPUs, memory, disk and limits before a run; the exit code is 1 if there is a problem.

    Example: [bold]swin-lab doctor experiment=swin_tiny_patch4_window7_224 trainer.devices=8[/bold]
    """
    import json

    from swin_lab.report import print_table
    from swin_lab.run.checks import check_settings
    from swin_lab.run.components import build_optimization
    from swin_lab.run.compose import composed
    from swin_lab.run.doctor.examination import examine

    config = composed(overrides or [], config_dir=config_dir)
    check_settings(config)
    build_optimization(config["optimizer"], config["schedule"], config["ema"])  # It is only checked.
    findings = list(examine(config))
    problems = sum(finding.state == "problem" for finding in findings)
    if as_json:
        print(json.dumps({"problems": problems, "findings": [finding.as_dict() for finding in findings]}, indent=2))
    else:
        rows = [[one.check, one.state, "\n".join(filter(None, (one.found, one.advice)))] for one in findings]
        print_table(["check", "state", "found and advice"], rows, left=("state", "found and advice"), framed=False)
    raise typer.Exit(1 if problems else 0)
