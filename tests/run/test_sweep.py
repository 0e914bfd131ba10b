"""Sweeps: jobs in processes of their own, failures that stop no other job, and commands that run only what is missing."""

import json
import shlex
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import rich
from conftest import ROOT, TINY, Command, Outcome

from swin_lab.record import find_records
from swin_lab.run.entry import main

SWEPT = [entry for entry in TINY if not entry.startswith(("optimizer.lr", "name"))]
STOP = '''
import os, signal
from pathlib import Path
from lightning import Callback

class StopSweep(Callback):
    """Sends SIGTERM to the sweep after the third update of its first job, once, and waits until it is passed on."""

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 3 and not Path("stopped").exists():
            Path("stopped").touch()
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            os.kill(os.getppid(), signal.SIGTERM)
            signal.sigwait({signal.SIGTERM})
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            os.kill(os.getpid(), signal.SIGTERM)
'''


def sweep(folder: Path, *overrides: str) -> Outcome:
    """Runs a sweep inside this process; its jobs have processes of their own."""
    words = ["-m", *SWEPT, *overrides]
    out, err = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        patch.setattr(sys, "argv", [str(ROOT / "train.py"), *words])
        patch.setenv("COLUMNS", "200")
        rich.reconfigure()  # A test of a narrow terminal may have fixed the width.
        patch.setenv("PYTHONPATH", str(ROOT))  # Workers of submitit import swin_lab.
        code = main("train")
    return Outcome(code, out.getvalue(), err.getvalue())


def only_sweep(folder: Path) -> Path:
    (found,) = (folder / "runs" / "sweeps").iterdir()
    return found


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome, Outcome]:
    """A sweep with a job that fails, through submitit, and the same command again, with local processes."""
    pytest.importorskip("submitit")
    folder = tmp_path_factory.mktemp("sweep")
    overrides = ["trainer.max_epochs=1", "optimizer.lr=fast,1e-3"]
    first = sweep(folder, *overrides, "sweep.executor=submitit_local")
    return folder, first, sweep(folder, *overrides)


@pytest.mark.slow
def test_a_failed_job_is_recorded_and_the_others_go_on(swept: tuple[Path, Outcome, Outcome]) -> None:
    folder, first, _ = swept
    assert first.code == 2, first.printed
    message = "optimizer.lr=fast must be a non-negative number up to 1,000,000"
    assert f"error: job 0 (optimizer.lr=fast): {message}\n" in first.err
    assert (only_sweep(folder) / "0" / "error.txt").read_text().startswith(f"{message}\n\nexit code 2\n")
    table = first.out[first.out.index("Sweep") :].splitlines()
    assert "optimizer.lr=0.001" in table[4]
    assert "finished" in table[4]
    assert f"failed: {message}" in table[5]


@pytest.mark.slow
def test_the_same_command_again_runs_only_what_is_missing(swept: tuple[Path, Outcome, Outcome]) -> None:
    folder, _, again = swept
    assert "jobs without a result: 1" in again.out
    assert "job 1" not in again.out
    assert len(list(find_records(only_sweep(folder)))) == 1
    assert "finished" in again.out
    words = shlex.split(again.err.splitlines()[-1].partition("runs only these: ")[2])
    assert words[1:4] == [str(ROOT / "train.py"), "-m", SWEPT[0]]


@pytest.mark.slow
def test_a_search_that_a_signal_has_stopped_is_continued_by_the_same_command(tmp_path: Path) -> None:
    """The job that ran has saved a checkpoint and goes on from it; it is still the same trial of Optuna."""
    optuna = pytest.importorskip("optuna")
    (tmp_path / "sweep_stop.py").write_text(STOP)
    overrides = [
        "+callbacks.stop={_target_: sweep_stop.StopSweep}",
        "search=optuna",
        "optimizer.lr=tag(log,interval(1e-4,1e-2))",
    ]
    first = sweep(tmp_path, *overrides, "search.trials=1")
    assert first.code == 75, first.printed
    folder = only_sweep(tmp_path)
    assert "missing" in first.out
    assert first.err.splitlines()[-2] == "stopped by SIGTERM"
    assert first.err.splitlines()[-1].startswith(f"continue with: python {ROOT}/train.py -m {SWEPT[0]}")
    again = sweep(tmp_path, *overrides, "search.trials=1")
    assert again.code == 0, again.printed
    assert "resume     after 3 updates (epoch 1)" in (folder / "0" / "output.txt").read_text()
    from swin_lab.run.sweep.pruning import open_study

    (trial,) = open_study(folder / "optuna.journal", "max").trials
    (file,) = folder.glob("0/*/results.json")
    assert trial.state == optuna.trial.TrialState.COMPLETE
    assert trial.value == json.loads(file.read_text())["metrics.final.acc1"]
    assert list(trial.intermediate_values) == [1, 2]


def test_a_trial_that_is_worse_than_others_is_pruned(command: Command, tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    from swin_lab.run.sweep.pruning import open_study

    study = open_study(tmp_path / "optuna.journal", "max")
    study.add_trial(optuna.trial.create_trial(value=1.0, intermediate_values={1: 1.0, 2: 1.0}))
    trial = study.ask().number
    node = f"{{_target_: swin_lab.run.sweep.pruning.Pruning, file: optuna.journal, trial: {trial}, pruner: PRUNER, "
    node += "startup_trials: 1, warmup_epochs: 2}"
    outcome = command("train", *TINY, "trainer.max_epochs=3", f"+callbacks.pruning={node.replace('PRUNER', 'median')}")
    assert outcome.code == 3, outcome.printed
    assert "pruned     after epoch 2: val/acc1 is worse than in other trials" in outcome.out
    assert list(open_study(tmp_path / "optuna.journal", "max").trials[trial].intermediate_values) == [1, 2]
    assert command("train", *TINY, f"+callbacks.pruning={node.replace('PRUNER', 'none')}").code == 0


def search_in(folder: Path):
    """A search over one key, without its jobs."""
    from swin_lab.run.sweep.search import Search
    from swin_lab.run.sweep.settings import SearchConfig
    from swin_lab.run.sweep.space import read_space

    config = SearchConfig(trials=3, sampler="random", pruner="median", startup_trials=1, warmup_epochs=1)
    return Search(folder, read_space(["optimizer.lr=interval(0,1)"], []), config, "max", 0)


def finish(job, accuracy: float) -> None:
    (job.folder / "time").mkdir()
    result = {"version": 1, "run.state": "finished", "metrics.final.acc1": accuracy, "derived.monitor": "acc1"}
    result |= {"derived.monitor_mode": "max", "derived.monitor_weights": "raw"}
    (job.folder / "time" / "results.json").write_text(json.dumps(result))


def test_two_machines_share_a_search_and_an_unfinished_trial_is_taken_over(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    here, there = search_in(tmp_path), search_in(tmp_path)
    first, second = here.next(), there.next()
    assert [first.number, second.number] == [0, 1]
    finish(first, 0.5)
    here.end(first, 0, stopped=False)
    there.end(second, 75, stopped=True)
    taken = here.next()
    assert taken == second
    third = there.next()
    assert (third.number, there.next(), here.next()) == (2, None, None)
    assert [row.state for row in here.table()] == ["finished", "missing", "running elsewhere"]
    here.end(taken, 3, stopped=False)
    there.end(third, 1, stopped=False)
    assert [here.missing(), search_in(tmp_path).next().number] == [1, 3]  # The failed trial does not count.


def test_what_a_search_draws_depends_on_its_trials_only_not_on_when_it_was_stopped(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    drawn = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        search = search_in(tmp_path / name)
        for _ in range(3):
            job = search.next()
            finish(job, 0.5)
            search.end(job, 0, stopped=False)
            drawn.append(job.overrides)
            search = search_in(tmp_path / name) if name == "two" else search
    assert drawn[:3] == drawn[3:]
    assert len(set(drawn)) == 3


def test_jobs_of_a_named_sweep_are_known_by_their_overrides(tmp_path: Path) -> None:
    from swin_lab.run.sweep.grid import Grid

    Grid(tmp_path, [("seed=1",), ("seed=2",)]).create()
    longer = Grid(tmp_path, [("seed=3",), ("seed=2",)])
    assert [longer.next().number, longer.next().number, longer.next()] == [2, 1, None]
