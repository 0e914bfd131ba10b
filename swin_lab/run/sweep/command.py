"""A command with -m: finds the sweep that it continues or begins one, runs the jobs that are missing, and compares all."""

import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swin_lab.interruption import Interruption
from swin_lab.report import print_command, print_sweep, shorter
from swin_lab.run.arguments import Start, program_of
from swin_lab.run.compose import compose_with_choices
from swin_lab.run.directory import start_console
from swin_lab.run.ending import OK, StoppedRunError
from swin_lab.run.sweep.devices import build_runner
from swin_lab.run.sweep.folder import command_of_sweep, create, named_sweep, new_sweep, sweeps_of
from swin_lab.run.sweep.grid import Grid, Source
from swin_lab.run.sweep.loop import run_jobs
from swin_lab.run.sweep.search import Search
from swin_lab.run.sweep.settings import SearchConfig, SweepConfig, check_sweep, read_settings
from swin_lab.run.sweep.space import Space, read_space

log = logging.getLogger("swin_lab")

FOLDERS = {"train": "runs", "eval": "runs/eval"}
"""Job -> folder whose folder `sweeps` has the sweeps, unless `out` names another."""


def run_sweep(start: Start) -> int:
    """Runs the jobs of a sweep that have not finished, and prints a table of all.

    Returns:
        The exit code: 0 if no job has failed, else that of the first one.

    Raises:
        UserError: the command is invalid; no job has been started.
        StoppedRunError: a signal has stopped the sweep; its jobs have saved their checkpoints.
    """
    check_sweep(start.line)
    start_console(quiet=False)
    space = read_space(start.line.overrides, start.line.config_dirs)
    settings = [text for text in start.line.overrides if text.lstrip("+~").startswith(("search", "sweep."))]
    config = check_values(start, space, settings)
    sweep, search = read_settings(config)
    source, path = find_sweep(start, space, config, sweep, search)
    runner = build_runner(config, sweep, space, path)
    create(path, command_of_sweep(start.job, start.line.overrides, start.line.config_dirs))
    log.info("%-10s %s, jobs without a result: %d", "sweep", shorter(path), source.missing())
    again = shlex.join([*train_words(start), "-m", *start.line.overrides])
    with Interruption() as interruption:
        codes = run_jobs(start, source, runner, interruption, space.fixed)
        table = source.table()
        if table:
            print_sweep(path, table)
        if start.job == "train" and any(row.result is not None for row in table):
            print_command("compare", shlex.join([*program_of(start.launcher), "compare", shorter(path), "-o", "page.html"]))
        if interruption.name is not None:
            raise StoppedRunError(interruption.name, again)
    if (missing := source.missing()) and any(row.state.startswith(("failed", "missing")) for row in table):
        print(f"without a result: {missing} of the jobs; this runs only these: {again}", file=sys.stderr)
    return next((code for code in codes if code != OK), OK)


def train_words(start: Start) -> Sequence[str]:
    """Returns the words of the command that was started, without its overrides."""
    return start.train_command if start.job == "train" else shlex.split(start.eval_command)


def check_values(start: Start, space: Space, settings: Sequence[str]) -> dict[str, Any]:
    """Composes a configuration with each value of each key, and returns the first.

    Raises:
        UserError: one does not compose, or a required value is missing.
    """
    from swin_lab.run.checks import check_given

    first: dict[str, Any] | None = None
    for overrides in space.examples():
        config, _ = compose_with_choices(start.job, [*overrides, *settings], start.line.config_dirs)
        check_given(config)
        first = config if first is None else first
    assert first is not None
    return first


def find_sweep(
    start: Start, space: Space, config: dict[str, Any], sweep: SweepConfig, search: SearchConfig | None
) -> tuple[Source, Path]:
    """Returns the jobs and the directory of the sweep that sweep.dir names, else of the newest unfinished one of this command,
    else of a new one."""
    build = source_builder(start, space, config, search)
    command = command_of_sweep(start.job, start.line.overrides, start.line.config_dirs)
    if sweep.dir is not None:
        path = named_sweep(Path(sweep.dir).expanduser().absolute(), command)
        return build(path), path
    parent = Path(config["out"] or FOLDERS[start.job]).expanduser().absolute() / "sweeps"
    for path in sweeps_of(parent, command):
        source = build(path)
        if source.missing():
            log.info("%-10s continues the unfinished one of the same command", "sweep")
            return source, path
    path = new_sweep(parent)
    return build(path), path


def source_builder(start: Start, space: Space, config: dict[str, Any], search: SearchConfig | None) -> Any:
    """Returns the function that makes the jobs of a sweep from its directory."""
    if search is None:
        combinations = space.combinations()
        return lambda path: Grid(path, combinations)
    from swin_lab.run.components import build_task
    from swin_lab.training import DataDescription

    mode = build_task(config["task"], DataDescription(class_names=("a", "b"))).monitor.mode
    seed = config["seed"] if isinstance(config["seed"], int) else 0
    space.distributions()  # raises errors
    return lambda path: Search(path, space, search, mode, seed)
