"""TensorBoard and MLflow on the folder of a sweep of six runs, in headless Chromium."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from pages import Browser, needs_chromium

pytestmark = [needs_chromium, pytest.mark.browser, pytest.mark.slow]

SECONDS = 120
"""How long a page may take on a busy machine."""
DIGITS = ["model.embed_dim=8", "model.depths=[1,2]", "model.num_heads=[1,2]", "name=tiny", "trainer.accelerator=cpu"]
RUN = r"/^sweeps\/.*\/[0-5]\/[^/]+$/"
"""Pattern of the name of a run in TensorBoard."""
SWEPT = ["optimizer.lr=1e-3,3e-3,1e-2", "model.drop_path_rate=0,0.1"]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a sweep of six runs on the digits was started."""
    pytest.importorskip("mlflow")
    folder = tmp_path_factory.mktemp("sweep")
    words = [*DIGITS, *SWEPT, "trainer.max_epochs=1", "schedule.warmup_epochs=0", "trainer.limit_train_batches=12"]
    command = [sys.executable, str(ROOT / "train.py"), "-m", *words, "logger=mlflow"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@contextmanager
def served(words: Sequence[str], folder: Path) -> Iterator[str]:
    """Runs a server, as a module with --port, until the block ends, and yields its address."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = found.getsockname()[1]
    address = f"http://localhost:{port}"
    with (folder / "server.txt").open("w") as log:
        command = [sys.executable, "-m", *words, "--port", str(port)]
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        wait_for(server, address, folder / "server.txt")
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)  # MLflow starts further processes.
        server.wait()


def wait_for(server: subprocess.Popen[Any], address: str, log: Path) -> None:
    """Waits until a server answers."""
    for _ in range(4 * SECONDS):
        try:
            urllib.request.urlopen(address, timeout=SECONDS).close()
        except urllib.error.URLError:
            try:
                server.wait(timeout=0.25)
            except subprocess.TimeoutExpired:
                continue
            pytest.fail(log.read_text())
        return
    pytest.fail(f"no answer: {log.read_text()}")


def test_tensorboard_shows_scalars_and_filled_hyper_parameters_of_the_six_runs(sweep: Path, tmp_path: Path) -> None:
    with served(["tensorboard.main", "--logdir", "runs"], sweep) as address, Browser(tmp_path / "profile") as browser:
        browser.open(f"{address}/#hparams")
        rates = r"count(/^0\.0010000$|^0\.0030000$|^0\.010000$/)"
        browser.wait_for(f"count({RUN}) >= 6 && {rates} >= 6", SECONDS)
        assert browser.wait_for("['config.optimizer.lr', 'config.model.drop_path_rate', 'final/acc1'].every(has)", SECONDS)
        browser.open(f"{address}/#timeseries")
        assert browser.wait_for("['Pinned', 'final', '/acc1', 'Smoothed'].every(has)", SECONDS)
        assert browser.wait_for(f"new Set(texts().filter(text => {RUN}.test(text))).size === 6", SECONDS)


def test_mlflow_lists_the_six_runs(sweep: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(sweep / "runs" / "mlflow.db")) as database:
        ((experiment,),) = database.execute("SELECT experiment_id FROM experiments WHERE name = 'swin_lab'")
    words = ["mlflow", "ui", "--backend-store-uri", "sqlite:///runs/mlflow.db", "--workers", "1"]
    with served(words, sweep) as address, Browser(tmp_path / "profile") as browser:
        browser.open(f"{address}/#/experiments/{experiment}/runs")
        names = "new Set(texts().filter(text => /^optimizer\\.lr=\\S+ model\\.drop_path_rate=\\S+$/.test(text)))"
        assert browser.wait_for(f"{names}.size === 6", SECONDS)
