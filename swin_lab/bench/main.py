"""The benchmarks as the commands start them: checked settings, measurement, output."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
import yaml

from swin_lab.bench.composition import build_from
from swin_lab.bench.data import measure_core, measure_loader
from swin_lab.bench.machine import describe_machine
from swin_lab.bench.model import COMPILED, EAGER, Mode, Networks, Settings, Table, build_networks, compare, measure_stages
from swin_lab.bench.model_report import Stages, model_result
from swin_lab.bench.output import Result, check_out, create_out, print_result, write_result
from swin_lab.bench.peers import choose_peers
from swin_lab.bench.pipeline_report import data_result, run_result
from swin_lab.bench.run import measure_run
from swin_lab.bench.steps import WORKS, Precision
from swin_lab.bench.timing import Plan, choose_clock
from swin_lab.data import cores
from swin_lab.data.datamodule import MAX_WORKERS, check_processes
from swin_lab.errors import UserError, did_you_mean
from swin_lab.models import SwinConfig, model_config
from swin_lab.models.config import FIELDS
from swin_lab.ops.window_attention import attention_backend
from swin_lab.run.directory import start_console

NO_EVALUATION = {"val_check_interval": 1.0, "check_val_every_n_epoch": 10**9}
"""Keys of the `trainer` node with which no epoch is evaluated."""

BATCH = {"cpu": 4, "cuda": 128}
MODES: dict[str, tuple[Mode, ...]] = {"none": (EAGER,), "model": (COMPILED,), "both": (EAGER, COMPILED)}


def benchmark_model(
    names: Sequence[str],
    *,
    batch: int | None,
    img_size: int | None,
    precisions: Sequence[str],
    compile_: str,
    work: str,
    peers: str,
    backends: Sequence[str],
    hyper_parameters: Sequence[str],
    stages: bool,
    device: str,
    threads: int,
    clock: str,
    rounds: int,
    seconds: float,
    out: Path | None,
    name: str | None,
    overwrite: bool,
) -> Result:
    """Compares networks with those of other libraries; see the options of `swin-lab bench model` for the arguments.

    Raises:
        UserError: a name or value is unknown, values do not fit each other, or a file would be overwritten.
    """
    file = check_out(out, name, "model", overwrite)
    changed = _hyper_parameters(hyper_parameters) | ({} if img_size is None else {"img_size": img_size})
    configs = {model: _checked(replace(model_config(model), **changed)) for model in names}
    for backend in backends:
        attention_backend(backend)
    where = choose_device(device)
    _check_compiler(compile_, where)
    settings = Settings(
        batch=BATCH[where] if batch is None else batch,
        device=where,
        works=tuple(one for one in WORKS if work in (one, "both")),
        precisions=cast(tuple[Precision, ...], tuple(precisions)),
        modes=MODES[compile_],
        backends=tuple(backends),
        peers=choose_peers(peers),
        plan=Plan(choose_clock(clock, where, threads), rounds, seconds),
    )
    create_out(out)
    found: dict[str, Networks] = {}
    tables: list[Table] = []
    by_stage: Stages = {}
    with torch_threads(threads):
        for model, config in configs.items():
            networks = found[model] = build_networks(config, settings)
            for kind in settings.works:
                for precision in settings.precisions:
                    tables.append(compare(model, networks, kind, precision, settings))
                    if stages:
                        by_stage[model, kind, precision] = measure_stages(networks, tables[-1], settings)
    return finish(model_result(found, tables, by_stage, settings, threads), out, file)


def finish(result: Result, out: Path | None, name: str) -> Result:
    """Prints a result, writes it if there is a folder, and returns it."""
    from swin_lab.report import print_lines, shorter

    print_result(result)
    if out is not None:
        files = write_result(result, describe_machine(), out, name)
        print()
        print_lines([("written", ", ".join(map(shorter, files)))])
    return result


def choose_device(name: str) -> Literal["cpu", "cuda"]:
    """Returns the device; raises UserError if there is no GPU and one is asked for."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device=cuda: torch sees no CUDA device; choose cpu")
    return "cpu" if name == "cpu" or not torch.cuda.is_available() else "cuda"


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Sets the number of torch's threads, and restores it."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _hyper_parameters(given: Sequence[str]) -> dict[str, Any]:
    """Reads KEY=VALUE, whose value is YAML."""
    values: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if key not in FIELDS or not equals:
            raise UserError(f"--set={text}: {key!r} is no hyper-parameter{did_you_mean(key, FIELDS)}")
        if key in ("attention_backend", "img_size"):
            raise UserError(f"--set={text}: use {'--backend' if key == 'attention_backend' else '--img-size'}")
        try:
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"--set={text}: {value!r} is no value in YAML") from error
    return values


def _checked(config: SwinConfig) -> SwinConfig:
    if config.num_classes == 0:
        raise UserError("--set=num_classes=0: a network without head has no loss; give a positive number")
    return config


def _check_compiler(compile_: str, device: str) -> None:
    """Raises UserError if torch.compile has no C++ compiler, which it needs on a CPU."""
    compilers = [os.environ.get("CXX", ""), "g++", "clang++"]
    if compile_ != "none" and device == "cpu" and not any(shutil.which(compiler) for compiler in compilers if compiler):
        raise UserError(f"--compile={compile_}: torch.compile needs a C++ compiler on a CPU, and g++ is not installed")


def benchmark_data(
    overrides: Sequence[str],
    *,
    images: int,
    rounds: int,
    batches: int,
    workers: Sequence[int] | None,
    config_dir: Path | None,
    out: Path | None,
    name: str | None,
    overwrite: bool,
) -> Result:
    """Measures the data pipeline; see the options of `swin-lab bench data` for the arguments.

    Raises:
        UserError: a value is invalid, or a file would be overwritten.
    """
    file = check_out(out, name, "data", overwrite)
    counts = _worker_counts() if workers is None else workers
    for number in counts:
        check_processes("--workers", number)
    start_console(quiet=True)
    training = build_from(overrides, config_dir, {})
    if training.data.loader.loader == "dali":
        raise UserError(
            "bench data measures the steps of data.loader=torch, and DALI applies all of them at once\n"
            "Choose data.loader=torch, or measure a run with either loader: swin-lab bench run"
        )
    if training.data.loader.cache == "device":
        raise UserError(
            "bench data measures the steps of one image, and data.cache=device applies them to whole batches on the device\n"
            "Choose data.cache=memory, or measure a run with either cache: swin-lab bench run"
        )
    create_out(out)
    with torch_threads(1):
        core = measure_core(training, images, rounds)
        loader = measure_loader(training, counts, batches, training.launch.trainer)
    measured = min(images, len(training.data.source.train.labels))
    return finish(data_result(training, core, loader, measured, rounds), out, file)


def benchmark_run(
    overrides: Sequence[str],
    *,
    updates: int,
    warmup: int,
    rounds: int,
    config_dir: Path | None,
    out: Path | None,
    name: str | None,
    overwrite: bool,
) -> Result:
    """Measures a training run with its loader and without; see the options of `swin-lab bench run` for the arguments.

    Raises:
        UserError: a value is invalid, or a file would be overwritten.
    """
    file = check_out(out, name, "run", overwrite)
    start_console(quiet=True)
    length = {"max_steps": updates + warmup, "max_epochs": -1, "enable_checkpointing": False}
    training = build_from(overrides, config_dir, length | NO_EVALUATION)
    create_out(out)
    return finish(run_result(training, measure_run(training, updates, warmup, rounds), updates, rounds), out, file)


def _worker_counts() -> list[int]:
    """Returns 0, the powers of two below the number of cores, and that number."""
    count = min(MAX_WORKERS, cores())
    return [0, *(2**i for i in range(count.bit_length()) if 2**i < count), count]
