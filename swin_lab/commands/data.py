"""`swin-lab data check`, `pack` and `prepare-val`."""

import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swin_lab.commands.arguments import ConfigDir, complete_override
from swin_lab.errors import UserError

if TYPE_CHECKING:
    from swin_lab.data import ImageSource
    from swin_lab.data.images import ImageSet

log = logging.getLogger("swin_lab")

MAX_LISTED = 5
"""Number of unreadable images that are listed by name at most."""
MAX_SIDE = 65500
"""Largest side of a JPEG, in pixels."""
MAX_PER_SHARD = 1_000_000

DataSet = Annotated[
    list[str],
    typer.Argument(
        metavar="DATA",
        help="A folder with ImageNet-1k, or overrides of train.py: data=folder data.root=DIR.",
        autocompletion=complete_override,
    ),
]


def check(
    data: DataSet,
    sample: Annotated[
        int, typer.Option(metavar="N", min=1, max=10**9, help="Number of images of each set that are decoded.")
    ] = 500,
    config_dir: ConfigDir = None,
) -> None:
    """Read a data set as training does, and print what it contains.

    Example: [bold]swin-lab data check data=folder data.root=/images[/bold]
    """
    from swin_lab.report import print_lines, print_table
    from swin_lab.run.directory import start_console

    start_console(quiet=False)
    source = _source(data, config_dir)
    names = source.class_names
    rows = [_summary(name, images, len(names), sample) for name, images in _sets(source)]
    print_lines([("layout", getattr(source, "layout", type(source).__name__))])
    shown = f"{len(names)}: {names[0]}, {names[1]} ... {names[-1]}" if len(names) > 2 else str(names)
    print_lines([("classes", shown)])
    print_table(["set", "images", "classes", "fewest", "most", "unreadable"], rows, framed=False)


def pack(
    data: DataSet,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the shards.")],
    shorter_side: Annotated[
        int | None, typer.Option(min=1, max=MAX_SIDE, metavar="PIXELS", help="Scale larger images down to this shorter side.")
    ] = None,
    quality: Annotated[int, typer.Option(metavar="N", min=1, max=100, help="Quality of the JPEG files.")] = 95,
    per_shard: Annotated[int, typer.Option(metavar="N", min=1, max=MAX_PER_SHARD, help="Images in a shard.")] = 1000,
    workers: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Number of processes; one per core if not given.")
    ] = None,
    config_dir: ConfigDir = None,
) -> None:
    """Write a data set as tar shards, optionally with its images scaled down.

    Example: [bold]swin-lab data pack /imagenet --out /shards --shorter-side 480[/bold]
    """
    from swin_lab.data import cores
    from swin_lab.data.datamodule import check_processes
    from swin_lab.data.pack import check_folder, pack
    from swin_lab.data.sources.folder import absolute_path
    from swin_lab.report import print_lines
    from swin_lab.run.directory import start_console

    start_console(quiet=False)
    check_processes("workers", workers)
    folder = absolute_path(str(out), "--out")
    source = _source(data, config_dir)
    splits = [(name, images) for name, images in (("train", source.train), ("val", source.val)) if len(images.labels)]
    for name, _ in splits:  # before the first shard is written
        check_folder(folder, name, source.class_names)
    for name, images in splits:
        shards = pack(
            images,
            source.class_names,
            folder,
            name,
            shorter_side=shorter_side,
            quality=quality,
            per_shard=per_shard,
            workers=workers or cores(),
        )
        print_lines(
            [("written", f"{folder}/{name}-*.tar: {len(images.labels):,} images in {shards} shard{'s' * (shards > 1)}")]
        )
    print_lines([("use", shlex.join(["data=shards", f"data.root={folder}"]))])


def prepare_val(
    folder: Annotated[Path, typer.Argument(help="The folder with ILSVRC2012_val_*.JPEG.")],
    labels: Annotated[
        Path, typer.Option(metavar="FILE", help="LOC_val_solution.csv, val_map.txt, or the devkit (folder or tar.gz).")
    ],
    copy: Annotated[bool, typer.Option("--copy", metavar="", help="Copy the images instead of moving them.")] = False,
) -> None:
    """Sort ImageNet's validation images into class folders.

    Example: [bold]swin-lab data prepare-val /imagenet/val --labels ILSVRC2012_devkit_t12.tar.gz[/bold]
    """
    from swin_lab.data.prepare import prepare_val
    from swin_lab.data.sources.folder import absolute_path
    from swin_lab.imagenet import ROWS_1K, wordnet_ids
    from swin_lab.report import print_lines

    images = absolute_path(str(folder), "FOLDER")
    done = prepare_val(images, absolute_path(str(labels), "--labels"), wordnet_ids(ROWS_1K) or (), copy)
    print_lines([("copied" if copy else "moved", f"{done:,} images into the class folders of {images}")])


def _source(overrides: Sequence[str], config_dir: Path | None) -> "ImageSource":
    """Opens the data set of `data=...` overrides, or ImageNet-1k in a folder."""
    from swin_lab.run.checks import check_given
    from swin_lab.run.components import build_data
    from swin_lab.run.compose import composed

    if len(overrides) == 1 and "=" not in overrides[0]:
        overrides = ["data=imagenet1k", f"data.root={overrides[0]}"]
    elif not any(override.startswith(("data=", "experiment=")) for override in overrides):
        raise UserError("name the data: a folder with ImageNet-1k, or data=folder data.root=... as for train.py")
    config = composed(overrides, config_dir=config_dir)
    if not config.get("data"):
        raise UserError("data is missing; give data=..., as for train.py")
    check_given({"data": config["data"]})
    return build_data(config["data"]).source


def _sets(source: "ImageSource") -> list[tuple[str, "ImageSet"]]:
    """Returns the sets that have images, with their names."""
    sets = [("training", source.train), ("validation", source.val)]
    return [(name, images) for name, images in sets if len(images.labels)]


def _summary(name: str, images: "ImageSet", num_classes: int, sample: int) -> list[str]:
    """Returns the table row of a set; names unreadable images in the log."""
    import numpy as np

    from swin_lab.data.classes import class_counts

    counts = np.array(class_counts(images, num_classes))
    unreadable = _unreadable(images, sample)
    for line in unreadable[:MAX_LISTED]:
        log.warning("unreadable image %s", line)
    numbers = (f"{len(images.labels):,}", np.count_nonzero(counts), counts[counts > 0].min(), counts.max())
    checked = min(sample, len(images.labels))
    return [name, *map(str, numbers), f"{len(unreadable)} of {checked:,} checked"]


def _unreadable(images: "ImageSet", sample: int) -> list[str]:
    """Decodes evenly spaced images; returns names and errors of those that cannot be decoded."""
    import numpy as np

    from swin_lab.data.decoding import UNREADABLE, decode

    found = []
    for index in np.linspace(0, len(images.labels) - 1, num=min(sample, len(images.labels)), dtype=int):
        try:
            decode(images.encoded(int(index)))
        except UNREADABLE as error:
            found.append(f"{images.name(int(index))}: {error}")
    return found
