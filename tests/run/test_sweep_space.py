"""The values of a sweep, in Hydra's syntax, as jobs of a grid and as what Optuna draws from."""

import pytest

from swin_lab.run.sweep.devices import build_runner, visible_gpus
from swin_lab.run.sweep.settings import SweepConfig
from swin_lab.run.sweep.space import Space, read_space


def space(*overrides: str) -> Space:
    return read_space(overrides, [])


def test_a_grid_has_a_job_for_each_combination_and_each_once() -> None:
    found = space("a=1,2,1", "b=range(0,2)", "c=3", "sweep.jobs=2", "search=grid").combinations()
    assert found == [("c=3", f"a={a}", f"b={b}") for a in (1, 2) for b in (0, 1)]


def test_a_later_override_replaces_an_earlier_one() -> None:
    assert space("a=1,2", "a=3").combinations() == [("a=3",)]


def test_lists_and_choices_of_groups_are_values() -> None:
    assert space("d=[1,2],[3]").combinations() == [("d=[1,2]",), ("d=[3]",)]
    assert ("ema=warm",) in space("ema=glob(*)").combinations()


def test_all_values_are_composed_but_not_all_combinations() -> None:
    found = list(space("a=1,2,3", "b=1,2,3", "c=interval(0.5,1)").examples())
    assert found[0] == ("a=1", "b=1", "c=0.5")
    assert len(found) == 5


def test_optuna_draws_from_intervals_ranges_and_choices() -> None:
    distributions = pytest.importorskip("optuna.distributions")
    found = space(
        "lr=tag(log,interval(1e-4,1e-2))", "n=int(interval(1,4))", "r=range(0,10,3)", "f=range(0.0,1.0,0.5)", "d=[1],[2]"
    ).distributions()
    assert found == {
        "lr": distributions.FloatDistribution(1e-4, 1e-2, log=True),
        "n": distributions.IntDistribution(1, 4),
        "r": distributions.IntDistribution(0, 9, step=3),  # as in a grid: 0, 3, 6, 9
        "f": distributions.FloatDistribution(0.0, 0.5, step=0.5),
        "d": distributions.CategoricalDistribution(("[1]", "[2]")),
    }


def test_what_optuna_has_drawn_becomes_overrides() -> None:
    assert space("a=3", "lr=interval(0,1)", "d=[1],[2]").overrides({"lr": 1e-05, "d": "[2]"}) == ("a=3", "lr=1e-05", "d=[2]")


@pytest.mark.parametrize(("devices", "jobs"), [(1, 4), (2, 2), (3, 1), (4, 1), ("auto", 1), (8, 1)])
def test_as_many_jobs_run_at_once_as_the_gpus_have_room_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path, devices: int | str, jobs: int
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    trainer = {"trainer": {"devices": devices, "accelerator": "auto"}}
    assert build_runner(trainer, SweepConfig(), space("seed=1,2"), tmp_path).at_once == jobs
    with pytest.raises(ValueError, match=f"have room for {jobs} jobs"):
        build_runner(trainer, SweepConfig(jobs=5), space("seed=1,2"), tmp_path)


def test_gpus_have_the_names_that_the_environment_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-1a")
    assert visible_gpus(2) == ["5", "GPU-1a"]
