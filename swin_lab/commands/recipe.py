"""`swin-lab recipe diff` and `swin-lab lr`: the values that follow from a configuration, without training."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swin_lab.commands.arguments import ConfigDir, Devices, Images, Overrides
from swin_lab.errors import UserError

if TYPE_CHECKING:
    from swin_lab.run.recipe import Recipe

POINTS = 2000
"""Number of points of the plotted curve."""


def lr(
    out: Annotated[Path, typer.Argument(metavar="OUT.png", help="A new file.")],
    overrides: Overrides = None,
    devices: Devices = 1,
    images: Images = None,
    config_dir: ConfigDir = None,
) -> None:
    """Plot the learning rate of a run and list its parameter groups, without training.

    Example: [bold]swin-lab lr rates.png experiment=swin_tiny_patch4_window7_224 --devices 8[/bold]
    """
    from swin_lab.report import draw_learning_rates, print_lines
    from swin_lab.run.compose import composed
    from swin_lab.run.recipe import build_recipe, limit_train_batches

    file = out.expanduser().absolute()
    if file.suffix.lower() != ".png" or file.exists() or not file.parent.is_dir():
        raise UserError(f"{file}: give a new .png file in a folder that exists")
    config = composed(overrides or [], config_dir=config_dir)
    recipe = build_recipe(config, devices, images)
    length = recipe.length
    if length is None:
        wanted = "the number of images is not known; give --images N"
        raise UserError(wanted if recipe.train_images is None else "the run has no end; give trainer.max_epochs=N")
    if length.total_steps < 1:
        limit, batch = limit_train_batches(config["trainer"]), recipe.batching.global_batch
        raise UserError(
            f"the run would have no update: {recipe.train_images} images are less than one batch of {batch}, "
            f"or trainer.limit_train_batches={limit} is too small"
        )
    warmup = min(recipe.optimization.schedule.warmup_steps(length), length.total_steps - 1)
    steps = sorted({*(round(i * (length.total_steps - 1) / (POINTS - 1)) for i in range(POINTS)), warmup})
    title = f"{config['name'] or recipe.model.node['_target_'].rpartition('.')[2]}: {length.total_steps:,} updates"
    epochs = [step / length.steps_per_epoch for step in steps]
    draw_learning_rates(epochs, [recipe.learning_rate(step) for step in steps], title, file)
    print_lines([("batch", f"{recipe.batching}, {recipe.train_images:,} images per epoch")])
    _print_learning_rates(
        recipe,
        {0, warmup, length.total_steps // 4, length.total_steps // 2, length.total_steps * 3 // 4, length.total_steps - 1},
    )
    _print_groups(recipe)
    print_lines([("image", str(file))])


def diff(
    overrides: Overrides = None,
    official: Annotated[
        Path | None,
        typer.Option(metavar="FILE.yaml", help="A configuration file of the official code; it is printed as overrides."),
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=10**6,
            help="Number of GPUs of the official file, whose batch size is per GPU; the default is the published one, or 8.",
            show_default=False,
        ),
    ] = None,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", metavar="", help="Exit with 1 if a value differs, and with 0 if none does.")
    ] = False,
    devices: Devices = 1,
    images: Images = None,
    config_dir: ConfigDir = None,
) -> None:
    """Print every value, given or derived, that differs from the published recipe.

    Example: [bold]swin-lab recipe diff experiment=swin_tiny_patch4_window7_224 global_batch=2048[/bold]
    """
    from swin_lab.report import print_lines, print_table
    from swin_lab.run.compose import composed
    from swin_lab.run.differences import differences
    from swin_lab.run.official import read_official
    from swin_lab.run.recipe import build_recipe

    given = overrides or []
    experiment = next((override for override in reversed(given) if _is_experiment(override)), None)  # as in Hydra, the last
    if official is None and experiment is None:
        raise UserError("name the published recipe: experiment=NAME, or --official FILE.yaml of the official code")
    own = build_recipe(composed(given, config_dir=config_dir), devices, images)
    translated = None if official is None else read_official(official, gpus)
    published_overrides = [experiment or ""] if translated is None else translated.overrides
    try:
        published = build_recipe(composed(published_overrides, config_dir=config_dir), devices, images, like=own)
    except UserError as error:
        raise UserError(f"{official or experiment}: {error}") from error
    if translated is not None:
        print_lines([("note", note) for note in translated.notes])
        print(f"{translated.name} is\npython train.py {' '.join(map(shlex.quote, published_overrides))} data.root=...\n")
        if not given:
            return
    rows = differences(own, published, unspecified=() if official is None else ("transfer", "trainer.check_val_every_n_epoch"))
    if _has_no_update(own):
        print_lines([("note", f"{own.train_images} images are less than one batch of {own.batching.global_batch}: no update")])
    if not rows:
        print(f"every value, given or derived, equals that of {official or experiment}")
        return
    columns = ["value", "published", "here"]
    print_table(columns, [[name, _format(a), _format(b)] for name, a, b in rows], left=columns, framed=False)
    if exit_code:
        raise typer.Exit(1)


def _has_no_update(recipe: "Recipe") -> bool:
    return recipe.length is not None and recipe.length.total_steps < 1


def _print_learning_rates(recipe: "Recipe", updates: set[int]) -> None:
    from swin_lab.report import print_table

    assert recipe.length is not None
    per_epoch = recipe.length.steps_per_epoch
    rows = [[f"{update:,}", f"{update / per_epoch:.2f}", f"{recipe.learning_rate(update):.8g}"] for update in sorted(updates)]
    print_table(["update", "epoch", "learning rate"], rows, framed=False)


def _print_groups(recipe: "Recipe") -> None:
    from swin_lab.report import print_table

    rows = []
    for group in recipe.groups:
        tensors: Sequence[Any] = group["params"]
        numbers = sum(parameter.numel() for parameter in tensors)
        row = (group["layer"], len(tensors), f"{numbers:,}", f"{group['weight_decay']:g}", f"{group['lr']:.6g}")
        rows.append([*map(str, row), (group["names"] or [""])[0]])
    columns = ["layer", "tensors", "parameters", "weight decay", "peak lr", "example"]
    print_table(columns, rows, left=["example"], framed=False)


def _is_experiment(override: str) -> bool:
    return override.startswith("experiment=") and override != "experiment=none"


def _format(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.8g}"
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) and abs(value) > 9999 else str(value)
