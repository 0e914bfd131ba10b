"""Arguments and options of every `swin-lab` command with invalid values: exit code 2, a few lines, and nothing is written."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import typer
from conftest import Command
from PIL import Image
from synthetic_runs import write_run
from vector_files import clusters, write_vectors

from swin_lab import SwinConfig, SwinTransformer, save_weights
from swin_lab.commands.app import app

VALUES = ("abc", "true", "-1", "0", "1e30", "nan", "inf", "", "[3]", "null", "9" * 30, "folder", "text.txt")
OVERRIDES = (
    *(
        "seed=-1",
        "modle=3",
        "model=swin_tinny",
        "=",
        "seed",
        "seed==1",
        "model.depths=[2,0]",
        "optimizer.lr=fast",
        "~optimizer",
    ),
    *(
        "data=imagnet",
        "experiment=3",
        "trainer.max_epochs=nan",
        "global_batch=0",
        "data=_loading",
        "--cfg",
        "seed=1,2",
        "model=null",
    ),
)
FILES = ("nowhere.pth", "nowhere/weights.pth", "folder", "text.txt", "empty.pth", "", "a" * 5000, "/dev/null")

COMMANDS: Mapping[str, list[str]] = {
    "doctor": [],
    "init": ["new"],
    "compare": ["run"],
    "replay": ["nonfinite_1.pt"],
    "predict": ["tiny.safetensors", "image.png"],
    "embed": ["tiny.safetensors", "image.png", "--out", "out.parquet"],
    "search": ["vectors.parquet", "--row", "0"],
    "duplicates": ["vectors.parquet"],
    "knn": ["vectors.parquet", "-k", "1"],
    "probe": ["vectors.parquet", "vectors.parquet"],
    "linear-probe": ["tiny.safetensors", "image.png", "image.png", "--out", "probed.safetensors"],
    "map": ["vectors.parquet", "--out", "map.html"],
    "models": [],
    "explain": ["tiny.safetensors"],
    "look": ["tiny.safetensors", "image.png"],
    "inspect": ["tiny.safetensors"],
    "convert": ["tiny.safetensors", "out.safetensors"],
    "export": ["tiny.safetensors", "out.onnx"],
    "recipe diff": ["data=synthetic"],
    "lr": ["rates.png", "data=synthetic"],
    "bench model": ["swin_micro_patch4_window4_32"],
    "bench data": ["data=synthetic"],
    "bench run": ["data=synthetic"],
    "data check": ["data=synthetic"],
    "data pack": ["data=synthetic", "--out", "shards"],
    "data prepare-val": ["folder", "--labels", "text.txt"],
}
"""Command -> valid arguments."""

FOLDERS = "abc true -1 0 1e30 nan inf [3] null folder " + "9" * 30
"""Values that are names of new folders, and a folder that exists."""
VALID: Mapping[str, str] = {
    **dict.fromkeys(("bench model --out", "bench data --out", "bench run --out", "data pack --out", "look --out"), FOLDERS),
    "compare --out": "",
    "--config-dir": "folder -1",
    "--layout": "",
    "explain --out": "",
    "look --class": "0",
    "bench model --seconds": "0",
    "bench data --workers": "0",
    "predict --workers": "0",
    "embed --workers": "0",
    "embed --stage": "0",
    "search --row": "0",
    "--seed": "0",
    "map --thumbnails": "0",
}
"""Option, or option of a command -> values that are valid after all."""

WRONG_ARGUMENTS: Mapping[str, list[list[str]]] = {
    "doctor": [[override] for override in OVERRIDES],
    "init": [["full"], ["text.txt"], ["text.txt/new"], ["a" * 5000], []],
    "compare": [[name] for name in FILES]
    + [["run", "-o", name] for name in ("out.docx", "", "text.txt", "text.txt/x.html", "nowhere/x.html", "full", "exists.html")]
    + [["run", "--overwrite"], ["run", "nowhere"], ["[", "run"], []],
    "replay": [[name] for name in (*FILES, "tiny.safetensors", "OWNER/NAME")]
    + [["tiny.safetensors", option] for option in ("--precision=16", "--device=tpu", "--trust=yes")]
    + [[]],
    "predict": [[name, "image.png"] for name in (*FILES, "OWNER/NAME")]
    + [["tiny.safetensors", name] for name in ("nowhere.png", "", "a" * 5000, "folder", "*.tiff", "bad.zip")]
    + [["tiny.safetensors", "image.png", "-o", name] for name in ("out.xlsx", "full", "text.txt", "no/out.csv", "out")]
    + [["tiny.safetensors"], []],
    "embed": [[name, "image.png", "-o", "out.parquet"] for name in FILES]
    + [["tiny.safetensors", "image.png", "-o", name] for name in ("out.csv", "full", "text.txt", "no/out.parquet", "")]
    + [["tiny.safetensors", "image.png", "-o", "out.parquet", "--stage", "3"], ["tiny.safetensors", "image.png"], []],
    "search": [[name, "--row", "0"] for name in (*FILES, "image.png")]
    + [["vectors.parquet", "image.png", "--checkpoint", name] for name in FILES]
    + [["vectors.parquet", name, "--checkpoint", "tiny.safetensors"] for name in ("nowhere.png", "", "folder")]
    + [["vectors.parquet", "--row", "0", "-o", name] for name in ("out.jpg", "full", "text.txt", "no/out.png", "")]
    + [["vectors.parquet", "--row", "9"], ["vectors.parquet", "image.png"], ["vectors.parquet"], []],
    "duplicates": [[name] for name in (*FILES, "image.png")]
    + [["vectors.parquet", name] for name in FILES]
    + [["vectors.parquet", option, name] for option in ("-o", "--sheet") for name in ("out.docx", "full", "no/out.csv", "")]
    + [[]],
    "knn": [[name, "-k", "1"] for name in (*FILES, "image.png")]
    + [["vectors.parquet", name, "-k", "1"] for name in FILES]
    + [["vectors.parquet", "-k", "6"], []],
    "probe": [[name, "vectors.parquet"] for name in FILES]
    + [["vectors.parquet", name] for name in FILES]
    + [["vectors.parquet"], []],
    "linear-probe": [[name, "image.png", "image.png", "-o", "out.pth"] for name in FILES]
    + [["tiny.safetensors", name, "image.png", "-o", "out.pth"] for name in ("nowhere", "", "folder", "bad.zip", "image.png")]
    + [
        ["tiny.safetensors", "image.png", "image.png", "-o", name]
        for name in ("out.csv", "full", "tiny.safetensors", "no/x.pth")
    ]
    + [["tiny.safetensors", "image.png"], []],
    "map": [[name, "-o", "map.html"] for name in (*FILES, "image.png")]
    + [["vectors.parquet", "-o", name] for name in ("map.png", "full", "text.txt", "no/map.html", "")]
    + [["vectors.parquet"], []],
    "models": [["abc"], [""], ["swin_[tiny"], ["*", "*"]],
    "explain": [[name] for name in (*FILES, "swin_tny", "OWNER/NAME")]
    + [["tiny.safetensors", "--out", name] for name in ("out.docx", "text.txt/x.png", "nowhere/x.png", "full")]
    + [["tiny.safetensors", "--img-size", *size] for size in (("0", "32"), ("32", "-1"), ("32", "99999"), ("a", "b"))]
    + [["tiny.safetensors", "--image", name] for name in FILES]
    + [[]],
    "look": [[name, "image.png"] for name in (*FILES, "swin_micro_patch4_window4_32")]
    + [["tiny.safetensors", name] for name in FILES]
    + [["tiny.safetensors", "image.png", "--out", name] for name in ("full", "text.txt", "text.txt/new", "a" * 5000)]
    + [["tiny.safetensors", "image.png", "--pixel", *at] for at in (("32", "0"), ("0", "-1"), ("a", "b"))]
    + [["tiny.safetensors"], []],
    "inspect": [[name] for name in FILES] + [[]],
    "convert": [[name, "out.safetensors"] for name in FILES]
    + [["tiny.safetensors", name] for name in ("tiny.safetensors", "out.docx", "", "text.txt", "text.txt/x.pth", "full", "out")]
    + [["tiny.safetensors"], []],
    "export": [[name, "out.onnx"] for name in FILES]
    + [["tiny.safetensors", name] for name in ("out.docx", "", "text.txt", "text.txt/x.onnx", "full", "out")]
    + [["tiny.safetensors", "out.onnx", "--img-size", size] for size in ("0x32", "32x", "32x32x32", "99999x32", "-32x32")],
    "recipe diff": [[override] for override in OVERRIDES],
    "lr": [["rates.png", override] for override in OVERRIDES] + [["text.txt"], ["rates.docx"], [""], ["text.txt/x.png"], []],
    "bench model": [["swin_tny"], ["*"], [""], ["swin_micro_patch4_window4_32", "--peers", "official=text.txt"], []],
    "bench data": [[override] for override in OVERRIDES],
    "bench run": [[override] for override in OVERRIDES],
    "data check": [[override] for override in OVERRIDES] + [["nowhere"], ["text.txt"], [""], []],
    "data pack": [
        ["nowhere", "--out", "shards"],
        ["data=synthetic", "--out", "text.txt"],
        [],
    ],
    "data prepare-val": [["nowhere", "--labels", "text.txt"], ["text.txt", "--labels", "text.txt"], ["folder"], []],
}
"""Command -> arguments that must be refused."""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a tiny weight file, a run, text files, an empty file, an empty folder and a full one."""
    config = SwinConfig(img_size=32, embed_dim=8, depths=(1,), num_heads=(1,), window_size=4, num_classes=2)
    save_weights(SwinTransformer(config), tmp_path / "tiny.safetensors")
    Image.new("RGB", (32, 32)).save(tmp_path / "image.png")
    for name in ("folder", "full"):
        (tmp_path / name).mkdir()
    texts = {
        "text.txt": "some text\n",
        "empty.pth": "",
        "full/file.txt": "precious\n",
        "bad.zip": "PK",
        "exists.html": "precious\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    write_run(tmp_path / "run")
    write_vectors(tmp_path / "vectors.parquet", *clusters(6))
    return tmp_path


def options(command: str) -> list[typer.core.TyperOption]:
    """Returns the options of a command, without --help."""
    found = typer.main.get_command(app)
    for part in command.split():
        found = found.commands[part]
    return [p for p in found.params if isinstance(p, typer.core.TyperOption) and p.name != "help"]


def cases(command: str) -> Iterator[list[str]]:
    """Yields the command lines of a command that must be refused."""
    valid = COMMANDS[command]
    yield from WRONG_ARGUMENTS[command]
    yield [*valid, "--no-such-option"]
    for option in options(command):
        name = option.opts[0]
        yield [*valid, f"{name}x"]
        if option.is_flag:
            yield from ([*valid, f"{name}={value}"] for value in ("abc", "no", "1"))
            continue
        yield [*valid, name]
        without = [word for i, word in enumerate(valid) if name not in (word, valid[i - 1])]
        accepted = VALID.get(f"{command} {name}", VALID.get(name, ""))
        yield from ([*without, name, value] for value in VALUES if value not in accepted.split())


def test_every_command_is_listed() -> None:
    commands = typer.main.get_command(app).commands
    names = {
        f"{name} {inner}" if inner else name for name, group in commands.items() for inner in getattr(group, "commands", [""])
    }
    assert names - {"train", "eval"} == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_invalid_values_are_refused(cli: Command, files: Path, command: str) -> None:
    before = {path: path.read_bytes() for path in files.rglob("*") if path.is_file()}
    wrong = []
    for arguments in cases(command):
        outcome = cli(*command.split(), *arguments)
        lines = outcome.err.strip().splitlines()
        if outcome.code != 2 or not 1 <= len(lines) <= 3 or not lines[0].startswith("error: "):
            wrong.append(f"{' '.join(arguments)[:200]}: exit code {outcome.code}: {outcome.printed[-500:]}")
    assert wrong == []
    assert {path: path.read_bytes() for path in files.rglob("*") if path.is_file()} == before


def test_there_are_at_least_200_cases() -> None:
    assert sum(1 for command in COMMANDS for _ in cases(command)) >= 200
