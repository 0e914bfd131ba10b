"""`swin-lab doctor`: what it finds, and its advice."""

import json
import sys
from pathlib import Path

import pytest
from conftest import Command

from swin_lab.run import memory, preflight
from swin_lab.run.doctor import devices, software, storage
from swin_lab.run.doctor.examination import needs_without_data, number_of_devices

TOPOLOGY = """\t\x1b[4mGPU0\tGPU1\tGPU2\tCPU Affinity\x1b[0m
GPU0\t X \tNV18\tSYS\t0-63
GPU1\tNV18\t X \tNV18\t0-63
GPU2\tSYS\tNV18\t X \t64-127

Legend:
  SYS  = Connection traversing PCIe
"""
GPUS = "NVIDIA H100, 550.54, 81559, 5000\nNVIDIA H100, 550.54, 81559, 3\n"


def findings(cli: Command, *arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    outcome = cli("doctor", "--json", *arguments)
    printed = json.loads(outcome.out)
    assert printed["problems"] == sum(one["state"] == "problem" for one in printed["findings"])
    return outcome.code, {one["check"]: one for one in printed["findings"]}


def test_a_table_lists_every_check_and_nothing_remains(cli: Command, tmp_path: Path) -> None:
    outcome = cli("doctor")
    assert outcome.code in (0, 1), outcome.err
    for check in ("versions", "requirements", "bad releases", "GPUs", "threads", "space for runs", "writing runs", "clock"):
        assert check in outcome.out
    assert not list(tmp_path.iterdir())


def test_little_shared_memory_is_a_problem_with_advice(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "free_shared_memory", lambda: 64 * 10**6)
    words = ["experiment=swin_tiny_patch4_window7_224", "data.root=/images", "data.num_workers=2"]
    code, found = findings(cli, *words)
    assert code == 1
    assert found["shared memory"]["found"] == "64 MB free, 155 MB needed by 2 loader workers"
    assert found["shared memory"]["advice"].startswith("Give the container more (docker run --shm-size=1g")


def test_a_folder_that_cannot_be_written_is_a_problem(cli: Command) -> None:
    code, found = findings(cli, "out=/proc/runs")
    assert code == 1
    assert found["writing runs"]["state"] == "problem"


def test_a_slow_disk_is_found(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "SLOW", 1e15)
    _, found = findings(cli)
    assert found["writing runs"]["state"] == "warning"
    assert "choose another disk with out=FOLDER, or raise checkpoint.every_minutes" in found["writing runs"]["advice"]


def test_few_open_files_and_little_memory_are_found(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "open_file_limit", lambda: 50)
    monkeypatch.setattr(storage, "available_memory", lambda: 10**9)
    code, found = findings(cli)
    assert (code, found["open files"]["advice"]) == (1, "Raise it: ulimit -n 4096")
    assert found["memory"]["state"] == "warning"


def test_releases_that_are_too_old_or_bad_are_problems(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    real = software.version
    monkeypatch.setattr(software, "version", lambda name: {"lightning": "2.6.3", "timm": "0.4.12"}.get(name) or real(name))
    code, found = findings(cli)
    assert code == 1
    assert "swin-lab needs timm>=1.0.31, found 0.4.12" in found["requirements"]["found"]
    assert "GHSA-w37p-236h-pfx3" in found["bad releases"]["found"]


def test_links_through_the_cpus_are_a_warning() -> None:
    assert devices.links(TOPOLOGY).state == "warning"
    assert devices.links(TOPOLOGY).found == "NV18, SYS"
    assert devices.links(TOPOLOGY.replace("SYS", "NV18")).state == "ok"


def test_gpus_that_torch_does_not_see_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_nvidia_smi", lambda *arguments: GPUS if "--query" in arguments[0] else TOPOLOGY)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    found = {one.check: one for one in devices.check_gpus()}
    assert found["GPUs"].state == "problem"
    assert found["driver"].found == "550.54"
    assert found["GPU memory in use"].found == "GPU 0: 5000 MiB"
    assert found["GPU links"].state == "warning"


def test_more_threads_than_cores_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cores", lambda: 2)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for threads, workers, state in ((3, 0, "warning"), (2, 2, "warning"), (2, 0, "ok"), (1, 2, "ok")):
        monkeypatch.setattr("torch.get_num_threads", lambda threads=threads: threads)
        assert devices.check_threads(workers).state == state


def test_a_clock_that_is_wrong_is_found() -> None:
    assert storage.clock(now=100.0, installed=200.0, skew=0.0).state == "problem"
    assert storage.clock(now=300.0, installed=200.0, skew=60.0).state == "warning"
    assert storage.clock(now=300.0, installed=200.0, skew=0.1).state == "ok"


def test_the_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meminfo, limit, used = (tmp_path / name for name in ("meminfo", "max", "current"))
    meminfo.write_text("MemTotal:  2000 kB\nMemAvailable:  1000 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", meminfo)
    monkeypatch.setattr(memory, "CGROUPS", ((limit, used),))
    used.write_text("100000\n")
    for text, free in (("max\n", 1_024_000), ("300000\n", 200_000)):
        limit.write_text(text)
        assert memory.available_memory() == free


def test_the_needs_follow_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {
        "trainer": {"devices": 2},
        "max_device_batch": "auto",
        "global_batch": 64,
        "model": {"img_size": [64, 32]},
        "img_size": None,
        "data": {"num_workers": 1},
    }
    batch = 32 * 3 * 64 * 32 + 3 * preflight.PAGE
    assert needs_without_data(config).shared_bytes == 2 * 6 * batch
    assert [number_of_devices(value) for value in (3, "3", [0, 1])] == [3, 3, 2]


@pytest.mark.parametrize(
    "override",
    ["data.num_workers=abc", "data.num_workers=-3", "checkpoint.every_n_updates=0", "global_batch=3 trainer.num_nodes=2"],
)
def test_values_that_a_training_refuses_are_refused(cli: Command, override: str) -> None:
    outcome = cli("doctor", *override.split())
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert override.split("=")[0] in outcome.err


def test_help_and_wrong_overrides_do_not_wait_for_torch() -> None:
    import subprocess

    code = (
        "import sys; sys.modules['torch'] = None; from swin_lab.commands.app import main; sys.exit(main(['doctor', '--help']))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
