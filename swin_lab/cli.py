"""`swin-lab VERB`: what can be done with models, weight files, recipes and data without a training run."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from swin_lab.errors import UserError

OK, WRONG_INPUT, INTERRUPTED = 0, 2, 130


def main(arguments: list[str] | None = None) -> int:
    """Runs a verb.

    Args:
        arguments: as typed after `swin-lab`; None for those of this process.

    Returns:
        The exit code: 0; 2 for a wrong input, of which a message on stderr says more; 130 after Ctrl-C.
    """
    parsed = _parser().parse_args(arguments)
    verb: Callable[[argparse.Namespace], None] = parsed.verb
    try:
        verb(parsed)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_INPUT
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="swin-lab", description="Swin Transformers: models and weight files.")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")

    models = verbs.add_parser("models", help="list the variants with parameters, cost and published accuracy")
    models.add_argument("pattern", nargs="?", default="*", help="a shell wildcard, such as 'swinv2*'")
    models.set_defaults(verb=_models)

    inspect = verbs.add_parser("inspect", help="say what a weight file holds, whoever wrote it")
    _add_source(inspect)
    inspect.set_defaults(verb=_inspect)

    convert = verbs.add_parser("convert", help="write weights in the layout of another library")
    _add_source(convert)
    convert.add_argument("out", metavar="OUT", help="a new .safetensors or .pth file; a new folder for huggingface")
    convert.add_argument(
        "--layout", default="swin_lab", help="swin_lab (default), official, timm, torchvision, huggingface or mmpretrain"
    )
    convert.add_argument("--verify", action="store_true", help="compare logits with those of the library itself")
    convert.set_defaults(verb=_convert)

    export = verbs.add_parser("export", help="write a program for other runtimes: ONNX or torch.export")
    _add_source(export)
    export.add_argument("out", metavar="OUT", help="a new .onnx or .pt2 file")
    export.add_argument("--img-size", type=int, nargs="+", metavar="N", help="pixels, one number or height and width")
    export.set_defaults(verb=_export)
    _add_recipe_verbs(verbs)
    _add_data_verbs(verbs)
    return parser


def _add_recipe_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    lr = verbs.add_parser("lr", help="draw the learning rate of a run and list its parameter groups, without training")
    lr.add_argument("out", metavar="OUT.png", help="a new file")
    lr.set_defaults(verb=_from_run("lr"))

    recipe = verbs.add_parser("recipe", help="compare a configuration with the published recipe")
    diff = recipe.add_subparsers(required=True, metavar="diff").add_parser(
        "diff", help="print every value, given or derived, that departs from the published recipe"
    )
    diff.add_argument("--official", metavar="FILE.yaml", help="a configuration of the official code; printed as overrides")
    diff.add_argument("--gpus", type=int, default=8, help="that the official file's batch per GPU is meant for (8)")
    diff.set_defaults(verb=_from_run("recipe_diff"))
    for parser in (lr, diff):
        parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for train.py, such as experiment=NAME")
        parser.add_argument("--devices", type=int, default=1, help="that the batch is shared by (1)")
        parser.add_argument("--images", type=int, help="of an epoch, where the data is not at hand")


def _add_data_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    data = verbs.add_parser("data", help="check, pack and prepare data sets").add_subparsers(required=True, metavar="VERB")
    check = data.add_parser("check", help="read a data set as training would, and say what is in it")
    check.add_argument("--sample", type=int, default=500, help="images of each set that are decoded (500)")
    check.set_defaults(verb=_from_run("data_check"))
    pack = data.add_parser("pack", help="write a data set as tar shards, its images scaled down if wished")
    pack.add_argument("--out", required=True, metavar="DIR", help="folder of the shards")
    pack.add_argument("--shorter-side", type=int, metavar="PIXELS", help="larger images are scaled down to it")
    pack.add_argument("--quality", type=int, default=95, help="of the JPEGs (95)")
    pack.add_argument("--per-shard", type=int, default=1000, help="images in a shard (1000)")
    pack.add_argument("--workers", type=int, help="processes (one per core)")
    pack.set_defaults(verb=_from_run("data_pack"))
    for parser in (check, pack):
        told = "a folder with ImageNet-1k, or data=... data.root=... as for train.py"
        parser.add_argument("overrides", nargs="+", metavar="data=...", help=told)
    prepare = data.add_parser("prepare-val", help="put ImageNet's validation images into class folders")
    prepare.add_argument("folder", help="with ILSVRC2012_val_*.JPEG")
    prepare.add_argument("--labels", required=True, help="LOC_val_solution.csv, val_map.txt, or the devkit (folder or tar.gz)")
    prepare.add_argument("--copy", action="store_true", help="leave the images where they are as well")
    prepare.set_defaults(verb=_from_run("data_prepare_val"))


def _from_run(verb: str) -> Callable[[argparse.Namespace], None]:
    """A verb of swin_lab.run.verbs, imported when it is typed."""

    def call(arguments: argparse.Namespace) -> None:
        from swin_lab.run import verbs

        function: Callable[[argparse.Namespace], None] = getattr(verbs, verb)
        function(arguments)

    return call


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="IN", help="a weight file of any layout, a run directory, a folder, or OWNER/NAME on the hub"
    )
    parser.add_argument("--name", help="the variant it holds, for V2 files that do not tell their windows")
    parser.add_argument("--ema", action="store_true", help="the moving average of the weights, where the file holds both")


def _models(arguments: argparse.Namespace) -> None:
    import torch
    from rich.console import Console
    from rich.table import Table

    from swin_lab.models import count_macs, create_model, list_models
    from swin_lab.models.published import TOP1, Published

    names = list_models(arguments.pattern)
    if not names:
        raise UserError(f"no model is named {arguments.pattern}; 'swin-lab models' lists all")
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("model", no_wrap=True)
    for heading in ("params", "GMACs", "pixels", "1k", "22k-1k"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name in names:
        with torch.device("meta"):
            model = create_model(name)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        top1 = TOP1.get(name, Published())
        accuracies = (f"{value:.1f}" if value is not None else "" for value in (top1.from_1k, top1.from_22k))
        pixels = str(model.shape.img_size[0])
        table.add_row(name, f"{parameters / 1e6:.2f} M", f"{count_macs(model) / 1e9:.2f}", pixels, *accuracies)
    Console().print(table)
    print(
        "\nGMACs: multiply-accumulates of one image by the papers' formula. 1k, 22k-1k: published top-1 on ImageNet-1k\n"
        "in percent of weights trained on it alone, and of weights pre-trained on ImageNet-22k."
    )


def _inspect(arguments: argparse.Namespace) -> None:
    from swin_lab.weights import open_checkpoint

    checkpoint = open_checkpoint(arguments.source, name=arguments.name, ema=arguments.ema)
    _print_lines(checkpoint.lines())


def _convert(arguments: argparse.Namespace) -> None:
    from swin_lab.weights import load, save_weights
    from swin_lab.weights.peers import LIBRARIES, largest_difference
    from swin_lab.weights.save import check_target

    check_target(Path(arguments.out).expanduser().absolute(), arguments.layout)
    model, report = load(arguments.source, name=arguments.name, ema=arguments.ema)
    _print_lines(report.lines())
    written = save_weights(model, arguments.out, arguments.layout)
    lines = [("written", f"{written}, layout {arguments.layout}")]
    if arguments.verify:
        again, _ = load(written, name=arguments.name or next(iter(report.checkpoint.variants), None))
        same = all(a.equal(b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
        lines.append(("verified", "read back bit for bit" if same else "READ BACK WITH OTHER VALUES"))
        if arguments.layout in LIBRARIES:
            difference, library = largest_difference(model, arguments.layout)
            lines.append(("verified", f"largest logit difference from {library}: {difference:.2g}"))
        else:
            lines.append(("note", f"no installable library reads layout {arguments.layout}; nothing to compare logits with"))
    _print_lines(lines)


def _export(arguments: argparse.Namespace) -> None:
    from swin_lab.weights import export_model, load
    from swin_lab.weights.export import check_export_target

    check_export_target(Path(arguments.out).expanduser().absolute())
    size = arguments.img_size[0] if arguments.img_size and len(arguments.img_size) == 1 else arguments.img_size
    model, report = load(arguments.source, name=arguments.name, ema=arguments.ema, img_size=size)
    _print_lines(report.lines())
    differences = export_model(model, arguments.out)
    _print_lines([("verified", f"largest logit difference at batch {batch}: {d:.2g}") for batch, d in differences.items()])
    _print_lines([("written", str(Path(arguments.out).absolute()))])


def _print_lines(lines: list[tuple[str, str]]) -> None:
    for label, text in lines:
        print(f"{label:<10} {text}")


if __name__ == "__main__":
    sys.exit(main())
