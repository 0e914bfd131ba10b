"""Makes a data set with several labels per image of CIFAR-10: what the object in an image is like, instead of what it is.

    python benchmarks/multilabel_cifar.py FOLDER OUT [--train-images 50000] [--test-images 10000]

FOLDER has the parquet files of CIFAR-10. It writes the images to OUT/train and OUT/test, and the files OUT/train.csv and
OUT/test.csv with a column of 0 and 1 for each attribute. Train on it with

    python train.py task=multilabel data=multilabel data.root=OUT data.targets=train.csv data.val_targets=test.csv
"""

import argparse
import csv
from pathlib import Path

import pyarrow.parquet as pq

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ATTRIBUTES = {
    "vehicle": {"airplane", "automobile", "ship", "truck"},
    "animal": {"bird", "cat", "deer", "dog", "frog", "horse"},
    "flies": {"airplane", "bird"},
    "has wheels": {"airplane", "automobile", "truck"},
    "mammal": {"cat", "deer", "dog", "horse"},
    "four legs": {"cat", "deer", "dog", "frog", "horse"},
    "drives on roads": {"automobile", "truck"},
}


def write(source: Path, out: Path, split: str, count: int) -> int:
    """Writes the first images of a split and their attributes; returns how many."""
    (out / split).mkdir(parents=True, exist_ok=True)
    written = 0
    with (out / f"{split}.csv").open("w", newline="") as opened:
        rows = csv.writer(opened, lineterminator="\n")
        rows.writerow(["file_name", *ATTRIBUTES])
        for file in sorted(source.glob(f"{split}-*.parquet")):
            for image, label in zip(*pq.read_table(file, columns=["img", "label"]).to_pydict().values(), strict=True):
                if written == count:
                    return written
                name = f"{split}/{written:05d}.jpg"
                (out / name).write_bytes(image["bytes"])
                rows.writerow([name, *(int(CLASSES[label] in classes) for classes in ATTRIBUTES.values())])
                written += 1
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--train-images", type=int, default=50_000)
    parser.add_argument("--test-images", type=int, default=10_000)
    options = parser.parse_args()
    for split, count in (("train", options.train_images), ("test", options.test_images)):
        print(f"{options.out / split}: {write(options.folder, options.out, split, count):,} images")


if __name__ == "__main__":
    main()
