"""Every key with a dozen invalid values, and every choice misspelt: exit code 2, and one to three lines that name the key.

A run that would start is stopped before its directory is made.
"""

import re
import urllib.error
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, Command, Outcome, only_run
from invalid_values import FIRST_OF_ITS_CLASS, RUN, VALID, VIT, Base, bases
from omegaconf import OmegaConf, open_dict

from swin_lab.run.choices import choices, groups

BASES = bases()

TOP = "top level"
PARTS = ("task", "model", "data", "augment", "optimizer", "schedule", "trainer", "transfer", TOP)
NAMED = {
    "data.several_labels=true": "several labels per image",
    "model.pretrained=true": "no file named",
    "transfer.required=true": "weights must be given",
}
"""Override -> what its message says instead of the key: the value is valid, and something else is missing."""
NO_FILES = ("nowhere", "could not be downloaded")
"""Parts of messages about data that does not exist: the values that are checked before it is read were accepted."""


class StartedError(Exception):
    """Raised where a run would make its directory: everything was accepted."""


@pytest.fixture
def without_job_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has Hydra run its job without the folder, the files and the copies of a job."""
    import hydra._internal.hydra as job
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.utils import JobReturn, JobStatus

    def run_job(hydra_context, task_function, config, job_dir_key, job_subdir_key, configure_logging=True):
        with open_dict(config):
            config.hydra.runtime.output_dir = str(OmegaConf.select(config, job_dir_key))
            HydraConfig.instance().set_config(config)
            del config["hydra"]
        return JobReturn(status=JobStatus.COMPLETED, _return_value=task_function(config))

    monkeypatch.setattr(job, "run_job", run_job)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # restored after the test


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a short training."""
    from swin_lab.run.entry import main

    folder = tmp_path_factory.mktemp("run")
    assert main("train", [*TINY, "trainer.max_epochs=1", f"out={folder}"]) == 0
    return only_run(folder)


@pytest.fixture
def checked(
    command: Command, without_job_folder: None, tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Outcome]:
    """Runs a command up to its run directory, without a network; tiny_run was trained before."""
    import timm.models._builder
    import torch
    import torchvision.datasets

    from swin_lab.run import evaluate, fit

    @contextmanager
    def no_directory(*arguments: object, resumes: bool = False) -> Iterator[None]:
        raise StartedError
        yield

    def no_download(*arguments: object, **options: object) -> None:
        raise urllib.error.URLError("no network")

    for module in (fit, evaluate):
        monkeypatch.setattr(module, "run_directory", no_directory)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", no_download)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_download)
    monkeypatch.setattr(timm.models._builder, "load_pretrained", lambda *arguments, **options: None)

    def run(job: str, *arguments: str) -> Outcome:
        try:
            return command(job, *arguments)
        except StartedError:
            return Outcome(0, "", "accepted")

    return run


def complaint(outcome: Outcome, override: str, others: Sequence[str] = ()) -> str | None:
    """Returns what is wrong with the refusal of an override; None if it is as it must be.

    That the message repeats other overrides of the command says nothing about this one.
    """
    lines = outcome.err.strip().splitlines()
    key, _, value = override.lstrip("+~").rpartition(".")[2].partition("=")
    if outcome.code != 2:
        return f"{override}: exit code {outcome.code}: {outcome.err[-300:]}"
    if not 1 <= len(lines) <= 3 or not lines[0].startswith("error: ") or "Traceback" in outcome.err:
        return f"{override}: {outcome.err[-500:]}"
    message = outcome.err
    for other in sorted(others, key=len, reverse=True):
        message = message.replace(other, "")
    words = [NAMED.get(override, key), *([value] if len(value) > 1 else [])]
    named = any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", message) for word in words)
    return None if named else f"{override}: the message names neither key nor value: {outcome.err}"


@pytest.fixture
def overrides_of(request: pytest.FixtureRequest) -> Callable[[Base], list[str]]:
    """Returns the overrides of a base with the paths of existing files."""
    paths = {RUN: "tiny_run", VIT: "vit"}

    def replaced(override: str) -> str:
        key, _, value = override.partition("=")
        return f"{key}={request.getfixturevalue(paths[value])}" if value in paths else override

    return lambda base: [replaced(override) for override in base.overrides]


EVERY = 8
"""The other choices of models and recipes, whose keys are those of a first one and get one value each, are slow tests."""


def parts() -> Iterator[Any]:
    """Yields base, part and step; the longest bases are divided by the groups of their keys, to run at the same time.

    All values together take minutes, in the slow tests. The others take every fourth value of each key, and every eighth model
    and recipe.
    """
    for name, base in BASES.items():
        is_fast = base.group not in ("model", "experiment") or name in FIRST_OF_ITS_CLASS or base.number % EVERY == 0
        gets_one_value = base.group in ("experiment", "debug")
        for part in PARTS if name in ("train", "eval") else [""]:
            if is_fast:
                yield pytest.param(name, part, 4, id=f"{name}-{part}-some")
            if not (is_fast and gets_one_value):
                yield pytest.param(name, part, 1, id=f"{name}-{part}-all", marks=pytest.mark.slow)


def is_in(override: str, part: str) -> bool:
    """Returns whether an override belongs to a part: the keys of a group, those of no group, or all ("")."""
    key = override.lstrip("+")
    return part == "" or (key.startswith(f"{part}.") if part != TOP else not key.startswith(tuple(f"{p}." for p in PARTS)))


@pytest.mark.parametrize(("name", "part", "step"), list(parts()))
def test_invalid_values_are_refused(
    checked: Callable[..., Outcome], overrides_of: Callable[[Base], list[str]], name: str, part: str, step: int
) -> None:
    base = BASES[name]
    overrides = [override for override in base.invalid_overrides(step) if is_in(override, part)]
    given = overrides_of(base)
    found = [complaint(checked(base.job, *given, override), override, given) for override in overrides]
    assert [text for text in found if text] == []


@pytest.mark.parametrize("name", BASES)
def test_values_that_are_listed_as_valid_are_accepted(
    checked: Callable[..., Outcome], overrides_of: Callable[[Base], list[str]], name: str
) -> None:
    base = BASES[name]
    outcomes = {override: checked(base.job, *overrides_of(base), override) for override in base.valid_overrides()}
    assert {key: o.err for key, o in outcomes.items() if not (o.code == 0 or any(text in o.err for text in NO_FILES))} == {}


def test_every_key_that_has_valid_values_is_walked() -> None:
    walked = {place: set() for base in BASES.values() for place in base.places()}
    for base in BASES.values():
        for place in base.places():
            walked[place].update(base.tested())
    assert {place: list(set(VALID[place]) - walked[place]) for place in VALID if not set(VALID[place]) <= walked[place]} == {}


def test_there_are_at_least_1500_cases() -> None:
    assert sum(1 for base in BASES.values() for _ in base.invalid_overrides()) >= 1500


@pytest.mark.parametrize(
    "override",
    [
        *("+mixing.prob=abc", "+mixing.prob=0.5", "+ema.decay=abc", "+ema.decay=0.5"),
        *("+callbacks.early_stopping.patience=-1", "+callbacks.early_stopping.patience=3", "+callbacks.x=1"),
        *("+logger.wandb.project=x", "+logger.wandb.project=3"),
    ],
)
def test_a_key_of_a_group_that_is_chosen_as_none_is_refused(checked: Callable[..., Outcome], override: str) -> None:
    assert complaint(checked("train", *TINY, override), override) is None


@pytest.mark.parametrize("group", groups())
def test_misspelt_and_missing_choices_are_refused(checked: Callable[..., Outcome], group: str) -> None:
    names = choices(group)
    wrong = [f"{group}={name}x" for name in names] + [f"{group}={name[1:]}" for name in names]
    wrong += [f"{group}={value}" for value in ("''", "3", "-1", "true", "{a:1}", "null", "nan")]
    wrong += [] if group in ("experiment", "debug", "callbacks", "logger", "mixing", "ema") else [f"~{group}", f"{group}=[]"]
    found = [complaint(checked("train", override), override) for override in wrong]
    assert [text for text in found if text] == []
