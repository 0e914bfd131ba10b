"""What train.py and eval.py call: Hydra composes, the job runs, mistakes of the user become short messages.

Nothing here imports torch before a configuration has been composed, so that `--help` and wrong overrides answer at once.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from swin_lab.errors import UserError
from swin_lab.paths import CONF
from swin_lab.run.explain import explain

RUN_DIR = "SWIN_LAB_RUN_DIR"
"""Environment variable by which the first process tells the others of its run where the run directory is."""

OK, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130

JOBS = {"train": "swin_lab.run.fit", "eval": "swin_lab.run.evaluate"}
"""Module whose `run(config, run_dir)` does the job."""


def main(job: str) -> int:
    """Runs a job with the command line of this process.

    Args:
        job: "train" or "eval".

    Returns:
        The exit code: 0; 2 for a wrong input, of which a message on stderr says more; 130 after Ctrl-C.
    """
    try:
        if RUN_DIR in os.environ and int(os.environ.get("LOCAL_RANK", "0")) > 0:
            return _join(job, Path(os.environ[RUN_DIR]))
        return _compose_and_run(job)
    except (UserError, HydraException, OmegaConfBaseException) as error:
        print(f"error: {explain(error, job, sys.argv[1:])}", file=sys.stderr)
        return WRONG_INPUT
    except KeyboardInterrupt as interrupt:
        print(f"\ninterrupted{': ' if str(interrupt) else ''}{interrupt}", file=sys.stderr)
        return INTERRUPTED


def _join(job: str, run_dir: Path) -> int:
    """A further process of a run on several devices: the configuration is what the first one has resolved and written."""
    _function_of(job)(_plain(OmegaConf.load(run_dir / "config.yaml")), None)
    return OK


def _compose_and_run(job: str) -> int:
    codes: list[int] = []
    finished: list[dict[str, Any]] = []
    composed_once: list[bool] = []

    def task(composed: DictConfig) -> None:
        composed_once.append(True)
        sweeping = HydraConfig.get().mode == RunMode.MULTIRUN
        try:
            _check_complete(composed)
            config = _plain(composed)
            if config.get("name", "") is None:
                config["name"] = "{data}_{model}".format(**HydraConfig.get().runtime.choices)
            if sweeping and str(config["trainer"]["devices"]) != "1":
                codes.append(_in_its_own_process(job, finished))
                return
            run_dir = Path(HydraConfig.get().runtime.output_dir, str(HydraConfig.get().job.num)) if sweeping else None
            overrides = list(HydraConfig.get().overrides.task)
            finished.append(_function_of(job)(config | {"overrides": overrides}, run_dir))
        except UserError as error:  # in a sweep the other runs go on
            print(f"error: {error}", file=sys.stderr)
            codes.append(WRONG_INPUT)

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them and leaving
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=job)(task)()
    except ValueError as error:  # what Hydra raises for some overrides that it cannot make sense of
        if composed_once:
            raise
        raise UserError(f"{' '.join(sys.argv[1:])}: {error}") from error
    if len(finished) > 1:
        from swin_lab.report import print_sweep

        print_sweep(finished)
    return next((code for code in codes if code != OK), OK)


def _function_of(job: str) -> Callable[[dict[str, Any], Path | None], dict[str, Any]]:
    function: Callable[[dict[str, Any], Path | None], dict[str, Any]] = import_module(JOBS[job]).run
    return function


def _in_its_own_process(job: str, finished: list[dict[str, Any]]) -> int:
    """One run of a sweep on several devices: the processes of two such runs cannot follow each other inside one."""
    sweep, number = Path(HydraConfig.get().runtime.output_dir), HydraConfig.get().job.num
    place = [f"out={sweep / str(number)}"] if job == "eval" else [f"out={sweep}", f"name={number}"]
    typed = [*_hydra_flags(), *HydraConfig.get().overrides.task, *place]
    code = subprocess.run([sys.executable, sys.argv[0], *typed], check=False).returncode
    finished += [json.loads(file.read_text()) for file in sorted((sweep / str(number)).rglob("results.json"))]
    return code if code >= 0 else 128 - code


def _hydra_flags() -> list[str]:
    """--config-dir and its like, as they were typed, with their values."""
    flags = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp")
    typed = sys.argv[1:]
    found = [part for flag, value in pairwise([*typed, ""]) if flag in flags for part in (flag, value)]
    return found + [part for part in typed if part.startswith(tuple(f"{flag}=" for flag in flags))]


def _plain(config: Any) -> dict[str, Any]:
    """Plain Python with every interpolation resolved."""
    container: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return container


def _check_complete(config: DictConfig) -> None:
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UserError(f"{' and '.join(missing)} must be given, for example {missing[0]}=...")
