"""`swin-lab bench data` and `bench run` on small data: steps, bottleneck, what is left behind, refused arguments."""

import json
import re
from pathlib import Path

import pytest
from conftest import TINY, Command
from PIL import Image

RUN = [override for override in TINY if "max_epochs" not in override]


def folder_of_images(root: Path) -> Path:
    for split in ("train", "val"):
        for name in ("ant", "bee"):
            (root / split / name).mkdir(parents=True)
            for i in range(4):
                Image.effect_noise((40, 50), 64).convert("RGB").save(root / split / name / f"{i}.jpg")
    return root


def test_a_pipeline_is_measured_by_step_and_compared_with_timm(cli: Command, tmp_path: Path) -> None:
    data = ["data=folder", f"data.root={folder_of_images(tmp_path / 'images')}", "augment=imagenet", "global_batch=4"]
    options = ["--rounds", "2", "--images", "4", "--batches", "1", "--workers", "0", "--out", tmp_path / "results"]
    outcome = cli("bench", "data", *data, *options)
    assert outcome.code == 0, outcome.err
    core = json.loads((tmp_path / "results" / "data.json").read_text())["core"]
    names = [step["name"] for step in core["steps"]]
    assert names[:3] == ["read", "decode", "RandomResizedCropAndInterpolation"]
    assert {"RandAugment", "normalise and erase", "collate"} <= set(names)
    assert sum(step["share"] for step in core["steps"]) == pytest.approx(1)
    assert core["ours_over_timm"] > 0
    assert f"bottleneck: {core['bottleneck']}" in outcome.out
    assert core["bottleneck"] == max(core["steps"], key=lambda step: step["seconds"])["name"]


def test_the_steps_of_dali_are_not_measured(cli: Command, tmp_path: Path) -> None:
    pytest.importorskip("nvidia.dali")
    data = ["data=folder", f"data.root={folder_of_images(tmp_path / 'images')}", "augment=imagenet", "global_batch=4"]
    outcome = cli("bench", "data", *data, "data.loader=dali", "--out", tmp_path / "results")
    assert outcome.code == 2
    assert "bench data measures the steps of data.loader=torch" in outcome.err
    assert not (tmp_path / "results").exists()


def test_generated_images_have_no_bytes_that_timm_could_decode(cli: Command) -> None:
    outcome = cli("bench", "data", "data=synthetic", "--rounds", "1", "--images", "4", "--batches", "1", "--workers", "0")
    assert outcome.code == 0, outcome.err
    assert "timm" not in outcome.out
    assert "one core, read to tensor" in outcome.out


def test_a_run_is_measured_with_its_loader_and_on_a_resident_batch_and_leaves_nothing(cli: Command, tmp_path: Path) -> None:
    outcome = cli("bench", "run", *RUN, "--updates", "3", "--warmup", "2", "--rounds", "1")
    assert outcome.code == 0, outcome.err
    assert re.search(r"first update, with compilation if there is any: \d+\.\d s", outcome.out)
    assert "peak memory" not in outcome.out  # It is measured on a GPU only.
    assert "real loader" in outcome.out
    assert "resident batch" in outcome.out
    assert "bottleneck: " in outcome.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "data=synthetic", "data.cache=device", "augment=cifar"], "Choose data.cache=memory"),
        (["data", "data=syntetic"], "data=syntetic is unknown; did you mean synthetic"),
        (["data", "data=folder"], "data.root must be given"),
        (["data", "data=synthetic", "--workers", "1,x"], "'x' is not a number of processes"),
        (["data", "data=synthetic", "--workers", "9999"], "--workers=9999 is too many"),
        (["data", "data=synthetic", "--images", "0"], "--images=0 must be an integer of at least 1"),
        (["data", "data=synthetic", "global_batch=900", "--workers", "0", "--rounds", "1"], "lower global_batch"),
        (["run", "model.depths=[1]"], "num_heads"),
        (["run", "--updates", "0"], "--updates=0 must be an integer of at least 1"),
        (["run", "trainer.devices=2", "trainer.accelerator=cpu", "trainer=ddp"], "a benchmark uses one device"),
        (["run", "--out", "/dev/null/x"], "/dev/null/x"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_an_argument_without_sense_is_refused(cli: Command, tmp_path: Path, arguments: list[str], message: str) -> None:
    outcome = cli("bench", *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.strip().splitlines()) <= 3
    assert not list(tmp_path.iterdir())
