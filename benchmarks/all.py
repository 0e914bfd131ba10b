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
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SAMPLE = ROOT.parent / "shared" / "data" / "imagenet-sample" / "val"
"""Images that are used if no others are given and these exist."""
LINKS = Path("datasets") / "benchmark"
"""Folder in the checkout, ignored by git, with links to images that are not divided into two sets."""
LIMIT_S = 9 * 60
"""Time limit of a part on a GPU, in seconds; on a CPU, which others may use as well, there is none."""
OK, FAILED, WRONG_INPUT = 0, 1, 2
PYTEST_FOUND_NONE = 5

TINY, BASE, TINY_2 = "swin_tiny_patch4_window7_224", "swin_base_patch4_window7_224", "swinv2_tiny_window8_256"
MICRO = "swin_micro_patch4_window4_32"
OFFICIAL_AUGMENTATION = [
    f"model={TINY}",
    "augment=imagenet",
    "data.mean=[0.485,0.456,0.406]",
    "data.std=[0.229,0.224,0.225]",
]


@dataclass(frozen=True)
class Part:
    """Describes a part: its name and command."""

    name: str
    command: list[str]
    writes_files: bool = True
    """Whether it writes its own files; if not, its output is kept as PART.txt."""


def main() -> int:
    sys.path.insert(0, str(ROOT))  # A checkout need not be installed.
    arguments = parse_arguments()
    on_gpu = arguments.kind == "gpu" and not arguments.cpu
    if on_gpu and not has_gpu():
        print("error: torch sees no CUDA device; test the parts on a CPU with ARGS=--cpu, or run make bench", file=sys.stderr)
        return WRONG_INPUT
    with tempfile.TemporaryDirectory() as temporary:
        data = data_overrides(arguments.data)
        parts = cpu_parts(data) if arguments.kind == "cpu" else gpu_parts(data)
        folder = arguments.out or HERE / "results" / machine_name(on_gpu)
        if arguments.cpu:
            parts = self_test_parts()
            folder = arguments.out or Path(temporary) / "results"
        names = [part.name for part in parts]
        if arguments.part is not None and arguments.part not in names:
            print(f"error: PART={arguments.part} is unknown; choose one of {', '.join(names)}", file=sys.stderr)
            return WRONG_INPUT
        chosen = [part for part in parts if arguments.part in (None, part.name)]
        codes = [run_part(part, folder, arguments.again, LIMIT_S if on_gpu else None) for part in chosen]
    print(f"results: {folder}" if arguments.out or not arguments.cpu else "the results of this self-test were removed")
    return OK if not any(codes) else FAILED


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run the benchmarks in parts and keep their results.")
    parser.add_argument("kind", choices=["cpu", "gpu"])
    parser.add_argument("--part", help="run only this part")
    parser.add_argument("--data", type=Path, help="class folders of images, or a folder with train/ and val/ of these")
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
    """Returns what is measured on one core: networks against other libraries, and the data pipeline."""
    timing = ["--device", "cpu", "--batch", "4", "--rounds", "3", "--seconds", "0"]
    return [
        Part("model", bench("model", TINY, TINY_2, *timing)),
        Part("data", bench("data", *data, *OFFICIAL_AUGMENTATION, "global_batch=32", "--rounds", "5", "--images", "64")),
    ]


def gpu_parts(data: list[str]) -> list[Part]:
    """Returns what is measured on a GPU. Training and inference are parts of their own because compilation takes minutes."""
    gpu = ["--device", "cuda", "--precision", "bf16"]
    compiled = [*gpu, "--compile", "both", "--peers", "timm,timm-fused"]
    parts = [tests_part()]
    for label, model, batch in (("tiny", TINY, "256"), ("base", BASE, "128"), ("v2_tiny", TINY_2, "128")):
        for work in ("training", "inference"):
            parts.append(Part(f"{label}_{work}", bench("model", model, *compiled, "--work", work, "--batch", batch)))
    parts.append(Part("peers", bench("model", TINY, BASE, TINY_2, *gpu, "--batch", "128", "--rounds", "3")))
    parts.append(Part("stages", bench("model", TINY, BASE, *gpu, "--peers", "none", "--stages", "--batch", "128")))
    training = [*data, *OFFICIAL_AUGMENTATION, "mixing=imagenet", "global_batch=128"]
    parts += operator_part([])
    parts.append(Part("data", bench("data", *training)))
    parts.append(Part("run", bench("run", *training, "--updates", "100", "--warmup", "20")))
    return parts


def self_test_parts() -> list[Part]:
    """Returns the parts of a GPU with tiny networks, one round, and compilation once."""
    quick = [MICRO, "--device", "cpu", "--precision", "bf16", "--batch", "2", "--rounds", "1", "--seconds", "0"]
    data = ["data=synthetic", "trainer.accelerator=cpu", "--rounds", "1"]
    parts = [tests_part()]
    for label in ("tiny", "base", "v2_tiny"):
        for work in ("training", "inference"):
            compile_ = "both" if (label, work) == ("tiny", "inference") else "none"
            options = ["--work", work, "--compile", compile_, "--peers", "timm,timm-fused"]
            parts.append(Part(f"{label}_{work}", bench("model", *quick, *options)))
    parts.append(Part("peers", bench("model", *quick)))
    parts.append(Part("stages", bench("model", *quick, "--peers", "none", "--stages")))
    parts += operator_part(["--cpu"])
    parts.append(Part("data", bench("data", *data, "--images", "8", "--batches", "2", "--workers", "0,1")))
    parts.append(Part("run", bench("run", *data, "--updates", "2", "--warmup", "1")))
    return parts


def bench(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "swin_lab", "bench", *arguments]


def tests_part() -> Part:
    return Part("tests", [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests"], writes_files=False)


def operator_part(options: list[str]) -> list[Part]:
    """Returns the benchmark of the attention operator, if there is one."""
    script = HERE / "window_attention.py"
    command = [sys.executable, str(script), *options]
    return [Part("window_attention", command, writes_files=False)] if script.is_file() else []


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
    command = [*part.command, "--out", target, "--name", part.name, "--overwrite"] if part.writes_files else part.command
    started_at = time.perf_counter()
    code, output = run(command, None if part.writes_files else folder / f"{part.name}.txt", limit_s)
    seconds = round(time.perf_counter() - started_at, 1)
    done[part.name] = {"code": code, "seconds": seconds, "source": source, "command": part.command[1:]}
    record.write_text(json.dumps(done, indent=1) + "\n")
    print(f"== {part.name}: {'done' if code == OK else output or f'failed with {code}'} in {seconds:.0f} s", flush=True)
    return code


def run(command: list[str], log: Path | None, limit_s: float | None) -> tuple[int, str]:
    """Runs a command from the root of the checkout; returns its exit code and, if it was stopped, why."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": "110", "PYTHONPATH": path}
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


def data_overrides(folder: Path | None) -> list[str]:
    """Returns overrides of train.py for images in class folders, or for random images if there are none."""
    chosen = (folder or SAMPLE).resolve()
    if not chosen.is_dir():
        return ["data=synthetic", "data.img_size=256"]
    if not (chosen / "train").is_dir():  # The same images for both sets: only speed is measured.
        (ROOT / LINKS).mkdir(parents=True, exist_ok=True)
        for split in ("train", "val"):
            (ROOT / LINKS / split).unlink(missing_ok=True)
            (ROOT / LINKS / split).symlink_to(chosen, target_is_directory=True)
        return ["data=folder", f"data.root={LINKS}"]
    return ["data=folder", f"data.root={chosen}"]


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
