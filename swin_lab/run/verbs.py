"""Verbs of `swin-lab` about recipes and data: they take the overrides that train.py takes, and train nothing."""

import argparse
import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from swin_lab.data import ImageSource, cores
from swin_lab.data.images import UNREADABLE, ImageSet
from swin_lab.data.pack import pack
from swin_lab.data.prepare import prepare_val
from swin_lab.errors import UserError
from swin_lab.imagenet import ROWS_1K, wordnet_ids
from swin_lab.report import draw_rates
from swin_lab.run import build
from swin_lab.run.compose import composed
from swin_lab.run.directory import start_console
from swin_lab.run.official import read_official
from swin_lab.run.recipe import Recipe, departures

log = logging.getLogger("swin_lab")

POINTS = 2000
"""Of the drawn curve."""


def lr(arguments: argparse.Namespace) -> None:
    """Draws the learning rate of a run and prints its parameter groups."""
    out = Path(arguments.out).expanduser().absolute()
    if out.suffix.lower() != ".png" or out.exists() or not out.parent.is_dir():
        raise UserError(f"{out}: give a new .png file in a folder that exists")
    config = composed(arguments.overrides)
    recipe = Recipe(config, arguments.devices, arguments.images)
    span = recipe.span
    if span is None:
        raise UserError("how long an epoch is, is not known; give --images N and trainer.max_epochs=N")
    if span.total < 1:
        raise UserError(f"{recipe.train_images} images are no whole batch of {config['global_batch']}; lower global_batch")
    updates = np.unique(np.linspace(0, span.total - 1, POINTS).round().astype(int)).tolist()
    warmup = min(recipe.schedule.warmup_updates(span), span.total - 1)
    updates = sorted({*updates, warmup})
    title = f"{config['name'] or recipe.model['_target_'].rpartition('.')[2]}: {span.total:,} updates"
    draw_rates([u / span.per_epoch for u in updates], [recipe.rate(u) for u in updates], title, out)

    rates = _table("update", "epoch", "learning rate")
    for update in sorted({0, warmup, span.total // 4, span.total // 2, span.total * 3 // 4, span.total - 1}):
        rates.add_row(f"{update:,}", f"{update / span.per_epoch:.2f}", f"{recipe.rate(update):.8g}")
    groups = _table("layer", "tensors", "parameters", "weight decay", "highest rate", "such as", left=(5,))
    for group in recipe.groups:
        numbers = sum(parameter.numel() for parameter in group["params"])
        row = (group["layer"], len(group["params"]), f"{numbers:,}", f"{group['weight_decay']:g}", f"{group['lr']:.6g}")
        groups.add_row(*map(str, row), (group["names"] or [""])[0])
    console = Console()
    print(f"batch      {recipe.batching}, {recipe.train_images:,} images an epoch")
    console.print(rates)
    console.print(groups)
    print(f"image    {out}")


def recipe_diff(arguments: argparse.Namespace) -> None:
    """Prints where a configuration departs from the recipe that was published."""
    if arguments.official is None and not any(_is_experiment(override) for override in arguments.overrides):
        raise UserError("name the published recipe: experiment=NAME, or --official FILE.yaml of the official code")
    ours = Recipe(composed(arguments.overrides), arguments.devices, arguments.images)
    if arguments.official is None:
        source = next(override for override in arguments.overrides if _is_experiment(override))
        published = Recipe(composed([source]), arguments.devices, arguments.images, like=ours)
    else:
        official = read_official(Path(arguments.official), arguments.gpus)
        source = arguments.official
        for key in official.unknown:
            print(f"note       {key} has no place here and is left out")
        typed = " ".join(map(shlex.quote, official.overrides))
        print(f"{official.name} is\npython train.py {typed} data.root=...\n")
        if not arguments.overrides:
            return
        published = Recipe(composed(official.overrides), arguments.devices, arguments.images, like=ours)
    rows = departures(ours, published, unsaid=() if arguments.official is None else ("transfer",))
    if not rows:
        print(f"every value, given or derived, is that of {source}")
        return
    table = _table("value", "published", "here", left=(0, 1, 2))
    for name, theirs, mine in rows:
        table.add_row(name, _shown(theirs), _shown(mine))
    Console().print(table)


def data_check(arguments: argparse.Namespace) -> None:
    """Reads a data set as training would, and says what is in it."""
    start_console(quiet=False)
    source = _source(arguments.overrides)
    layout = getattr(source, "layout", type(source).__name__)
    table = _table("set", "images", "classes", "fewest", "most", "unreadable", left=(0,))
    for name, images in (("training", source.train), ("validation", source.val)):
        if len(images.labels) == 0:
            continue
        counts = np.bincount(np.asarray(images.labels), minlength=len(source.class_names))
        unreadable = _unreadable(images, arguments.sample)
        looked_at = min(arguments.sample, len(images.labels))
        row = (name, f"{len(images.labels):,}", np.count_nonzero(counts), counts[counts > 0].min(), counts.max())
        table.add_row(*map(str, row), f"{len(unreadable)} of {looked_at:,} looked at")
        for line in unreadable[:5]:
            log.warning("unreadable image %s", line)
    names = source.class_names
    print(f"layout     {layout}")
    print(f"classes    {len(names)}: {names[0]}, {names[1]} ... {names[-1]}" if len(names) > 2 else f"classes    {names}")
    Console().print(table)


def data_pack(arguments: argparse.Namespace) -> None:
    """Writes a data set as tar shards."""
    start_console(quiet=False)
    source = _source(arguments.overrides)
    out = Path(arguments.out).expanduser().absolute()
    for name, images in (("train", source.train), ("val", source.val)):
        if len(images.labels) == 0:
            continue
        shards = pack(
            images,
            source.class_names,
            out,
            name,
            shorter_side=arguments.shorter_side,
            quality=arguments.quality,
            per_shard=arguments.per_shard,
            workers=arguments.workers or cores(),
        )
        print(f"written    {out}/{name}-*.tar: {len(images.labels):,} images in {shards} shards")
    print(f"use        data=shards data.root={out}")


def data_prepare_val(arguments: argparse.Namespace) -> None:
    """Puts ImageNet's validation images into class folders."""
    folder = Path(arguments.folder).expanduser().absolute()
    labels = Path(arguments.labels).expanduser().absolute()
    done = prepare_val(folder, labels, wordnet_ids(ROWS_1K) or (), arguments.copy)
    print(f"{'copied' if arguments.copy else 'moved':<10} {done:,} images into the class folders of {folder}")


def _source(overrides: Sequence[str]) -> ImageSource:
    """Of `data=...` overrides; a folder alone is taken for ImageNet-1k."""
    if len(overrides) == 1 and "=" not in overrides[0]:
        overrides = ["data=imagenet1k", f"data.root={overrides[0]}"]
    elif not any(override.startswith(("data=", "experiment=")) for override in overrides):
        raise UserError("name the data: a folder with ImageNet-1k, or data=folder data.root=... as for train.py")
    data = composed(overrides)["data"]
    if data.get("root") == "???":
        raise UserError("data.root must be given, for example data.root=/imagenet")
    return build.make_source(data)[0]


def _unreadable(images: ImageSet, sample: int) -> list[str]:
    """Names and errors among evenly spaced images."""
    found = []
    for index in np.linspace(0, len(images.labels) - 1, num=min(sample, len(images.labels)), dtype=int):
        try:
            images.image(int(index))
        except UNREADABLE as error:
            found.append(f"{images.name(int(index))}: {error}")
    return found


def _is_experiment(override: str) -> bool:
    return override.startswith("experiment=") and override != "experiment=none"


def _table(*columns: str, left: Sequence[int] = ()) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i in left else "right", overflow="fold")
    return table


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.8g}"
    return "none" if value is None else escape(f"{value:,}" if isinstance(value, int) and abs(value) > 9999 else str(value))
