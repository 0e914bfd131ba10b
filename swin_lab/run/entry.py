"""Entry point of train.py, eval.py, `swin-lab train` and `swin-lab eval`: Hydra composes the configuration, the job runs.

This module does not import torch, so that `--help` and errors in overrides appear at once.
"""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from swin_lab.errors import UserError
from swin_lab.paths import CONF
from swin_lab.run.arguments import (
    CONFIG_DIR,
    RUN_DIR,
    Invocation,
    Job,
    Launcher,
    check_flags,
    command_of,
    config_dirs,
    flags_and_values,
    relaunch_command,
)
from swin_lab.run.explain import explain

OK, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130

JOBS = {"train": "swin_lab.run.fit", "eval": "swin_lab.run.evaluate"}
"""Job -> module whose function `run` runs it."""

JobFunction = Callable[[dict[str, Any], Path | None, Invocation], dict[str, Any]]


@dataclass(frozen=True)
class Start:
    """How a job was started."""

    job: Job
    arguments: list[str]
    """Overrides and Hydra flags."""
    launcher: Launcher
    eval_command: str
    """Command that evaluates a checkpoint with the same launcher and configuration directory."""


def main(
    job: Job, arguments: Sequence[str] | None = None, *, launcher: Launcher = "script", config_dir: Path | None = None
) -> int:
    """Runs a job with overrides and Hydra flags.

    Modules in the current directory, in the configuration directory and next to it can be named in `_target_`.

    Args:
        job: "train" or "eval".
        arguments: overrides and Hydra flags. If None, the command line of this process.
        launcher: whether a script (train.py) or the command `swin-lab` was started; printed commands use the same.
        config_dir: a directory with further configuration files; `--config-dir` on the command line replaces it.

    Returns:
        The exit code: 0; 2 for wrong input, with a message on stderr; 130 after Ctrl-C.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    typed_flags = flags_and_values(given, CONFIG_DIR)
    if config_dir is not None and not typed_flags:
        given += ["--config-dir", str(config_dir)]
    _make_importable(config_dirs(given))
    try:
        if RUN_DIR in os.environ and int(os.environ.get("LOCAL_RANK", "0")) > 0:
            return _join(job, Path(os.environ[RUN_DIR]))
        check_flags(given)
        eval_command = shlex.join([*command_of("eval", launcher).split(), *typed_flags])
        return _compose_and_run(Start(job, given, launcher, eval_command))
    except (UserError, HydraException, OmegaConfBaseException, YAMLError) as error:
        print(f"error: {explain(error, job, given)}", file=sys.stderr)
        return WRONG_INPUT
    except KeyboardInterrupt as interrupt:
        print(f"\ninterrupted{': ' if str(interrupt) else ''}{interrupt}", file=sys.stderr)
        return INTERRUPTED


def _make_importable(config_directories: Sequence[Path]) -> None:
    """Appends to sys.path, so that a user's file never hides an installed package."""
    for folder in (Path.cwd(), *(path for directory in config_directories for path in (directory.parent, directory))):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))


def _join(job: Job, run_dir: Path) -> int:
    """Runs a further process of a run on several devices, with the configuration that the first process has written."""
    _function_of(job)(_plain(OmegaConf.load(run_dir / "config.yaml")), None, Invocation())
    return OK


def _compose_and_run(start: Start) -> int:
    codes: list[int] = []
    finished: list[dict[str, Any]] = []
    composed_once: list[bool] = []
    process_arguments = sys.argv[1:]

    def task(composed: DictConfig) -> None:
        composed_once.append(True)
        with _command_line(process_arguments):  # Lightning starts further processes with these arguments.
            try:
                _run_job(start, composed, finished, codes)
            except UserError as error:  # The other runs of a sweep continue.
                print(f"error: {error}", file=sys.stderr)
                codes.append(WRONG_INPUT)

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them and exiting.
    OmegaConf.register_new_resolver(
        "command", lambda: command_of(start.job, start.launcher), replace=True
    )  # for the --help text
    try:
        with _command_line(start.arguments):
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=start.job)(task)()
    except ValueError as error:  # Hydra raises it for some overrides that it cannot parse.
        if composed_once:
            raise
        raise UserError(f"{' '.join(start.arguments)}: {error}") from error
    if len(finished) > 1:
        from swin_lab.report import print_sweep

        print_sweep(finished)
    return next((code for code in codes if code != OK), OK)


def _run_job(start: Start, composed: DictConfig, finished: list[dict[str, Any]], codes: list[int]) -> None:
    """Runs one configuration; appends its result to `finished`, or the exit code of its process to `codes`."""
    hydra_config = HydraConfig.get()
    sweeping = hydra_config.mode == RunMode.MULTIRUN
    _check_complete(composed)
    config = _plain(composed)
    if config.get("name", "") is None:
        config["name"] = "{data}_{model}".format(**hydra_config.runtime.choices)
    elif "name" in config:
        config["name"] = str(config["name"])  # YAML reads name=2026 as a number
    folder, number = Path(hydra_config.runtime.output_dir), str(hydra_config.job.num) if sweeping else ""
    overrides = list(hydra_config.overrides.task)
    if sweeping and str(config["trainer"]["devices"]) != "1":
        location = [f"out={folder / number}"] if start.job == "eval" else [f"out={folder}", f"name={number}"]
        codes.append(_in_its_own_process(start, [*flags_and_values(start.arguments), *overrides, *location]))
        finished += [json.loads(file.read_text()) for file in sorted((folder / number).rglob("results.json"))]
        return
    invocation = Invocation(tuple(overrides), start.eval_command)
    finished.append(_function_of(start.job)(config, folder / number if sweeping else None, invocation))


def _function_of(job: Job) -> JobFunction:
    function: JobFunction = import_module(JOBS[job]).run
    return function


def _in_its_own_process(start: Start, arguments: list[str]) -> int:
    """Starts a run of a sweep on several devices: two such runs cannot follow each other inside one process."""
    subcommand = [start.job] if start.launcher == "swin-lab" else []
    code = subprocess.run([*relaunch_command(), *subcommand, *arguments], check=False).returncode
    return code if code >= 0 else 128 - code


@contextmanager
def _command_line(arguments: list[str]) -> Iterator[None]:
    """Replaces the arguments in sys.argv: Hydra and Lightning read them there."""
    before = sys.argv
    sys.argv = [before[0], *arguments]
    try:
        yield
    finally:
        sys.argv = before


def _plain(config: Any) -> dict[str, Any]:
    """Returns plain Python with every interpolation resolved."""
    container: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return container


def _check_complete(config: DictConfig) -> None:
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UserError(f"{' and '.join(missing)} must be given, for example {missing[0]}=...")
