"""Compares a student that has a teacher with the same student without one, on the digits of the worked example.

    python benchmarks/distillation_digits.py [OVERRIDE...] [--seeds 3] [--embed-dim 32] [--out runs/distillation_digits]

The teacher is the default run of train.py; the student has half its width. Without a teacher, with the published hard
distillation, and with a soft one of share 0.5, it is trained with the same recipe, once per seed. It prints top-1 and loss of
the validation images for the best checkpoint of each run, and writes them to OUT/result.json. A run whose results exist is not
repeated. Overrides are those of train.py for all runs. All runs are computed by one thread.
"""

import argparse
import json
import os
from pathlib import Path
from statistics import mean, stdev
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

from swin_lab.run.entry import main as run_command

COMMON = ["trainer.accelerator=cpu", "data.num_workers=0"]
DISTILLATION = ["task=distillation"]
STUDENTS = {
    "without a teacher": [],
    "hard, share 0.5": [*DISTILLATION, "task.kind=hard"],
    "soft, share 0.5": [*DISTILLATION, "task.kind=soft", "task.share=0.5"],
}


def run_once(out: Path, overrides: list[str]) -> Path:
    """Runs train.py, unless it has results; returns the run directory."""
    if not (found := finished(out)):
        code = run_command("train", [*COMMON, *overrides, f"out={out}", "name=run"])
        if code != 0:
            raise SystemExit(code)
        found = finished(out)
    return found[0]


def finished(out: Path) -> list[Path]:
    """Returns the directories of finished runs under a folder."""
    return [file.parent for file in out.rglob("results.json") if json.loads(file.read_text())["run.state"] == "finished"]


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Runs everything and returns top-1 and loss of each student, one value per seed."""
    out = options.out.absolute()
    teacher = run_once(out / "teacher", options.overrides)
    results: dict[str, Any] = {"teacher": metrics_of(teacher)}
    for seed in range(options.seeds):
        for name, more in STUDENTS.items():
            words = [*options.overrides, *more, f"model.embed_dim={options.embed_dim}", f"seed={seed}"]
            words += [f"task.teacher={teacher}"] if more else []
            run = run_once(out / f"{name.replace(',', '').replace(' ', '_')}_{seed}", words)
            for metric, value in metrics_of(run).items():
                results.setdefault(name, {}).setdefault(metric, []).append(value)
    return results


def metrics_of(run: Path) -> dict[str, float]:
    record = json.loads((run / "results.json").read_text())
    return {name: record[f"metrics.final.{name}"] for name in ("acc1", "loss")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--embed-dim", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("runs/distillation_digits"))
    options = parser.parse_args()
    results = compare(options)
    print(f"teacher: top-1 {results['teacher']['acc1']:.2%}, loss {results['teacher']['loss']:.4f}")
    for name in STUDENTS:
        acc1, loss = results[name]["acc1"], results[name]["loss"]
        spread = f" ± {stdev(acc1):.2%}" if len(acc1) > 1 else ""
        print(f"{name}: top-1 {mean(acc1):.2%}{spread} ({', '.join(f'{value:.2%}' for value in acc1)}), loss {mean(loss):.4f}")
    (options.out / "result.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
