"""`swin-lab embed`: what the file contains, and that nothing but the command changes a byte of it."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import ROOT, Command, Outcome
from small_classifier import classifier, write_image, write_photos

import swin_lab
from swin_lab.inference import embed as embedding


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Contains tiny.safetensors, photos/, and vectors.parquet, which the command wrote in one go."""
    folder = tmp_path_factory.mktemp("embed")
    swin_lab.save_weights(classifier(), folder / "tiny.safetensors")
    write_photos(folder / "photos")
    return folder


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes parts of one chunk of four images, so that 30 images have eight."""
    monkeypatch.setattr(embedding, "IMAGES_PER_PART_ON_CPU", 4)


@pytest.fixture
def embed(cli: Command, folder: Path):
    """Runs the command on the CPU with the weights and photographs of `folder`."""

    def run(out: object, *arguments: object, paths=(folder / "photos",), weights=folder / "tiny.safetensors") -> Outcome:
        options = ["--batch", "4", "--workers", "0"]
        return cli("embed", weights, *paths, "-o", out, "--device", "cpu", *options, *arguments)

    return run


@pytest.fixture
def reference(embed) -> bytes:
    """The file that a single process writes at once."""
    outcome = embed("reference.parquet")
    assert outcome.code == 1, outcome.err  # One image cannot be read.
    return Path("reference.parquet").read_bytes()


def vectors(file: str) -> np.ndarray:
    """Returns the vectors of a file, (N, values)."""
    table = pq.read_table(file)
    return table["vector"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)


def test_a_row_has_path_label_and_the_vector_of_a_predictor(embed, folder, reference):
    table = pq.read_table("reference.parquet")
    files = [file for file in sorted((folder / "photos").rglob("*.png")) if file.name != "13.png"]
    assert table["path"].to_pylist() == list(map(str, files))
    assert table["label"].to_pylist() == [file.parent.name for file in files]
    assert str(table.schema.field("vector").type) == "fixed_size_list<element: float>[16]"
    expected = swin_lab.Predictor(folder / "tiny.safetensors", device="cpu").embed(files)
    assert vectors("reference.parquet") == pytest.approx(expected, abs=1e-5)


def test_the_metadata_say_how_the_vectors_were_made(embed, reference):
    plan = json.loads(pq.read_schema("reference.parquet").metadata[b"swin_lab"])
    assert plan | {"checkpoint": "", "inputs": ""} == {
        "version": swin_lab.__version__,
        "checkpoint": "",
        "preprocessing": classifier().preprocessing.as_dict(),
        "stage": None,
        "pool": "mean",
        "shape": [16],
        "dtype": "float32",
        "flip": False,
        "precision": "32-true",
        "device": "cpu",
        "batch": 4,
        "images": 30,
        "inputs": "",
    }
    assert len(plan["checkpoint"]) == len(plan["inputs"]) == 64


def test_the_hash_of_a_checkpoint_is_that_of_its_weights(folder, tmp_path):
    from swin_lab.inference.model import Settings, open_model

    network = classifier()
    again = swin_lab.save_weights(network, tmp_path / "other_layout.safetensors", layout="timm")
    with torch.no_grad():
        network.head.bias[0] += 1e-3
    sources = (folder / "tiny.safetensors", again, network)
    hashes = [open_model(source, Settings(device="cpu")).weights_hash() for source in sources]
    assert hashes[0] == hashes[1] != hashes[2]


def test_stage_pool_and_dtype_choose_the_vector(embed, folder):
    image = folder / "photos" / "ant" / "00.png"
    predictor = swin_lab.Predictor(folder / "tiny.safetensors", device="cpu")
    assert embed("map.parquet", "--stage", 0, "--pool", "map", "--dtype", "float16", paths=[image]).code == 0
    plan = json.loads(pq.read_schema("map.parquet").metadata[b"swin_lab"])
    assert plan["shape"] == [8, 8, 8]
    expected = predictor.embed(image, stage=0, pool="map")
    found = vectors("map.parquet")
    assert found.dtype == np.float16
    assert found.reshape(8, 8, 8) == pytest.approx(expected, rel=2e-3, abs=2e-3)
    assert embed("mean.parquet", "--stage", 0, paths=[image]).code == 0
    assert vectors("mean.parquet")[0] == pytest.approx(expected.mean((1, 2)), abs=1e-5)


def test_workers_and_threads_change_no_byte(embed, reference, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert embed("two.parquet", "--workers", 2).code == 1
    assert Path("two.parquet").read_bytes() == reference


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_processes_change_no_byte_and_the_last_one_writes_the_file(embed, reference, monkeypatch, order):
    monkeypatch.setenv("WORLD_SIZE", "3")
    for i, rank in enumerate(order):
        assert not Path("three.parquet").exists()
        monkeypatch.setenv("RANK", str(rank))
        outcome = embed("three.parquet")
        assert (outcome.code, "written" in outcome.out) == (0, i == 2), outcome.err
    assert Path("three.parquet").read_bytes() == reference
    assert sorted(file.name for file in Path().iterdir()) == ["reference.parquet", "three.parquet"]


def test_a_process_that_comes_after_the_end_finds_the_file_complete(embed, reference, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    outcome = embed("reference.parquet")
    assert (outcome.code, outcome.out.split()[0]) == (0, "complete")


def stopped_after(count: int, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Has the command fail after a number of parts, in a context that ends it."""
    write = embedding.PartFolder.write
    written = []

    def fail_later(self, number, table):
        if len(written) == count:
            raise KeyboardInterrupt
        written.append(number)
        write(self, number, table)

    monkeypatch.setattr(embedding.PartFolder, "write", fail_later)
    return monkeypatch


def test_a_command_that_was_stopped_continues(embed, reference, monkeypatch):
    with monkeypatch.context() as patch:
        stopped_after(3, patch)
        assert embed("again.parquet").code == 130
    assert len(list(Path("again.parquet.parts").glob("part-*"))) == 3
    with monkeypatch.context() as patch:
        stopped_after(5, patch)  # It computes the other five.
        assert embed("again.parquet").code == 1
    assert Path("again.parquet").read_bytes() == reference
    assert not Path("again.parquet.parts").exists()


def test_another_number_of_processes_continues(embed, reference, monkeypatch):
    with monkeypatch.context() as patch:
        stopped_after(3, patch)
        assert embed("again.parquet").code == 130
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        embed("again.parquet")
    assert Path("again.parquet").read_bytes() == reference


def test_what_a_killed_process_left_unfinished_is_ignored_and_removed(embed, reference, monkeypatch):
    with monkeypatch.context() as patch:
        stopped_after(1, patch)
        embed("again.parquet")
    Path("again.parquet.parts/.part-0000001.parquet.77.unfinished").write_bytes(b"PAR1 and half a page")
    assert embed("again.parquet").code == 1
    assert Path("again.parquet").read_bytes() == reference
    assert not Path("again.parquet.parts").exists()


def test_a_kill_between_the_file_and_the_removal_of_its_parts_is_no_error(embed, reference, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(embedding.PartFolder, "_remove", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        assert embed("again.parquet").code == 130
    outcome = embed("again.parquet")
    assert (outcome.code, outcome.out.split()[0]) == (1, "complete")
    assert Path("again.parquet").read_bytes() == reference
    assert not Path("again.parquet.parts").exists()


def test_the_same_command_again_finds_its_file_complete(embed, reference):
    outcome = embed("reference.parquet")
    assert (outcome.code, outcome.out.split()[0]) == (1, "complete")
    assert "29 images, 1 could not be read" in outcome.out
    assert Path("reference.parquet").read_bytes() == reference


CHANGES = {
    "stage": ["--stage", "0"],
    "pool": ["--pool", "map"],
    "dtype": ["--dtype", "float16"],
    "flip": ["--flip"],
    "batch": ["--batch", "5"],
    "precision": ["--precision", "bf16-mixed"],
}


@pytest.mark.parametrize("key", CHANGES)
def test_a_changed_option_is_refused_on_half_of_a_file_with_what_differs(embed, monkeypatch, key):
    with monkeypatch.context() as patch:
        stopped_after(2, patch)
        embed("half.parquet")
    before = sorted(Path("half.parquet.parts").iterdir())
    outcome = embed("half.parquet", *CHANGES[key])
    assert outcome.code == 2
    assert f"what differs is {key} (" in outcome.err
    assert sorted(Path("half.parquet.parts").iterdir()) == before


def test_other_images_or_weights_are_refused_on_half_of_a_file(embed, folder, tmp_path, monkeypatch):
    other = classifier()
    torch.nn.init.ones_(other.head.bias)
    weights = swin_lab.save_weights(other, tmp_path / "other.safetensors")
    with monkeypatch.context() as patch:
        stopped_after(2, patch)
        embed("half.parquet")
    assert "what differs is checkpoint" in embed("half.parquet", weights=weights).err
    assert "what differs is images (30 there, 10 here)" in embed("half.parquet", paths=[folder / "photos" / "ant"]).err
    classes = [folder / "photos" / name for name in ("ant", "bee", "cat")]
    assert "what differs is inputs" in embed("half.parquet", paths=classes).err


def test_overwrite_starts_over_and_replaces_a_file(embed, reference, monkeypatch):
    with monkeypatch.context() as patch:
        stopped_after(2, patch)
        embed("new.parquet", "--flip")
    Path("new.parquet").write_text("precious")
    assert embed("new.parquet").code == 2
    assert Path("new.parquet").read_text() == "precious"
    assert embed("new.parquet", "--overwrite").code == 1
    assert Path("new.parquet").read_bytes() == reference


def test_overwrite_computes_a_complete_file_again(embed, reference):
    outcome = embed("reference.parquet", "--overwrite")
    assert "written" in outcome.out
    assert Path("reference.parquet").read_bytes() == reference


def test_parts_are_joined_to_row_groups(embed, reference, monkeypatch):
    assert pq.read_metadata("reference.parquet").num_row_groups == 1
    monkeypatch.setattr("swin_lab.inference.parts.ROWS_PER_GROUP", 8)
    assert embed("groups.parquet").code == 1
    metadata = pq.read_metadata("groups.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [8, 7, 8, 6]
    assert pq.read_table("groups.parquet").equals(pq.read_table("reference.parquet"))


def test_a_set_without_readable_images_gives_an_empty_file(embed, tmp_path):
    (tmp_path / "empty.jpg").touch()
    outcome = embed("none.parquet", paths=["empty.jpg"])
    assert outcome.code == 1
    assert outcome.err.count("unreadable image empty.jpg") == 1
    assert len(pq.read_table("none.parquet")) == 0


def test_a_vector_that_float16_cannot_hold_is_refused(embed, tmp_path):
    network = classifier()
    torch.nn.init.constant_(network.norm.bias, 1e6)
    weights = swin_lab.save_weights(network, tmp_path / "large.safetensors")
    image = write_image(tmp_path / "a.png", 0)
    outcome = embed("half.parquet", "--dtype", "float16", paths=[image], weights=weights)
    assert outcome.code == 2
    assert "a.png contains values that are NaN or infinite in float16; --dtype float32 can hold it" in outcome.err
    assert embed("full.parquet", paths=[image], weights=weights).code == 0


def test_contradicting_ranks_are_refused(embed, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("2", "x"):
        monkeypatch.setenv("RANK", rank)
        outcome = embed("out.parquet")
        assert outcome.code == 2
        assert "RANK" in outcome.err


def test_a_plan_names_the_first_value_that_differs():
    from swin_lab.inference.parts import Plan

    values = {"version": "1", "checkpoint": "a", "preprocessing": {}, "stage": None, "pool": "mean", "shape": [1]}
    values |= {
        "dtype": "float32",
        "flip": False,
        "precision": "32-true",
        "device": "cpu",
        "batch": 1,
        "images": 2,
        "inputs": "b",
    }
    plan = Plan(**values)
    assert plan.difference(asdict(plan) | {"batch": 2}) == "batch (2 there, 1 here)"
    assert plan.difference(None) == "version (null there, '1' here)"


COMMAND = """
import sys
from swin_lab.inference import embed
embed.IMAGES_PER_PART_ON_CPU = 8
from swin_lab.commands.app import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_kills_at_any_moment_and_several_processes_change_no_byte(folder, tmp_path):
    """SIGKILL hits a process, and sometimes all of them, as soon as a new part is there."""
    for i in range(160):
        write_image(tmp_path / "many" / f"{i:03}.png", i)
    program = tmp_path / "program.py"
    program.write_text(COMMAND)
    options = ["embed", str(folder / "tiny.safetensors"), "many", "--device", "cpu", "--batch", "4", "--workers", "1"]

    def started(out: str, rank: int = 0, world_size: int = 1) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "RANK": str(rank), "WORLD_SIZE": str(world_size)}
        command = [sys.executable, str(program), *options, "-o", out]
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def parts() -> int:
        return len(list((tmp_path / "killed.parquet.parts").glob("part-*")))

    assert started("whole.parquet").wait() == 0
    for attempt in range(3):
        before, processes = parts(), [started("killed.parquet", rank, 2) for rank in range(2)]
        while parts() < before + 2 and processes[0].poll() is None:
            with suppress(subprocess.TimeoutExpired):
                processes[1].wait(0.01)
        processes[attempt % 2].kill()
        if attempt == 2:
            processes[1].kill()
        for process in processes:
            process.wait()
    last = [started("killed.parquet", rank, 2) for rank in range(2)]
    assert [process.wait() for process in last] == [0, 0]
    assert (tmp_path / "killed.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert not (tmp_path / "killed.parquet.parts").exists()
