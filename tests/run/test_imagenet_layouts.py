"""A thousand tiny classes as folders, zip files, parquet files and shards: one recipe, the same batches, the same weights."""

import json
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from zipfile import ZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import Command
from PIL import Image
from timm.data.imagenet_info import ImageNetInfo

from swin_lab.data import ImageData
from swin_lab.run import build
from swin_lab.run.compose import composed

IDS = list(ImageNetInfo("imagenet-1k").label_names())
SPLITS = ("train", "val")
REDUCED = [
    "experiment=swin_tiny_patch4_window7_224",
    "model.img_size=32",
    "model.embed_dim=8",
    "model.depths=[1,1]",
    "model.num_heads=[1,2]",
    "model.window_size=4",
    "global_batch=256",
    "max_device_batch=64",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "data.num_workers=0",
]
"""The recipe on a small network: 1,000 images in batches of 256 are 3 updates."""


@pytest.fixture(scope="module")
def images() -> dict[str, list[bytes]]:
    """One JPEG per class and split."""
    return {split: [jpeg(seed * 1000 + c) for c in range(1000)] for seed, split in enumerate(SPLITS)}


def jpeg(seed: int) -> bytes:
    buffer = BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def named(split: str, contents: list[bytes]) -> Iterator[tuple[int, str, bytes]]:
    """(class index, path, file)."""
    return ((c, f"{IDS[c]}/{IDS[c]}_{split}.JPEG", content) for c, content in enumerate(contents))


def plant_folder(root: Path, images: dict[str, list[bytes]]) -> None:
    for split, contents in images.items():
        for c, path, content in named(split, contents):
            (root / split / IDS[c]).mkdir(parents=True)
            (root / split / path).write_bytes(content)


def plant_zip(root: Path, images: dict[str, list[bytes]]) -> None:
    for split, contents in images.items():
        with ZipFile(root / f"{split}.zip", "w") as archive:
            for _, path, content in named(split, contents):
                archive.writestr(path, content)
        lines = (f"{path}\t{c}\n" for c, path, _ in named(split, contents))
        (root / f"{split}_map.txt").write_text("".join(lines))


def plant_parquet(root: Path, images: dict[str, list[bytes]]) -> None:
    for split, contents in images.items():
        file = "validation" if split == "val" else split
        table = pa.table(
            {
                "image": pa.array(
                    [{"bytes": content, "path": path} for _, path, content in named(split, contents)],
                    pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
                ),
                "label": pa.array(range(1000), pa.int64()),
            }
        )
        pq.write_table(table, root / f"{file}-00000-of-00001.parquet", row_group_size=100)


def plant_shards(root: Path, images: dict[str, list[bytes]]) -> None:
    for split, contents in images.items():
        for shard in range(4):
            with tarfile.open(root / f"imagenet-{split}-{shard:06d}.tar", "w") as archive:
                for c, _, content in list(named(split, contents))[shard * 250 : (shard + 1) * 250]:
                    for suffix, held in (("jpg", content), ("cls", str(c).encode())):
                        member = tarfile.TarInfo(f"{c:09d}.{suffix}")
                        member.size = len(held)
                        archive.addfile(member, BytesIO(held))


PLANT = {"folder": plant_folder, "zip": plant_zip, "parquet": plant_parquet, "shards": plant_shards}


@pytest.fixture(scope="module")
def roots(images: dict[str, list[bytes]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for layout, plant in PLANT.items():
        made[layout] = tmp_path_factory.mktemp(layout)
        plant(made[layout], images)
    return made


@pytest.mark.slow
def test_the_recipe_runs_end_to_end_and_every_layout_ends_with_the_same_weights(
    command: Command, tmp_path: Path, roots: dict[str, Path]
) -> None:
    weights, metrics = {}, {}
    for layout, root in roots.items():
        outcome = command("train", *REDUCED, "data=imagenet1k", f"data.root={root}", f"name={layout}")
        assert outcome.code == 0, outcome.err
        (run,) = (tmp_path / "runs" / layout).iterdir()
        result = json.loads((run / "results.json").read_text())
        assert (result["updates"], result["images"]) == (3, 1000)
        weights[layout] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        metrics[layout] = result["metrics"]
    for layout in roots:
        assert metrics[layout] == metrics["folder"]
        for key, tensor in weights["folder"].items():
            assert torch.equal(weights[layout][key], tensor), (layout, key)


@pytest.mark.parametrize("layout", PLANT)
def test_the_layout_is_found_and_its_classes_are_the_wordnet_ids(roots: dict[str, Path], layout: str) -> None:
    source = build.make_source(composed(["data=imagenet1k", f"data.root={roots[layout]}"])["data"])[0]
    assert (source.layout, source.class_names) == (layout, IDS)  # type: ignore[attr-defined]


def test_every_layout_gives_identical_batches_for_the_same_seed(roots: dict[str, Path]) -> None:
    batches = {layout: first_batches(root, seed=7) for layout, root in roots.items()}
    for layout in roots:
        assert all(map(torch.equal, batches[layout], batches["folder"])), layout


def test_another_seed_gives_other_batches(roots: dict[str, Path]) -> None:
    assert not torch.equal(first_batches(roots["zip"], seed=7)[0], first_batches(roots["zip"], seed=8)[0])


def test_packed_shards_train_as_well(command: Command, tmp_path: Path, roots: dict[str, Path]) -> None:
    from swin_lab.cli import main

    packed = tmp_path / "packed"
    assert main(["data", "pack", str(roots["zip"]), "--out", str(packed), "--shorter-side", "8", "--workers", "1"]) == 0
    source = build.make_source(composed(["data=shards", f"data.root={packed}"])["data"])[0]
    assert source.class_names == IDS
    assert np.asarray(source.train.labels).tolist() == list(range(1000))
    assert min(source.val.image(3).size) == 8


def first_batches(root: Path, seed: int) -> list[torch.Tensor]:
    """Images and labels of two augmented batches."""
    config = composed([*REDUCED, "data=imagenet1k", f"data.root={root}"])
    source, loading = build.make_source(config["data"])
    prepared = build.make_preprocessing(config["model"], loading, source, config["preset"])
    augment = build.make_augment(config["augment"], prepared.mean)
    data = ImageData(
        source,
        prepared.for_training(augment.image, augment.tensor),
        prepared.for_evaluation(),
        global_batch=64,
        device_batch=64,
        seed=seed,
        loading=loading,
    )
    data.trainer = SimpleNamespace(global_rank=0, world_size=1, num_devices=1, training=True)  # type: ignore[assignment]
    loader = iter(data.train_dataloader())
    return [part for _ in range(2) for part in data.on_before_batch_transfer(next(loader), 0)]
