"""Fixtures of all tests: one thread per process, no network, and commands run as a user runs them."""

import csv
import gc
import json
import logging
import os
import pickle

os.environ.setdefault("OMP_NUM_THREADS", "1")  # Tests run in parallel; waiting threads would slow each other down.
os.environ["WANDB_MODE"] = "offline"

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import pytest
from composed import composed_from_memory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).parent.parent

TINY = [
    "model.embed_dim=8",
    "model.depths=[1,2]",
    "model.num_heads=[1,2]",
    "data=synthetic",
    "data.num_classes=6",
    "data.train_images=64",
    "data.val_images=30",
    "global_batch=16",
    "schedule.warmup_epochs=0.5",
    "optimizer.lr=3e-3",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "name=tiny",
]
"""Overrides of train.py for a run of about a second."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files instead of comparing with them")


@dataclass(frozen=True)
class Outcome:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def printed(self) -> str:
        """Returns everything that was printed."""
        return self.out + self.err


Command = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def _process_as_before() -> Iterator[None]:
    """Restores the level of the log, which a quiet command raises, and the environment variables and Lightning's rank, which a
    launch of several processes sets, for the rest of its process.
    """
    from lightning.pytorch.utilities import rank_zero_only

    log, environment, rank = logging.getLogger("swin_lab"), dict(os.environ), getattr(rank_zero_only, "rank", 0)
    level = log.level
    yield
    log.setLevel(level)
    rank_zero_only.rank = rank  # type: ignore[attr-defined]
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)


def pytest_collection_finish() -> None:
    """Searches for garbage less often, and not in the libraries that collection has imported: a quarter of the time of a run
    that is refused.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


@pytest.fixture(scope="session", autouse=True)
def _yaml_parsed_once() -> Iterator[None]:
    """Parses no text of a configuration file twice, which is half of the time in which a configuration is composed.

    The key is the content, so that files can be changed; every caller gets an object of its own.
    """
    from omegaconf import OmegaConf

    load, parsed = OmegaConf.load, dict[str, bytes]()

    def load_once(file: str | Path | TextIO) -> Any:
        if isinstance(file, (str, Path)):
            with open(file, encoding="utf-8") as stream:
                return load_once(stream)
        text = file.read()
        if text not in parsed:
            file.seek(0)
            parsed[text] = pickle.dumps(load(file))
        return pickle.loads(parsed[text])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OmegaConf, "load", staticmethod(load_once))
        yield


@pytest.fixture(scope="session", autouse=True)
def _composed_once() -> Iterator[None]:
    """Leaves out that Hydra composes every configuration once more to read hydra.mode, but where an override names Hydra."""
    from hydra._internal.hydra import Hydra

    original = Hydra.get_mode

    def get_mode(self: Hydra, config_name: str | None, overrides: list[str]) -> Any:
        return original(self, config_name, overrides) if any("hydra" in override for override in overrides) else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hydra, "get_mode", get_mode)
        yield


@pytest.fixture(scope="session")
def _plugins_of_lightning_found_once() -> Iterator[None]:
    """Searches the installed packages for callbacks of Lightning once, not for every Trainer."""
    from lightning.fabric.utilities import registry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "entry_points", cache(registry.entry_points))
        yield


def _run_script(patch: pytest.MonkeyPatch, job: str, arguments: Sequence[str]) -> int:
    """Returns the exit code of train.py or eval.py, run inside this process in the current folder."""
    from swin_lab.run.arguments import RUN_DIR
    from swin_lab.run.entry import main

    patch.setattr(sys, "path", list(sys.path))
    patch.delenv(RUN_DIR, raising=False)
    patch.setenv("COLUMNS", "200")
    patch.setattr(sys, "argv", [str(ROOT / f"{job}.py"), *arguments])
    try:
        with composed_from_memory(arguments):
            return main(job)
    except SystemExit as stop:  # --help, --cfg
        return int(stop.code or 0)


@pytest.fixture(scope="session")
def run_script(_plugins_of_lightning_found_once: None) -> Command:
    """Runs train.py or eval.py inside this process, in the current folder, for fixtures that several tests share."""

    def run(job: str, *arguments: str) -> Outcome:
        out, err = StringIO(), StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            code = _run_script(patch, job, arguments)
        return Outcome(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def tiny_training(run_script: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """The folder in which `train.py` ran with TINY, and its outcome, once for the tests that only read them."""
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        outcome = run_script("train", *TINY)
    assert outcome.code == 0, outcome.err
    return folder, outcome


@pytest.fixture
def trained(tiny_training: tuple[Path, Outcome], tmp_path: Path) -> Path:
    """A copy of that run directory under tmp_path, for tests that evaluate or change it."""
    shutil.copytree(tiny_training[0] / "runs", tmp_path / "runs")
    return only_run(tmp_path)


@pytest.fixture
def plots() -> None:
    """Has the plots of a `command` drawn. Otherwise they are empty images of the same size: drawing takes a quarter of the time
    of a tiny run. tests/report and `trained` draw them.
    """


def _write_without_drawing(figure: "Figure", file: Path, *, dpi: int) -> None:
    from PIL import Image

    width, height = figure.get_size_inches()
    Image.new("RGB", (round(width * dpi), round(height * dpi))).save(file)


@pytest.fixture
def command(
    request: pytest.FixtureRequest,
    _plugins_of_lightning_found_once: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Command]:
    """Runs train.py or eval.py inside this process, in an empty folder: command("train", "key=value", ...).

    Modules of this folder, which a command has imported, are forgotten after the test: another one may have the same names.
    """
    from matplotlib.figure import Figure

    monkeypatch.chdir(tmp_path)
    if "plots" not in request.fixturenames:
        monkeypatch.setattr(Figure, "savefig", _write_without_drawing)

    def run(job: str, *arguments: str) -> Outcome:
        capsys.readouterr()
        code = _run_script(monkeypatch, job, arguments)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    yield run
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(f"{tmp_path}{os.sep}"):
            del sys.modules[name]


@pytest.fixture
def cli(
    _plugins_of_lightning_found_once: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs `swin-lab` inside this process, in an empty folder: cli("inspect", "FILE")."""
    from swin_lab.commands.app import main
    from swin_lab.run.arguments import RUN_DIR

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["swin-lab"])
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv(RUN_DIR, raising=False)

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = main(list(map(str, arguments)))
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the configuration of a tiny model of transformers."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("vit")
    sizes = {"image_size": 32, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    transformers.ViTConfig(**sizes, intermediate_size=32).save_pretrained(folder)
    return folder


@pytest.fixture
def process(tmp_path: Path) -> Command:
    """Runs train.py or eval.py as a process of its own, in an empty folder."""

    def run(job: str, *arguments: str, timeout: float = 240) -> Outcome:
        done = subprocess.run(
            [sys.executable, str(ROOT / f"{job}.py"), *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=timeout,
            env=os.environ | {"COLUMNS": "200"},
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


def gradient_norms(run: Path) -> list[float]:
    """Returns the norm of the gradient in every update that metrics.csv of a run contains."""
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row["train/grad_norm"]) for row in csv.DictReader(file) if row.get("train/grad_norm")]


@cache
def _synthetic() -> Any:
    """Returns a recipe whose data is available."""
    from swin_lab.run.compose import composed
    from swin_lab.run.recipe import build_recipe

    return build_recipe(composed(["data=synthetic"]))


def build_components(config: dict[str, Any]) -> dict[str, Any]:
    """Builds all that training with a composed configuration needs, except data sets that are not available.

    Returns:
        The values that were derived from the components, such as the number of parameters.
    """
    from swin_lab.run.components import LOADER_KEYS, build_callbacks, build_task
    from swin_lab.run.instantiate import build_dataclass, check_keys
    from swin_lab.run.recipe import build_recipe, derived_values
    from swin_lab.run.settings import TrainConfig, TransferConfig
    from swin_lab.run.trainer import build_trainer
    from swin_lab.training import DataDescription

    build_dataclass("", TrainConfig, config | {"name": "some"})
    build_dataclass("transfer", TransferConfig, config["transfer"])
    check_keys("data", config["data"], LOADER_KEYS)
    devices = config["trainer"]["devices"]
    recipe = build_recipe(config, devices if isinstance(devices, int) else 1, like=_synthetic())  # task, network, optimizer
    callbacks = build_callbacks(config["callbacks"], build_task(config["task"], DataDescription(class_names=("a", "b"))), False)
    for name, node in (config["logger"] or {}).items():
        check_keys(f"logger.{name}", node or {})
    build_trainer(config["trainer"] | {"accelerator": "cpu"}, "32-true", callbacks=list(callbacks))
    return derived_values(recipe)


def only_run(folder: Path) -> Path:
    """Returns the only run directory under a folder."""
    from swin_lab.record import find_records

    runs = list(find_records(folder))
    assert len(runs) == 1, runs
    return runs[0]


def recorded(folder: Path) -> dict[str, Any]:
    """Returns the contents of results.json in the directory of a run or of an evaluation."""
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def final_metrics(of: Path | dict[str, Any]) -> dict[str, float]:
    """Returns the metrics of the final evaluation, such as val/acc1 and val_ema/acc1, from a directory or a record."""
    record = of if isinstance(of, dict) else recorded(of)
    weights = {"metrics.final.": "val", "metrics.final_ema.": "val_ema"}
    return {
        f"{prefix}/{key.removeprefix(start)}": value
        for start, prefix in weights.items()
        for key, value in record.items()
        if key.startswith(start) and not key.endswith((".epoch", ".of"))
    }


def same(one: object, two: object) -> bool:
    """Returns whether nested values are equal, tensors to the bit."""
    import torch

    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(same(value, two[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(same, one, two))
    return torch.equal(one, two) if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor) else one == two
