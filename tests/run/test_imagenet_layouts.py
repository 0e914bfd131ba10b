"""A thousand classes in folders, zip files, parquet files and shards give the same batches and the same trained weights."""

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
from conftest import Command, final_metrics, recorded
from lightning.pytorch.plugins import Precision
from PIL import Image
from timm.data.imagenet_info import ImageNetInfo

from swin_lab.data import ImageData
from swin_lab.data.decoding import decode
from swin_lab.data.transforms import eval_transform, train_transform
from swin_lab.run.augmentation import build_augmentation
from swin_lab.run.components import build_data, build_preprocessing, build_task
from swin_lab.run.compose import composed
from swin_lab.run.model import build_model

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
"""The recipe with a small network: 1,000 images in batches of 256 give 3 updates."""


@pytest.fixture(scope="module")
def images() -> dict[str, list[bytes]]:
    """Returns one JPEG per class for each split."""
    return {split: [jpeg(seed * 1000 + c) for c in range(1000)] for seed, split in enumerate(SPLITS)}


def jpeg(seed: int) -> bytes:
    buffer = BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def named(split: str, contents: list[bytes]) -> Iterator[tuple[int, str, bytes]]:
    """Yields (class index, path, file)."""
    return ((c, f"{IDS[c]}/{IDS[c]}_{split}.JPEG", content) for c, content in enumerate(contents))


def write_folder(root: Path, images: dict[str, list[bytes]]) -> None:
    for split, contents in images.items():
        for c, path, content in named(split, contents):
            (root / split / IDS[c]).mkdir(parents=True)
            (root / split / path).write_bytes(content)


def write_zip(root: Path, images: dict[str, list[bytes]]) -> None:
    for split, contents in images.items():
        with ZipFile(root / f"{split}.zip", "w") as archive:
            for _, path, content in named(split, contents):
                archive.writestr(path, content)
        lines = (f"{path}\t{c}\n" for c, path, _ in named(split, contents))
        (root / f"{split}_map.txt").write_text("".join(lines))


def write_parquet(root: Path, images: dict[str, list[bytes]]) -> None:
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


def write_shards(root: Path, images: dict[str, list[bytes]]) -> None:
    for split, contents in images.items():
        for shard in range(4):
            with tarfile.open(root / f"imagenet-{split}-{shard:06d}.tar", "w") as archive:
                for c, _, content in list(named(split, contents))[shard * 250 : (shard + 1) * 250]:
                    for suffix, member_bytes in (("jpg", content), ("cls", str(c).encode())):
                        member = tarfile.TarInfo(f"{c:09d}.{suffix}")
                        member.size = len(member_bytes)
                        archive.addfile(member, BytesIO(member_bytes))


WRITERS = {"folder": write_folder, "zip": write_zip, "parquet": write_parquet, "shards": write_shards}


@pytest.fixture(scope="module")
def roots(images: dict[str, list[bytes]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for layout, write in WRITERS.items():
        folders[layout] = tmp_path_factory.mktemp(layout)
        write(folders[layout], images)
    return folders


@pytest.mark.slow
def test_the_recipe_runs_end_to_end_and_every_layout_ends_with_the_same_weights(
    command: Command, tmp_path: Path, roots: dict[str, Path]
) -> None:
    weights, metrics = {}, {}
    for layout, root in roots.items():
        outcome = command("train", *REDUCED, "data=imagenet1k", f"data.root={root}", f"name={layout}")
        assert outcome.code == 0, outcome.err
        (run,) = (tmp_path / "runs" / layout).iterdir()
        result = recorded(run)
        assert (result["run.updates"], result["run.images"]) == (3, 1000)
        weights[layout] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        metrics[layout] = final_metrics(result)
    for layout in roots:
        assert metrics[layout] == metrics["folder"]
        for key, tensor in weights["folder"].items():
            assert torch.equal(weights[layout][key], tensor), (layout, key)


@pytest.mark.parametrize("layout", WRITERS)
def test_the_layout_is_detected_and_its_classes_are_the_wordnet_ids(roots: dict[str, Path], layout: str) -> None:
    source = build_data(composed(["data=imagenet1k", f"data.root={roots[layout]}"])["data"]).source
    assert (source.layout, source.class_names) == (layout, IDS)  # type: ignore[attr-defined]


def test_every_layout_gives_identical_batches_for_the_same_seed(roots: dict[str, Path]) -> None:
    batches = {layout: first_batches(root, seed=7) for layout, root in roots.items()}
    for layout in roots:
        assert all(map(torch.equal, batches[layout], batches["folder"])), layout


def test_another_seed_gives_other_batches(roots: dict[str, Path]) -> None:
    assert not torch.equal(first_batches(roots["zip"], seed=7)[0], first_batches(roots["zip"], seed=8)[0])


def test_packed_shards_train_as_well(command: Command, tmp_path: Path, roots: dict[str, Path]) -> None:
    from swin_lab.commands.app import main

    packed = tmp_path / "packed"
    assert main(["data", "pack", str(roots["zip"]), "--out", str(packed), "--shorter-side", "8", "--workers", "1"]) == 0
    source = build_data(composed(["data=shards", f"data.root={packed}"])["data"]).source
    assert source.class_names == IDS
    assert np.asarray(source.train.labels).tolist() == list(range(1000))
    assert min(decode(source.val.encoded(3)).size) == 8


def first_batches(root: Path, seed: int) -> list[torch.Tensor]:
    """Returns images and labels of two augmented batches."""
    config = composed([*REDUCED, "data=imagenet1k", f"data.root={root}"])
    found = build_data(config["data"])
    model = build_model(config["model"], build_task(config["task"], found.description))
    prepared = build_preprocessing(model, found, found.loader, config["preset"])
    augment = build_augmentation(config["augment"], prepared)
    data = ImageData(
        found.source,
        train_transform(prepared, augment.image_transforms, augment.tensor_transforms),
        eval_transform(prepared),
        global_batch=64,
        device_batch=64,
        seed=seed,
        img_size=prepared.img_size,
        loading=found.loader,
    )
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        global_rank=0, world_size=1, num_devices=1, training=True, precision_plugin=Precision()
    )
    loader = iter(data.train_dataloader())
    batches = [data.on_before_batch_transfer(next(loader), 0) for _ in range(2)]
    return [part for batch in batches for part in data.on_after_batch_transfer(batch, 0)]
