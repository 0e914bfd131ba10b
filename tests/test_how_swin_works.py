"""docs/how-swin-works.md: its code and commands are run in order, and print what the page shows."""

import re
import shlex
from pathlib import Path

from conftest import ROOT, Command, only_run

PAGE = ROOT / "docs" / "how-swin-works.md"
BLOCK = re.compile(r"^```(python|)\n(.*?)^```(?:\n\n```text\n(.*?)^```)?", re.M | re.S)
SHORT = ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=2", "schedule.warmup_epochs=0"]
"""What makes the training short; the page shows nothing that depends on the weights but figures."""


def test_its_code_and_commands_print_what_it_shows(command: Command, cli: Command, capsys, tmp_path):
    names: dict[str, object] = {}
    for language, code, shown in BLOCK.findall(PAGE.read_text()):
        if language == "python":
            capsys.readouterr()
            exec(code, names)
            printed = capsys.readouterr().out
        else:
            printed = "".join(run(line, command, cli, tmp_path) for line in code.splitlines())
        if shown:
            assert without_spaces_at_ends(printed) == without_spaces_at_ends(shown), code
    assert {"token", "attention", "swin_large.png"} <= {path.name for path in tmp_path.iterdir()}


def run(line: str, command: Command, cli: Command, folder: Path) -> str:
    """Runs a line of the page; returns what it has printed."""
    program, *words = shlex.split(line)
    assert program == "swin-lab"
    if words[0] == "train":
        outcome = command(*words, "trainer.accelerator=cpu", *SHORT)
    else:
        outcome = cli(*(word.replace("runs/digits/TIME", str(only_run(folder))) if "TIME" in word else word for word in words))
    assert outcome.code == 0, outcome.err
    return outcome.out


def without_spaces_at_ends(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


def test_its_figures_are_small_and_those_that_it_names():
    named = set(re.findall(r"\]\((how-swin-works/[^)]+)\)", PAGE.read_text()))
    files = list((PAGE.parent / "how-swin-works").iterdir())
    assert {f"how-swin-works/{file.name}" for file in files} == named
    assert max(file.stat().st_size for file in files) < 150_000


def test_its_links_exist():
    targets = re.findall(r"\]\(([^)#]+)\)", BLOCK.sub("", PAGE.read_text()))
    assert targets
    assert all(target.startswith("https://") or (PAGE.parent / target).exists() for target in targets)
