"""Entry point of train.py, eval.py, `swin-lab train` and `swin-lab eval`: Hydra composes the configuration, the job runs.

This module does not import torch, so that `--help` and errors in overrides appear at once.
"""

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from swin_lab.errors import UserError
from swin_lab.interruption import OF_SCHEDULERS, Interruption, ending_at_ctrl_c
from swin_lab.paths import CONF
from swin_lab.run.arguments import (
    RUN_DIR,
    Invocation,
    Job,
    Launcher,
    Start,
    as_started,
    check_environment,
    command_of,
    local_rank,
)
from swin_lab.run.command_line import CommandLine, with_stored_overrides
from swin_lab.run.compose import error_of_missing, resolved
from swin_lab.run.ending import INTERRUPTED, OK, WRONG_INPUT, LostRankError, StoppedRunError, report_lost, report_stop
from swin_lab.run.explain import explain, message_of
from swin_lab.run.help import comments_of, help_text
from swin_lab.run.own_modules import allow_imports_from

JOBS = {"train": "swin_lab.run.fit", "eval": "swin_lab.run.evaluate"}
"""Job -> module whose function `run` runs it."""

PRINTED = ("--cfg", "--info", "--hydra-help", "--version", "--shell-completion")
"""Flags with which Hydra prints something and runs nothing."""

USER_MISTAKES = (UserError, HydraException, OmegaConfBaseException, yaml.YAMLError)

JobFunction = Callable[[dict[str, Any], Invocation], dict[str, Any]]


def main(
    job: Job, arguments: Sequence[str] | None = None, *, launcher: Launcher = "script", config_dir: Path | None = None
) -> int:
    """Runs a job with overrides and Hydra flags.

    Modules in the current directory, in the configuration directory and next to it can be named in `_target_`; nothing else
    imports them.

    Args:
        job: "train" or "eval".
        arguments: overrides and Hydra flags. If None, the command line of this process.
        launcher: whether a script (train.py) or the command `swin-lab` was started; printed commands use the same.
        config_dir: a directory with further configuration files; `--config-dir` on the command line replaces it.

    Returns:
        The exit code: 0; 2 for wrong input, with a message on stderr; 75 if a signal has stopped the run, which can be resumed;
        76 if another process of the run is lost; 130 after Ctrl-C.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # PyTorch logs a stack trace when the connection to a process ends.
    given = line = CommandLine()
    try:
        with ending_at_ctrl_c():
            given = line = CommandLine.parse(sys.argv[1:] if arguments is None else arguments)
            typed = line.flag_words(["--config-dir"])
            if config_dir is not None and not typed:
                line = replace(line, flags=(*line.flags, ("--config-dir", str(config_dir))))
            allow_imports_from([Path.cwd(), *(path for folder in line.config_dirs for path in (folder.parent, folder))])
            train_command = (*command_of("train", launcher).split(), *typed)
            if RUN_DIR in os.environ and local_rank() > 0:
                return _join(job, Path(os.environ[RUN_DIR]), train_command)
            line = with_stored_overrides(line)
            if line.has("--help"):
                print(help_text(job, command_of(job, launcher), line.overrides, line.config_dirs))
                return OK
            check_environment()
            eval_command = shlex.join([*command_of("eval", launcher).split(), *typed])
            start = Start(job, line, launcher, eval_command, train_command)
            if line.has("--multirun") and not any(line.has(flag) for flag in PRINTED):
                from swin_lab.run.sweep.command import run_sweep

                return run_sweep(start)
            return _compose_and_run(start)
    except (*USER_MISTAKES, OSError) as error:
        print(f"error: {message_of(error, job, line.overrides, line.config_dirs)}", file=sys.stderr)
        return WRONG_INPUT
    except StoppedRunError as stop:
        return report_stop(stop, _again(job, launcher, given))
    except LostRankError as lost:
        return report_lost(lost, _again(job, launcher, given))
    except KeyboardInterrupt as interrupt:
        print(f"\ninterrupted{': ' if str(interrupt) else ''}{interrupt}", file=sys.stderr)
        return INTERRUPTED


def _again(job: Job, launcher: Launcher, given: CommandLine) -> str:
    """Returns the command that was typed."""
    return as_started([*command_of(job, launcher).split(), *given.flag_words(), *given.overrides])


def _join(job: Job, run_dir: Path, train_command: tuple[str, ...]) -> int:
    """Runs a further process of a run on several devices, with the configuration that the first process has written."""
    with suppress(StoppedRunError), Interruption() as interruption:  # The first process reports that it was stopped.
        invocation = Invocation(train_command=train_command, interruption=interruption)
        _function_of(job)(yaml.safe_load((run_dir / "config.yaml").read_text()), invocation)
    return OK


def _compose_and_run(start: Start) -> int:
    errors: list[Exception] = []
    composed_once: list[bool] = []
    process_arguments = sys.argv[1:]
    # Composition and imports take seconds, in which Ctrl-C ends the process at once.
    interruption = Interruption(OF_SCHEDULERS if start.job == "train" else ())

    def task(composed: DictConfig) -> None:
        composed_once.append(True)
        with _command_line(process_arguments):  # Lightning starts further processes with these arguments.
            try:
                _run_job(start, composed, interruption)
            except (*USER_MISTAKES, OSError, StoppedRunError, LostRankError) as error:  # Hydra would print more.
                errors.append(error)

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them and exiting.
    try:
        with _command_line([*start.line.flag_words(), *start.line.overrides]), interruption:
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=start.job)(task)()
    except (ValueError, TypeError, AssertionError, RecursionError, OSError) as error:  # Hydra raises these for some overrides.
        if composed_once or isinstance(error, USER_MISTAKES):
            raise
        message = explain(error, start.job, start.line.overrides, start.line.config_dirs)
        raise UserError(f"{shlex.join(start.line.overrides)}: {message}") from error
    if errors:
        raise errors[0]
    return OK


def _run_job(start: Start, composed: DictConfig, interruption: Interruption) -> None:
    """Runs one configuration."""
    hydra_config = HydraConfig.get()
    overrides, chosen = list(hydra_config.overrides.task), dict(hydra_config.runtime.choices)
    if missing := sorted(OmegaConf.missing_keys(composed)):
        raise error_of_missing(missing, comments_of(start.job, chosen, start.line.config_dirs))
    config, unused = resolved(composed, chosen, overrides, start.line.config_dirs)
    for name in unused:
        group = name.partition(".")[0]
        print(f"warning: {group}={chosen[group]} does not take {name} of the experiment", file=sys.stderr)
    if config.get("name", "") is None:
        config["name"] = f"{chosen.get('data')}_{chosen.get('model')}"
    elif "name" in config:
        config["name"] = str(config["name"])  # YAML reads name=2026 as a number
    if any(override.lstrip("+~").startswith(("sweep", "search", "hydra")) for override in start.line.overrides):
        from swin_lab.run.sweep.settings import check_single

        check_single(start.line.overrides, config)
    _function_of(start.job)(config, Invocation(tuple(overrides), start.eval_command, start.train_command, interruption))


def _function_of(job: Job) -> JobFunction:
    function: JobFunction = import_module(JOBS[job]).run
    return function


@contextmanager
def _command_line(arguments: list[str]) -> Iterator[None]:
    """Replaces the arguments in sys.argv: Hydra and Lightning read them there."""
    before = sys.argv
    sys.argv = [before[0], *arguments]
    try:
        yield
    finally:
        sys.argv = before
