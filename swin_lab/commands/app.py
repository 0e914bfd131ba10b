"""The program `swin-lab`: its commands, and the messages for wrong input.

The modules of the commands import torch and the rest of swin_lab inside their functions, so that `--help` and shell completion
appear at once. A new command is a function in the file of its topic and a line here.
"""

import re
import sys
from collections.abc import Sequence
from typing import Any

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from swin_lab.commands import (
    bench,
    compare,
    data,
    doctor,
    explain,
    inference,
    init,
    look,
    models,
    recipe,
    replay,
    run,
    search,
    vectors,
    weights,
)
from swin_lab.errors import UserError, did_you_mean, explain_path
from swin_lab.interruption import ending_at_ctrl_c

OK, WRONG_INPUT, INTERRUPTED = 0, 2, 130

RUNS, USE, WEIGHTS = "Train and evaluate", "Use a trained model", "Models and weights"
RECIPES, DATA, SPEED = "Recipes", "Data sets", "Speed"
"""Panels of `swin-lab --help`."""

HYDRA = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
"""Settings of commands that leave their whole command line to Hydra."""


class _Group(TyperGroup):
    """Prints "interrupted" after Ctrl-C in a command; Typer would only return an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with ending_at_ctrl_c():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            print("\ninterrupted", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    name="swin-lab",
    cls=_Group,
    help="Train, evaluate and use Swin Transformers.",
    epilog="Each command explains itself: swin-lab COMMAND --help",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(rich_help_panel=RUNS, context_settings=HYDRA, add_help_option=False)(run.train)
app.command(rich_help_panel=RUNS, context_settings=HYDRA, add_help_option=False, name="eval")(run.evaluate)
app.command(rich_help_panel=RUNS)(compare.compare)
app.command(rich_help_panel=RUNS)(replay.replay)
app.command(rich_help_panel=RUNS)(init.init)
app.command(rich_help_panel=RUNS)(doctor.doctor)
app.command(rich_help_panel=USE)(inference.predict)
app.command(rich_help_panel=USE)(inference.embed)
app.command(rich_help_panel=USE)(search.search)
app.command(rich_help_panel=USE)(search.duplicates)
app.command(rich_help_panel=USE)(vectors.knn)
app.command(rich_help_panel=USE)(vectors.probe)
app.command(rich_help_panel=USE, name="linear-probe")(vectors.linear_probe)
app.command(rich_help_panel=USE, name="map")(vectors.map_images)
app.command(rich_help_panel=WEIGHTS)(models.models)
app.command(rich_help_panel=WEIGHTS)(explain.explain)
app.command(rich_help_panel=WEIGHTS)(look.look)
app.command(rich_help_panel=WEIGHTS)(weights.inspect)
app.command(rich_help_panel=WEIGHTS)(weights.convert)
app.command(rich_help_panel=WEIGHTS)(weights.export)

_recipe = typer.Typer(help="Compare a configuration with a published recipe.")
_recipe.command()(recipe.diff)
_recipe.callback()(lambda: None)  # Without it, Typer would call the only command of the group `recipe` itself.
app.add_typer(_recipe, name="recipe", rich_help_panel=RECIPES)
app.command(rich_help_panel=RECIPES)(recipe.lr)

_data = typer.Typer(help="Check, pack and prepare data sets.")
_data.command()(data.check)
_data.command()(data.pack)
_data.command()(data.prepare_val)
app.add_typer(_data, name="data", rich_help_panel=DATA)

_bench = typer.Typer(help="Measure speed: networks, the data pipeline, a training run.")
_bench.command()(bench.model)
_bench.command()(bench.data)
_bench.command()(bench.run)
app.add_typer(_bench, name="bench", rich_help_panel=SPEED)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: the command and its arguments. If None, the command line of this process.

    Returns:
        The exit code: 0; 2 for wrong input, with a message on stderr; 130 after Ctrl-C.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if "" in given:
            shown = " ".join(word or "''" for word in ["swin-lab", *given])
            raise UserError(f"an argument is empty: {shown}\nA variable of the shell may not be set")
        code = app(args=given or ["--help"], prog_name="swin-lab", standalone_mode=False)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_INPUT
    except OSError as error:
        if (message := explain_path(error)) is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return WRONG_INPUT
    except typer.TyperException as error:  # an unknown command or option, a missing or invalid value
        print(f"error: {_in_native_form(error)}", file=sys.stderr)
        return WRONG_INPUT
    return code if isinstance(code, int) else OK


def _in_native_form(error: typer.TyperException) -> str:
    """Returns a message of Typer in the form of swin_lab's own messages."""
    context = getattr(error, "ctx", None)
    hint = "" if context is None else f"\nSee {context.command_path} --help"
    if isinstance(error.__cause__, ValidationError) and (expected := _expected_number(error.__cause__)):
        return f"{error.param.opts[0]}={error.__cause__.errors()[0]['input']} must be {expected}{hint}"  # type: ignore[attr-defined]
    message = error.format_message().rstrip(".").replace("Value error, ", "")
    choice = re.search(r"'([^']*)' is not one of (.*)", message)
    if choice:
        choices = re.findall(r"'([^']*)'", choice[2])
        message = f"{message[: choice.start()]}{choice[1]} is unknown{did_you_mean(choice[1], choices)}"
    message = re.sub(r"\.? Did you mean (.*)\?$", lambda found: f"; did you mean {found[1].replace(chr(39), '')}?", message)
    message = re.sub(r" \(Possible options: ([^)]*)\)$", r"; did you mean \1?", message)
    message = message[:1].lower() + message[1:]
    return message if "did you mean" in message else f"{message}{hint}"


def _expected_number(error: ValidationError) -> str | None:
    """Returns which number an option takes, or None if its value is wrong for another reason."""
    details = error.errors()[0]
    if details["type"].startswith(("int_", "float_")):
        return "an integer" if details["type"].startswith("int_") else "a number"
    bounds = {"greater_than_equal": "least", "less_than_equal": "most"}
    if details["type"] not in bounds:
        return None
    bound = next(iter(details["ctx"].values()))
    of = f"a number of at {{}} {bound:g}" if isinstance(bound, float) else f"an integer of at {{}} {bound}"
    return of.format(bounds[details["type"]])


if __name__ == "__main__":
    sys.exit(main())
