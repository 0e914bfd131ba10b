"""The same few images in class folders, zip files with maps, lists and tar shards, and helpers that decode and compare sets."""

import json
import tarfile
from io import BytesIO
from zipfile import ZIP_STORED, ZipFile

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import PILToTensor

from swin_lab.data import Folder
from swin_lab.data.decoding import decode
from swin_lab.data.loading import TransformedImages, collate
from swin_lab.data.sampling import EvalSampler

CLASSES = ["ant", "bee", "cat"]
SPLITS = {"train": 3, "val": 2}
"""Images per class."""


def jpeg(number):
    """Returns the JPEG of random noise; each number gives another image."""
    buffer = BytesIO()
    noise = np.random.default_rng(number).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


def samples(split):
    """Returns (path, class index, file content) of each image."""
    first = 0 if split == "train" else 100
    return [
        (f"{name}/{split}_{name}_{i}.jpg", label, jpeg(first + label * 10 + i))
        for label, name in enumerate(CLASSES)
        for i in range(SPLITS[split])
    ]


def write_folders(root):
    """Writes train/CLASS/*.jpg and val/CLASS/*.jpg."""
    for split in SPLITS:
        for path, _, content in samples(split):
            file = root / split / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    return Folder(str(root))


def write_zips(root, method=ZIP_STORED):
    """Writes train.zip and val.zip, each with its map."""
    root.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        with ZipFile(root / f"{split}.zip", "w", method) as archive:
            for path, _, content in samples(split):
                archive.writestr(path, content)
        (root / f"{split}_map.txt").write_text("".join(f"{path}\t{label}\n" for path, label, _ in samples(split)))


def write_lists(root, as_json):
    """Writes train.lst and val.lst of the images under train/ and val/."""
    for split in SPLITS:
        entries = [[f"{split}/{path}", label] for path, label, _ in samples(split)]
        lines = "".join(f"{path} {label}\n" for path, label in entries)
        (root / f"{split}.lst").write_text(json.dumps(entries) if as_json else lines)


def write_tar(file, members):
    """Writes a tar of (name, content)."""
    with tarfile.open(file, "w") as archive:
        for name, content in members:
            head = tarfile.TarInfo(name)
            head.size = len(content)
            archive.addfile(head, BytesIO(content))


def write_shards(root, split, members, shards=1):
    """Writes `split`-00000.tar and so on, from (key, class index, image)."""
    root.mkdir(parents=True, exist_ok=True)
    for shard, part in enumerate(np.array_split(np.arange(len(members)), shards)):
        chosen = [members[i] for i in part]
        files = [pair for key, label, content in chosen for pair in ((f"{key}.cls", b"%d" % label), (f"{key}.jpg", content))]
        write_tar(root / f"{split}-{shard:05d}.tar", files)


def decoded(images, index):
    """Decodes one image of a set."""
    return decode(images.encoded(index))


def pixels(images):
    """Decodes all images of a set."""
    return [np.asarray(decoded(images, i)) for i in range(len(images.labels))]


def same(one, other):
    """Returns whether two sets have the same pixels and labels."""
    if list(one.labels) != list(other.labels):
        return False
    return all(np.array_equal(a, b) for a, b in zip(pixels(one), pixels(other), strict=True))


def loaded(images, workers):
    """Loads all images of a set with a DataLoader."""
    order = EvalSampler(len(images.labels), 0, 1)
    dataset = TransformedImages(images, PILToTensor(), 0)
    loader = DataLoader(dataset, batch_size=2, sampler=order, num_workers=workers, collate_fn=collate)
    batches = list(loader)
    assert [batch.unreadable for batch in batches] == [[]] * len(batches)
    return torch.cat([batch.images for batch in batches])
