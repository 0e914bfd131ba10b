"""Settings of a sweep that make no sense: refused in one message before a job starts."""

from pathlib import Path

import pytest
from conftest import TINY, Command


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sweep.jobs=0", "seed=1,2"], "sweep.jobs=0 must be a positive integer or null"),
        (["sweep.jbos=2", "seed=1,2"], "unknown key sweep.jbos; did you mean sweep.jobs?"),
        (["sweep.executor=slrum", "seed=1,2"], "sweep.executor=slrum is unknown; did you mean slurm?"),
        (["sweep.jobs=1,2", "seed=1,2"], "sweep.jobs=1,2 cannot have several values: it is a setting of the sweep"),
        (["sweep.slurm={partition: gpu}", "seed=1,2"], "sweep.slurm has no effect with sweep.executor=local"),
        (["sweep.dir=taken", "seed=1,2"], "is no sweep, because it has no sweep.json"),
        (["search=optun", "seed=1,2"], "search=optun is unknown; did you mean optuna?"),
        (["search=optuna", "search.trials=0", "seed=1,2"], "search.trials=0 must be a positive integer"),
        (["search=optuna", "search.sampler=tpes", "seed=1,2"], "search.sampler=tpes is unknown; did you mean tpe?"),
        (["search=optuna", "search.pruner=medain", "seed=1,2"], "search.pruner=medain is unknown; did you mean median?"),
        (["search=optuna", "seed=3"], "search=optuna has no key to search"),
        (["search.trials=3", "seed=1,2"], "unknown key search.trials; search=optuna has it"),
        (["optimizer.lr=interval(1e-4,1e-2)"], "optimizer.lr=interval(1e-4,1e-2) has no list of values, which a grid needs"),
        (["search=optuna", "optimizer.lr=interval(2,1)"], "optimizer.lr=interval(2,1): `low <= high` must hold"),
        (["search=optuna", "optimizer.lr=tag(lgo,interval(1,2))"], "the tag lgo is not one of intervals; did you mean log?"),
        (["seed=range(0,0)"], "the sweep seed=range(0,0) has no runs; give at least one value"),
        (["model=swin_tiny_patch4_window7_224,swin_x"], "model=swin_x is unknown"),
        (["hydra/launcher=submitit_local", "seed=1,2"], "Set sweep.executor=local, slurm or submitit_local"),
        (["resume=auto", "seed=1,2"], "a sweep resumes its unfinished jobs by itself; leave resume out"),
        (["--config-name", "train", "seed=1,2"], "--config-name cannot be used with -m"),
    ],
)
def test_a_sweep_that_cannot_be_run_is_refused_before_a_job_starts(
    command: Command, tmp_path: Path, overrides: list[str], message: str
) -> None:
    pytest.importorskip("optuna")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    outcome = command("train", "-m", *TINY, *overrides)
    assert (outcome.code, outcome.err.startswith("error: ")) == (2, True)
    assert message in outcome.err
    assert len(outcome.err.splitlines()) <= 3
    assert not (tmp_path / "runs").exists()


def test_parameters_of_slurm_are_checked(command: Command) -> None:
    slurm = pytest.importorskip("swin_lab.run.sweep.slurm")
    pytest.importorskip("submitit")
    assert slurm.parameters({"partition": "gpu", "mem_gb": 8}) == {"slurm_partition": "gpu", "mem_gb": 8}
    with pytest.raises(ValueError, match=r"sweep.slurm.partitio is unknown; did you mean partition\?"):
        slurm.parameters({"partitio": "gpu"})
    with pytest.raises(ValueError, match=r"sweep.slurm.timeout_min is set by the sweep: sweep.timeout_min"):
        slurm.parameters({"timeout_min": 3})


@pytest.mark.parametrize("override", ["search=optuna", "sweep.jobs=2", "sweep.dir=here"])
def test_settings_of_a_sweep_are_refused_without_a_sweep(command: Command, tmp_path: Path, override: str) -> None:
    outcome = command("train", *TINY, override)
    assert (outcome.code, f"error: {override} is a setting of sweeps; add -m, or leave it out\n") == (2, outcome.err)
    assert not (tmp_path / "runs").exists()


def test_torchrun_does_not_start_a_sweep(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    outcome = command("train", "-m", *TINY, "seed=1,2")
    assert (outcome.code, "without torchrun" in outcome.err) == (2, True)
