"""Runs the benchmarks in parts, each a process of its own with a time limit, and keeps their results.

    python benchmarks/all.py cpu            # make bench: what one CPU core needs, about seven minutes
    python benchmarks/all.py gpu            # make bench-gpu: what one GPU needs, each part under nine minutes
    python benchmarks/all.py gpu --cpu      # the same parts with tiny networks on a CPU, to test the parts themselves

The results of a part are PART.json, PART.md and PART.png in benchmarks/results/MACHINE, and a line in parts.json there. A part
that has succeeded there with the same source files is skipped, so that an interrupted run continues where it stopped.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SHARED = ROOT.parent / "shared" / "data"
SAMPLE, CIFAR = SHARED / "imagenet-sample" / "val", SHARED / "cifar10"
"""Images that are used if no others are given and these exist: files, and 32x32 pixels in parquet files."""
LINKS, GENERATED = Path("datasets") / "benchmark", Path("datasets") / "benchmark-images"
"""Folders in the checkout, ignored by git: links to images that are not divided into two sets, and images made of noise."""
LEAST = 12_800
"""Images of an epoch at least; fewer are linked several times. At the end of an epoch workers have nothing to do, and a short
one would keep few of them busy: 100 batches of 128."""
IMAGE_FILES = (".jpeg", ".jpg", ".png", ".webp")
LIMIT_S = 9 * 60
"""Time limit of a part on a GPU, in seconds; on a CPU, which others may use as well, there is none."""
OK, FAILED, WRONG_INPUT = 0, 1, 2
PYTEST_FOUND_NONE = 5

TINY, BASE, TINY_2 = "swin_tiny_patch4_window7_224", "swin_base_patch4_window7_224", "swinv2_tiny_window8_256"
MICRO, MINI = "swin_micro_patch4_window4_32", "swin_mini_patch2_window4_32"
STATISTICS = ["data.mean=[0.485,0.456,0.406]", "data.std=[0.229,0.224,0.225]"]
OFFICIAL_AUGMENTATION = [f"model={TINY}", "augment=imagenet", *STATISTICS]
GRAPHS = "compile_mode=reduce-overhead"
NOT_ON_A_CPU = {
    "run_dali": "DALI decodes and augments on the host; its GPU decoder did not run",
    "dali_augmentation": "DALI decodes and augments on the host; its GPU decoder did not run",
    "cifar_device": "the device is the CPU, so that no image was copied to a GPU",
    "cuda_graphs": f"a CPU has no CUDA graphs: this is compile=true without {GRAPHS}",
    "checkpointing": "peak memory is that of a GPU only",
    "bf16_true": "peak memory is that of a GPU only",
}
"""Part -> what its self-test on a CPU leaves out."""


@dataclass(frozen=True)
class Part:
    """Describes a part: its name and command."""

    name: str
    command: list[str]
    writes_files: bool = True
    """Whether it writes its own files; if not, its output is kept as PART.txt."""
    not_exercised: str | None = None
    """What a self-test on a CPU leaves out; it is added to the result."""
    numbers: str | None = None
    """Option that names the file of the numbers of a part that does not write its own."""
    cold: bool = False
    """Whether torch.compile starts without the cache of earlier runs, because the time of compilation is measured."""


@dataclass(frozen=True)
class Runs:
    """Contains the overrides of train.py that the parts of training runs have in common."""

    photos: list[str]
    """Training on image files with the published augmentation."""
    small: list[str]
    """Training on small images with augment=cifar."""
    resident: list[str]
    """Training on images that stay on the device, where the network alone decides the speed."""
    dropping: list[str]
    """The same with a high rate of drop path."""
    options: list[str]
    """Options of `swin-lab bench run`."""


def main() -> int:
    sys.path.insert(0, str(ROOT))  # A checkout need not be installed.
    arguments = parse_arguments()
    on_gpu = arguments.kind == "gpu" and not arguments.cpu
    if on_gpu and not has_gpu():
        print("error: torch sees no CUDA device; test the parts on a CPU with ARGS=--cpu, or run make bench", file=sys.stderr)
        return WRONG_INPUT
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.cpu:
            parts = self_test_parts(Path(temporary))
            folder = arguments.out or Path(temporary) / "results"
        else:
            photos = find_photos(arguments.data)
            data = as_sets(photos, ROOT / LINKS, LEAST)
            parts = gpu_parts(photos, data) if on_gpu else cpu_parts(data)
            folder = arguments.out or HERE / "results" / machine_name(on_gpu)
        names = [part.name for part in parts]
        if arguments.part is not None and arguments.part not in names:
            print(f"error: PART={arguments.part} is unknown; choose one of {', '.join(names)}", file=sys.stderr)
            return WRONG_INPUT
        chosen = [part for part in parts if arguments.part in (None, part.name)]
        codes = {part.name: run_part(part, folder, arguments.again, LIMIT_S if on_gpu else None) for part in chosen}
    print(f"results: {folder}" if arguments.out or not arguments.cpu else "the results of this self-test were removed")
    failed = [name for name, code in codes.items() if code != OK]
    if failed:
        print(f"failed: {', '.join(failed)}; the same command repeats only these", file=sys.stderr)
    return FAILED if failed else OK


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run the benchmarks in parts and keep their results.")
    parser.add_argument("kind", choices=["cpu", "gpu"])
    parser.add_argument("--part", help="run only this part")
    parser.add_argument("--data", type=Path, help="a folder of images, or one with train/ and val/ of class folders")
    parser.add_argument("--out", type=Path, help="folder of the results (default: benchmarks/results/MACHINE)")
    parser.add_argument("--again", action="store_true", help="run parts again whose results exist for these source files")
    parser.add_argument("--cpu", action="store_true", help="with gpu: run its parts with tiny networks on a CPU")
    arguments = parser.parse_args()
    if arguments.data is not None and not arguments.data.is_dir():
        parser.error(f"--data={arguments.data} is not a folder")
    if arguments.cpu and arguments.kind != "gpu":
        parser.error("--cpu is for gpu; the parts of cpu always run on the CPU")
    return arguments


def cpu_parts(data: list[str]) -> list[Part]:
    """Returns what is measured on a CPU: networks against other libraries and the data pipeline on one core, and a run."""
    timing = ["--device", "cpu", "--batch", "4", "--rounds", "3", "--seconds", "0"]
    return [
        Part("model", bench("model", TINY, TINY_2, *timing)),
        Part("data", bench("data", *data, *OFFICIAL_AUGMENTATION, "global_batch=32", "--rounds", "5", "--images", "64")),
        Part("run", bench("run", "trainer.accelerator=cpu", "--updates", "50", "--rounds", "3")),
    ]


def gpu_parts(photos: Path, data: list[str]) -> list[Part]:
    """Returns what is measured on a GPU. Training and inference are parts of their own because compilation takes minutes.

    Args:
        photos: folder of the image files.
        data: overrides of train.py for them.
    """
    gpu = ["--device", "cuda", "--precision", "bf16"]
    compiled = [*gpu, "--compile", "both", "--peers", "timm,timm-fused"]
    parts = [tests_part()]
    for label, model, batch in (("tiny", TINY, "256"), ("base", BASE, "128"), ("v2_tiny", TINY_2, "128")):
        for work in ("training", "inference"):
            parts.append(Part(f"{label}_{work}", bench("model", model, *compiled, "--work", work, "--batch", batch)))
    parts.append(Part("peers", bench("model", TINY, BASE, TINY_2, *gpu, "--batch", "128", "--rounds", "3")))
    parts.append(Part("stages", bench("model", TINY, BASE, *gpu, "--peers", "none", "--stages", "--batch", "128")))
    training = ["mixing=imagenet", "global_batch=128"]
    images = ["data=synthetic", "data.img_size=224", "data.train_images=1280", "data.num_classes=1000"]
    resident = [*images, "data.cache=device", "augment=none", *STATISTICS, *training]
    runs = Runs(
        photos=[*data, *OFFICIAL_AUGMENTATION, *training],
        small=[*small_images(), f"model={MINI}", "augment=cifar", *STATISTICS, "mixing=imagenet", "global_batch=512"],
        resident=[*resident, f"model={TINY}"],
        dropping=[*resident, f"model={BASE}", "model.drop_path_rate=0.5"],
        options=["--updates", "100", "--warmup", "20"],
    )
    parts += operator_part([])
    parts.append(Part("data", bench("data", *runs.photos)))
    return [*parts, *run_parts(runs), dali_part(photos, ["--device", "cuda"])]


def self_test_parts(folder: Path) -> list[Part]:
    """Returns the parts of a GPU with tiny networks, one round, and little compilation; `folder` is for their images."""
    quick = [MICRO, "--device", "cpu", "--precision", "bf16", "--batch", "2", "--rounds", "1", "--seconds", "0"]
    photos = generate_photos(folder / "photos", 12, side=60)
    data = [*as_sets(photos, folder / "sets", 24), "trainer.accelerator=cpu", "global_batch=4"]
    resident = ["data=synthetic", "data.cache=device", "augment=none", "trainer.accelerator=cpu", "global_batch=4"]
    runs = Runs(
        photos=[*data, "augment=imagenet", "data.num_workers=1"],
        small=["data=synthetic", "augment=cifar", "trainer.accelerator=cpu", "global_batch=4"],
        resident=[*resident, "model.depths=[1]", "model.num_heads=[1]"],
        dropping=[*resident, "model.drop_path_rate=0.5"],
        options=["--updates", "2", "--warmup", "1", "--rounds", "1"],
    )
    parts = [tests_part()]
    for label in ("tiny", "base", "v2_tiny"):
        for work in ("training", "inference"):
            compile_ = "both" if (label, work) == ("tiny", "inference") else "none"
            options = ["--work", work, "--compile", compile_, "--peers", "timm,timm-fused"]
            parts.append(Part(f"{label}_{work}", bench("model", *quick, *options)))
    parts.append(Part("peers", bench("model", *quick)))
    parts.append(Part("stages", bench("model", *quick, "--peers", "none", "--stages")))
    parts += operator_part(["--cpu"])
    small = ["--rounds", "1", "--images", "8", "--batches", "2", "--workers", "0,1"]
    parts.append(Part("data", bench("data", *runs.photos, *small)))
    dali = dali_part(photos, ["--device", "cpu", "--draws", "100", "--images", "8", "--rounds", "1"])
    return [_on_a_cpu(part) for part in (*parts, *run_parts(runs), dali)]


def run_parts(runs: Runs) -> list[Part]:
    """Returns a part for every switch of a training run, and those without it that they are compared with."""
    overrides = {
        "run": runs.photos,
        "run_nvimgcodec": [*runs.photos, "data.decoder=nvimgcodec"],
        "run_dali": [*runs.photos, "data.loader=dali"],
        "cifar": runs.small,
        "cifar_device": [*runs.small, "data.cache=device"],
        "eager": runs.resident,
        "compile": [*runs.resident, "compile=true"],
        "compile_blocks": [*runs.resident, "compile=blocks"],
        "cuda_graphs": [*runs.resident, "compile=true", GRAPHS],
        "drop_path_mask": [*runs.dropping, "model.drop_path_mode=mask"],
        "drop_path_skip": [*runs.dropping, "model.drop_path_mode=skip"],
        "checkpointing": [*runs.resident, "model.activation_checkpointing=true"],
        "bf16_true": [*runs.resident, "precision=bf16-true"],
    }
    compiled = ("compile", "compile_blocks", "cuda_graphs")
    return [Part(name, bench("run", *of_part, *runs.options), cold=name in compiled) for name, of_part in overrides.items()]


def bench(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "swin_lab", "bench", *arguments]


def tests_part() -> Part:
    return Part("tests", [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests"], writes_files=False)


def operator_part(options: list[str]) -> list[Part]:
    """Returns the benchmark of the attention operator, if there is one."""
    script = HERE / "window_attention.py"
    command = [sys.executable, str(script), *options]
    return [Part("window_attention", command, writes_files=False, numbers="--output")] if script.is_file() else []


def dali_part(photos: Path, options: list[str]) -> Part:
    """Returns the comparison of DALI's augmentation with timm's: random numbers, pixels and speed."""
    command = [sys.executable, str(HERE / "dali_augmentation.py"), str(photos), *options]
    return Part("dali_augmentation", command, writes_files=False)


def _on_a_cpu(part: Part) -> Part:
    """Returns a part without what a CPU does not have, and a note of that for its result."""
    command = [word for word in part.command if word != GRAPHS]
    return replace(part, command=command, not_exercised=NOT_ON_A_CPU.get(part.name), cold=False)


def run_part(part: Part, folder: Path, again: bool, limit_s: float | None) -> int:
    """Runs a part, unless it has succeeded with these source files; returns its exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "parts.json"
    done = json.loads(record.read_text()) if record.is_file() else {}
    source = source_digest()
    if not again and done.get(part.name, {}).get("source") == source and done[part.name]["code"] == OK:
        print(f"== {part.name}: exists for these source files; --again repeats it", flush=True)
        return OK
    print(f"== {part.name}", flush=True)
    target = os.path.relpath(folder, ROOT) if folder.is_relative_to(ROOT) else str(folder.absolute())
    command = list(part.command)
    if part.writes_files:
        command += ["--out", target, "--name", part.name, "--overwrite"]
    elif part.numbers is not None:
        command += [part.numbers, f"{target}/{part.name}.json"]
    log = None if part.writes_files else folder / f"{part.name}.txt"
    started_at = time.perf_counter()
    with tempfile.TemporaryDirectory() as cache:
        code, output = run(command, log, limit_s, {"TORCHINDUCTOR_CACHE_DIR": cache} if part.cold else {})
    seconds = round(time.perf_counter() - started_at, 1)
    done[part.name] = {"code": code, "seconds": seconds, "source": source, "command": part.command[1:]}
    if code == OK and part.not_exercised is not None:
        done[part.name]["not_exercised"] = part.not_exercised
        print(f"not exercised: {part.not_exercised}", flush=True)
        with (folder / f"{part.name}.{'md' if part.writes_files else 'txt'}").open("a") as file:
            file.write(f"\nNot exercised: {part.not_exercised}\n")
    record.write_text(json.dumps(done, indent=1) + "\n")
    print(f"== {part.name}: {'done' if code == OK else output or f'failed with {code}'} in {seconds:.0f} s", flush=True)
    return code


def run(command: list[str], log: Path | None, limit_s: float | None, variables: dict[str, str]) -> tuple[int, str]:
    """Runs a command from the root of the checkout; returns its exit code and, if it was stopped, why."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": "110", "PYTHONPATH": path} | variables
    try:
        if log is None:
            code = subprocess.run(command, cwd=ROOT, env=environment, timeout=limit_s, check=False).returncode
        else:
            with log.open("w") as file:
                done = subprocess.run(
                    command, cwd=ROOT, env=environment, timeout=limit_s, check=False, stdout=file, stderr=file
                )
            print(log.read_text(), end="")
            code = OK if done.returncode == PYTEST_FOUND_NONE else done.returncode
    except subprocess.TimeoutExpired:
        return FAILED, f"stopped after {limit_s} s"
    return code, ""


def find_photos(given: Path | None) -> Path:
    """Returns the folder of the image files: the given one, else the sample, else images that are made of noise."""
    if given is not None or SAMPLE.is_dir():
        return (given or SAMPLE).resolve()
    return generate_photos(ROOT / GENERATED, 64, side=400)


def generate_photos(folder: Path, count: int, side: int) -> Path:
    """Writes JPEG files, unless they exist: coarse and fine noise, of about `side` pixels and different sizes."""
    from PIL import Image

    for number in range(count):
        file = folder / "noise" / f"{number:03d}.jpg"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            size = (side + number % 7 * side // 20, side - number % 5 * side // 20)
            coarse = Image.merge("RGB", [Image.effect_noise((size[0] // 16, size[1] // 16), 100) for _ in range(3)])
            fine = Image.merge("RGB", [Image.effect_noise(size, 40)] * 3)
            Image.blend(coarse.resize(size, Image.Resampling.BICUBIC), fine, 0.2).save(file, quality=90)
    return folder


def as_sets(photos: Path, links: Path, least: int) -> list[str]:
    """Returns overrides of train.py for a folder of image files.

    Args:
        photos: a folder with train/ and val/, or any folder with images, which both sets then consist of: only speed is
            measured. Each link to it is a class.
        links: folder in which these links are made.
        least: images of the training set at least.
    """
    if (photos / "train").is_dir():
        return ["data=folder", f"data.root={photos}"]
    found = sum(1 for _ in islice((file for file in photos.rglob("*") if file.suffix.lower() in IMAGE_FILES), least))
    for split in ("train", "val"):
        target = links / split
        if target.is_symlink():
            target.unlink()
        target.mkdir(parents=True, exist_ok=True)
        for old in filter(Path.is_symlink, target.iterdir()):
            old.unlink()
        for number in range(max(2, -(-least // max(1, found)))):
            (target / f"{number:03d}").symlink_to(photos, target_is_directory=True)
    return ["data=folder", f"data.root={os.path.relpath(links, ROOT) if links.is_relative_to(ROOT) else links}"]


def small_images() -> list[str]:
    """Returns overrides of train.py for CIFAR-10 in parquet files, or for random images if there are none."""
    return ["data=parquet", f"data.root={CIFAR}"] if CIFAR.is_dir() else ["data=synthetic", "data.train_images=20000"]


def source_digest() -> str:
    """Returns a digest of the files that decide a result, which also works where there is no git."""
    found = [path for folder in ("swin_lab", "conf", "benchmarks") for path in (ROOT / folder).rglob("*")]
    files = sorted(path for path in found if path.suffix in (".py", ".yaml"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def machine_name(on_gpu: bool) -> str:
    """Returns the name of the GPU, or of the processor with its cores, as a folder name."""
    from swin_lab.bench.machine import device_name
    from swin_lab.data import cores

    name = device_name("cuda") if on_gpu else f"{device_name('cpu')} {cores()} cores"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


if __name__ == "__main__":
    sys.exit(main())
