"""Jobs of a sweep on SLURM, through submitit, which also runs them without SLURM for tests."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swin_lab.errors import UserError, did_you_mean
from swin_lab.run.ending import FAILED
from swin_lab.run.sweep.folder import ERR, Job
from swin_lab.run.sweep.launch import POLL_S, execute
from swin_lab.run.sweep.settings import SweepConfig

BASE_PARAMETERS = ("mem_gb", "cpus_per_task")
"""Parameters of submitit that are not those of SLURM alone."""
OF_THE_SWEEP = {"name": "the name of the sweep", "timeout_min": "sweep.timeout_min", "gpus_per_node": "trainer.devices"}
OF_THE_SWEEP |= {"nodes": "one machine for each job", "tasks_per_node": "one task, which starts one process per device"}
"""Parameters of submitit that follow from others."""


class SubmittedJob:
    """What submitit runs on the other machine: the command of a job, with signals passed on to it.

    Args:
        command: the words of its command.
        folder: gets what it prints.
    """

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self.command = list(command)
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        self._process = process = execute(self.command, self.folder, None)
        signal.signal(signal.SIGTERM, lambda number, frame: process.send_signal(number))  # submitit would ignore it.
        while process.poll() is None:  # Waiting would hold a lock that `checkpoint` needs.
            time.sleep(POLL_S)
        return process.returncode

    def checkpoint(self) -> Any:
        """Stops the job after its checkpoint, before its time is over or a preemption, and has submitit queue it again."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            self._process.terminate()
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(SubmittedJob(self.command, self.folder))


class Submitit:
    """Runs jobs through submitit.

    Args:
        config: executor and its parameters.
        folder: folder of submitit's files.
        gpus: number of GPUs of a job.

    Raises:
        UserError: submitit does not know a parameter, or there is no SLURM.
    """

    def __init__(self, config: SweepConfig, folder: Path, gpus: int) -> None:
        os.environ.setdefault("SUBMITIT_PREEMPT_SIGNAL", "USR1")  # which a run understands; submitit's own is USR2.
        import submitit

        cluster = "local" if config.executor == "submitit_local" else "slurm"
        try:
            self._executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
            self._executor.update_parameters(
                **parameters(config.slurm or {}), name="swin_lab_sweep", timeout_min=config.timeout_min, gpus_per_node=gpus
            )
        except (RuntimeError, NameError, ValueError, TypeError) as error:
            raise UserError(f"sweep.executor={config.executor}: {str(error).splitlines()[0]}") from error
        self._on_slurm = cluster == "slurm"
        self._limit = config.jobs
        self._running: list[tuple[Job, Any]] = []

    def has_room(self) -> bool:
        return self._limit is None or len(self._running) < self._limit

    def start(self, job: Job, command: Sequence[str]) -> None:
        self._running.append((job, self._executor.submit(SubmittedJob(command, job.folder))))

    def ended(self) -> list[tuple[Job, int]]:
        done = [(job, submitted) for job, submitted in self._running if submitted.done()]
        self._running = [entry for entry in self._running if entry not in done]
        return [(job, self._code(job, submitted)) for job, submitted in done]

    def running(self) -> int:
        return len(self._running)

    def stop(self, number: int) -> None:
        for _, submitted in self._running:
            if not self._on_slurm:
                os.kill(int(submitted.job_id), signal.SIGTERM)
            elif submitted.state == "PENDING":
                submitted.cancel()
            else:
                subprocess.run(["scancel", f"--signal={number}", submitted.job_id], check=False)

    def _code(self, job: Job, submitted: Any) -> int:
        """Returns the exit code of a job; without one, keeps submitit's error."""
        try:
            return int(submitted.result())
        except Exception as error:  # submitit raises many kinds, one of them for a cancelled job.
            lines = [line for line in str(error).splitlines() if line.strip(" -")] or [type(error).__name__]
            with (job.folder / ERR).open("a") as file:
                file.write(f"\nerror: submitit: {lines[-1]}\n\n{error}\n")
            return FAILED


def parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parameters of submitit under its own names; raises UserError for one that follows from other settings."""
    from submitit.slurm.slurm import SlurmExecutor

    known = {*SlurmExecutor._valid_parameters(), *BASE_PARAMETERS}
    for key in given:
        if key in OF_THE_SWEEP:
            raise UserError(f"sweep.slurm.{key} is set by the sweep: {OF_THE_SWEEP[key]}")
        if key not in known:
            raise UserError(f"sweep.slurm.{key} is unknown{did_you_mean(key, known)}")
    return {key if key in BASE_PARAMETERS else f"slurm_{key}": value for key, value in given.items()}
