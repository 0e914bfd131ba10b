"""Runs the jobs of a sweep to their ends, or to a signal."""

import logging
import signal
import sys
from collections.abc import Collection
from time import monotonic, sleep

from swin_lab.interruption import Interruption
from swin_lab.report import shorter
from swin_lab.run.arguments import Start, relaunch_command
from swin_lab.run.command_line import OF_EVERY_RUN
from swin_lab.run.ending import INTERRUPTED, OK, PRUNED, STOPPED
from swin_lab.run.sweep.folder import Job
from swin_lab.run.sweep.grid import Source
from swin_lab.run.sweep.launch import POLL_S, Runner
from swin_lab.run.sweep.search import Search
from swin_lab.run.sweep.space import quoted

log = logging.getLogger("swin_lab")

LEAVE_S = 20
"""Seconds that jobs have to leave after the second Ctrl-C."""


def run_jobs(start: Start, source: Source, runner: Runner, interruption: Interruption, fixed: Collection[str]) -> list[int]:
    """Runs jobs until none is left, or until those that run have ended after a signal.

    Args:
        start: the command of the sweep.
        source: gives the jobs.
        runner: runs them.
        interruption: takes note of signals.
        fixed: the overrides that all jobs have in common, which are not printed.

    Returns:
        The exit codes of the jobs; 0 for a trial that Optuna has pruned.
    """
    codes: list[int] = []
    exhausted = passed_on = False
    leave_at = float("inf")
    while True:
        try:
            if interruption.name is not None and not passed_on:
                runner.stop(signal.Signals[interruption.name])
                exhausted = passed_on = True
            while not exhausted and runner.has_room():
                job = source.next()
                if job is None:
                    exhausted = True
                else:
                    job.begin()
                    log.info("%-10s %s, prints to %s", f"job {job.number}", _label(job, fixed), shorter(job.folder))
                    runner.start(job, command_of_job(start, job, source))
            for job, code in runner.ended():
                codes.append(_end(source, job, code, _label(job, fixed), by_signal=passed_on))
            if exhausted and not runner.running():
                return codes
            sleep(POLL_S)
        except KeyboardInterrupt:  # the second Ctrl-C
            runner.stop(signal.SIGINT)
            leave_at = monotonic() + LEAVE_S
        if monotonic() > leave_at:
            runner.stop(signal.SIGKILL)


def command_of_job(start: Start, job: Job, source: Source) -> list[str]:
    """Returns the words of the command of a job: that of a single run in the folder of the job."""
    subcommand = [start.job] if start.launcher == "swin-lab" else []
    place = [f"out={quoted(str(job.folder / 'results'))}"]
    if start.job == "train":
        place = [f"out={quoted(str(job.folder.parent))}", f"name={job.folder.name}", "resume=auto"]
    trial = [source.pruning(job)] if isinstance(source, Search) else []
    return [*relaunch_command(), *subcommand, *start.line.flag_words(OF_EVERY_RUN), *job.overrides, *place, *trial]


def _label(job: Job, fixed: Collection[str]) -> str:
    return " ".join(override for override in job.overrides if override not in fixed) or " ".join(job.overrides)


def _end(source: Source, job: Job, code: int, label: str, *, by_signal: bool) -> int:
    """Records and prints how a job has ended, and returns its exit code."""
    stopped = code in (STOPPED, INTERRUPTED) or (by_signal and code < 0)
    if code not in (OK, PRUNED) and not stopped:
        print(f"error: job {job.number} ({label}): {job.record_error(code)}", file=sys.stderr)
    source.end(job, code, stopped=stopped)
    how = {OK: "finished", PRUNED: "pruned"}.get(code, "stopped" if stopped else "failed")
    log.info("%-10s %s", f"job {job.number}", how)
    return OK if code == PRUNED else STOPPED if stopped else code if code > 0 else 128 - code if code < 0 else OK
