"""`swin-lab bench model`, `bench data` and `bench run`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from swin_lab.commands.arguments import ConfigDir, Overrides, complete_model
from swin_lab.errors import UserError, did_you_mean

MAX_BATCH, MAX_ROUNDS, MAX_SECONDS, MAX_THREADS, MAX_SIDE = 65_536, 1000, 600.0, 1024, 16_384

Names = Annotated[
    list[str], typer.Argument(metavar="NAME...", help="Variants of swin-lab models.", autocompletion=complete_model)
]
Batch = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, max=MAX_BATCH, help="Images in a step; 4 on a CPU and 128 on a GPU if not given."),
]
Side = Annotated[
    int | None,
    typer.Option(metavar="PIXELS", min=1, max=MAX_SIDE, help="Side of the images; the variant's own by default."),
]
Precisions = Annotated[
    str, typer.Option(metavar="LIST", help="Some of fp32, bf16, fp16 (autocast) and bf16-true (weights too).")
]
Compile = Annotated[
    Literal["none", "model", "both"],
    typer.Option(help="Whether torch.compile is used; both: with and without."),
]
Work = Annotated[
    Literal["inference", "training", "both"], typer.Option(help="training: a full step, from the forward pass to the EMA.")
]
Peers = Annotated[
    str,
    typer.Option(
        metavar="LIST",
        help="all, none, or some of timm, timm-fused (TIMM_FUSED_ATTN=2), torchvision, transformers, official=DIR.",
    ),
]
Backends = Annotated[
    str, typer.Option(metavar="LIST", help="Attention backends of ours; the first is compared with the peers.")
]
HyperParameters = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A hyper-parameter, such as drop_path_rate=0; repeatable."),
]
Stages = Annotated[bool, typer.Option("--stages", metavar="", help="Also measure every stage of ours.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto: the GPU if there is one.")]
Clock = Annotated[
    Literal["auto", "cpu", "wall", "cuda"],
    typer.Option(help="auto: CUDA events on a GPU, CPU time on one thread, else wall time."),
]
Threads = Annotated[int, typer.Option(metavar="N", min=1, max=MAX_THREADS, help="Threads of torch on a CPU.")]
Rounds = Annotated[int, typer.Option(metavar="N", min=1, max=MAX_ROUNDS, help="Interleaved rounds; medians are over these.")]
Seconds = Annotated[
    float, typer.Option(metavar="S", min=0.0, max=MAX_SECONDS, help="Least time of one measurement in a round, in seconds.")
]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="Write NAME.json, NAME.md and NAME.png into this folder.")]
FileName = Annotated[str | None, typer.Option("--name", metavar="NAME", help="Name of these files, without ending.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", metavar="", help="Replace files that exist.")]


def model(
    names: Names,
    batch: Batch = None,
    img_size: Side = None,
    precision: Precisions = "fp32,bf16",
    compile: Compile = "none",
    work: Work = "both",
    peers: Peers = "all",
    backend: Backends = "auto",
    set_: HyperParameters = None,
    stages: Stages = False,
    device: Device = "auto",
    threads: Threads = 1,
    clock: Clock = "auto",
    rounds: Rounds = 5,
    seconds: Seconds = 0.5,
    out: Out = None,
    name: FileName = None,
    overwrite: Overwrite = False,
) -> None:
    """Compare the speed of a network with the same network of timm, torchvision and transformers.

    Example: [bold]swin-lab bench model swin_tiny_patch4_window7_224 --work inference[/bold]
    """
    precisions = _words("--precision", precision, ("fp32", "bf16", "fp16", "bf16-true"))
    from swin_lab.bench.main import benchmark_model

    benchmark_model(
        names,
        batch=batch,
        img_size=img_size,
        precisions=precisions,
        compile_=compile,
        work=work,
        peers=peers,
        backends=_words("--backend", backend, None),
        hyper_parameters=set_ or [],
        stages=stages,
        device=device,
        threads=threads,
        clock=clock,
        rounds=rounds,
        seconds=seconds,
        out=out,
        name=name,
        overwrite=overwrite,
    )


def data(
    overrides: Overrides = None,
    images: Annotated[int, typer.Option(metavar="N", min=1, max=10**6, help="Images whose steps are measured.")] = 64,
    rounds: Rounds = 5,
    batches: Annotated[int, typer.Option(metavar="N", min=1, max=10**6, help="Batches of the whole loader.")] = 8,
    workers: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Numbers of worker processes; 0, 1, 2, 4 ... up to one per core if not given."),
    ] = None,
    config_dir: ConfigDir = None,
    out: Out = None,
    name: FileName = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure the images per second of a data pipeline, by step and as a whole, and compare them with timm's transform.

    Example: [bold]swin-lab bench data experiment=swin_tiny_patch4_window7_224 data.root=/imagenet[/bold]
    """
    counts = None if workers is None else [_count("--workers", word) for word in _words("--workers", workers, None)]
    from swin_lab.bench.main import benchmark_data

    benchmark_data(
        overrides or [],
        images=images,
        rounds=rounds,
        batches=batches,
        workers=counts,
        config_dir=config_dir,
        out=out,
        name=name,
        overwrite=overwrite,
    )


def run(
    overrides: Overrides = None,
    updates: Annotated[int, typer.Option(metavar="N", min=1, max=10**6, help="Updates that are timed.")] = 50,
    warmup: Annotated[int, typer.Option(metavar="N", min=1, max=10**6, help="Updates before these.")] = 5,
    rounds: Rounds = 2,
    config_dir: ConfigDir = None,
    out: Out = None,
    name: FileName = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure what the loader costs a training run. No run directory is made.

    Example: [bold]swin-lab bench run experiment=swin_tiny_patch4_window7_224 data.root=/imagenet[/bold]
    """
    from swin_lab.bench.main import benchmark_run

    benchmark_run(
        overrides or [],
        updates=updates,
        warmup=warmup,
        rounds=rounds,
        config_dir=config_dir,
        out=out,
        name=name,
        overwrite=overwrite,
    )


def _count(option: str, word: str) -> int:
    if not word.isdecimal():
        raise UserError(f"{option}: {word!r} is not a number of processes; give for example 0,1,2")
    return int(word)


def _words(option: str, text: str, choices: tuple[str, ...] | None) -> list[str]:
    """Returns the words of a comma-separated list, each once; raises UserError for a word that is not among the choices."""
    words = list(dict.fromkeys(word.strip() for word in text.split(",")))
    for word in words:
        if not word or (choices is not None and word not in choices):
            raise UserError(f"{option}={text}: {word!r} is unknown{did_you_mean(word, choices or ())}")
    return words
