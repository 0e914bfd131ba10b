"""The jobs of a search: as many as Optuna tries."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from swin_lab.record import FINISHED, LOCK, monitored
from swin_lab.report import SweepJob
from swin_lab.run.ending import OK, PRUNED
from swin_lab.run.sweep.folder import Job, Locks, add_job
from swin_lab.run.sweep.grid import ELSEWHERE, FAILED, MISSING
from swin_lab.run.sweep.pruning import open_study
from swin_lab.run.sweep.settings import SearchConfig
from swin_lab.run.sweep.space import Space, quoted

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

STUDY_FILE = "optuna.journal"


class Search:
    """Trials whose values Optuna chooses; the study is a file in the directory of the sweep.

    Args:
        path: directory of the sweep, which need not exist.
        space: the overrides.
        config: the settings.
        mode: whether the monitored metric is to be small ("min") or great ("max").
        seed: of the sampler; what it draws depends on the seed and the trials before, so that a sweep that was stopped goes on
            as it would have done.
    """

    def __init__(self, path: Path, space: Space, config: SearchConfig, mode: str, seed: int) -> None:
        self.path = path
        self.space = space
        self.config = config
        self.mode = mode
        self.seed = seed
        self.distributions = space.distributions()
        self._locks = Locks()
        self._failed_before: set[int] | None = None

    def missing(self) -> int:
        from optuna.trial import TrialState

        done = [trial for trial in self._trials() if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        return max(self.config.trials - len(done), 0)

    def next(self) -> Job | None:
        from optuna.trial import TrialState

        with FileLock(self.path / LOCK):  # Machines take turns in counting the trials and beginning one.
            trials = self._trials(create=True)
            if self._failed_before is None:
                self._failed_before = {trial.number for trial in trials if trial.state == TrialState.FAIL}
            for trial in trials:
                job = self._job(trial)
                if trial.state != TrialState.RUNNING or self._locks.holds(job.number):
                    continue
                job = add_job(self.path, job.number, job.overrides)
                if self._locks.take(job):
                    if job.result() is None:
                        return job
                    self.end(job, OK, stopped=False)  # The sweep was killed before it had told Optuna.
            if len(trials) - len(self._failed_before) >= self.config.trials:
                return None
            study = open_study(self.path / STUDY_FILE, self.mode)
            study.sampler = self._sampler(self.seed + len(trials))
            drawn = study.ask(self.distributions)
            job = add_job(self.path, drawn.number, self.space.overrides(drawn.params))
            self._locks.take(job)
            return job

    def pruning(self, job: Job) -> str:
        """Returns the override by which a job is a trial."""
        node = {
            "_target_": f"{open_study.__module__}.Pruning",
            "file": str(self.path / STUDY_FILE),
            "trial": job.number,
            "pruner": self.config.pruner,
            "startup_trials": self.config.startup_trials,
            "warmup_epochs": self.config.warmup_epochs,
        }
        return f"+callbacks.pruning={{{','.join(f'{key}:{quoted(value)}' for key, value in node.items())}}}"

    def end(self, job: Job, code: int, *, stopped: bool) -> None:
        from optuna.trial import TrialState

        result = job.result()
        study = open_study(self.path / STUDY_FILE, self.mode)
        if result is not None:
            study.tell(job.number, monitored(result), skip_if_finished=True)
        elif not stopped:
            study.tell(job.number, state=TrialState.PRUNED if code == PRUNED else TrialState.FAIL, skip_if_finished=True)
        self._locks.release(job)

    def table(self) -> list[SweepJob]:
        return [self._row(trial) for trial in self._trials()]

    def _row(self, trial: "FrozenTrial") -> SweepJob:
        from optuna.trial import TrialState

        job = self._job(trial)
        if trial.state == TrialState.COMPLETE:
            return SweepJob(job.number, job.overrides, FINISHED, job.result())
        state = ELSEWHERE if trial.state == TrialState.RUNNING and self._locks.is_elsewhere(job) else MISSING
        if trial.state == TrialState.PRUNED:
            state = f"pruned after epoch {trial.last_step}"
        elif trial.state == TrialState.FAIL:
            state = f"{FAILED}: {job.error()}"
        return SweepJob(job.number, job.overrides, state, None)

    def _trials(self, *, create: bool = False) -> "list[FrozenTrial]":
        file = self.path / STUDY_FILE
        return open_study(file, self.mode).get_trials(deepcopy=False) if create or file.is_file() else []

    def _job(self, trial: "FrozenTrial") -> Job:
        return Job(trial.number, self.space.overrides(trial.params), self.path / str(trial.number))

    def _sampler(self, seed: int) -> Any:
        from optuna.samplers import RandomSampler, TPESampler

        if self.config.sampler == "random":
            return RandomSampler(seed)
        return TPESampler(seed=seed, n_startup_trials=self.config.startup_trials)
