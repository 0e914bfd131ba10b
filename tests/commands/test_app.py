"""`swin-lab` itself: help, typing errors, exit codes, completion, and how fast it answers."""

import os
import subprocess
import sys

import pytest
from conftest import Command
from rich.console import Console


def test_help_lists_every_command_in_panels(cli: Command) -> None:
    outcome = cli("--help")
    assert outcome.code == 0
    for part in ("Train and evaluate", "Models and weights", "Recipes", "Data sets", "--install-completion"):
        assert part in outcome.out
    for name in ("train", "eval", "init", "models", "inspect", "convert", "export", "lr", "recipe", "data"):
        assert f"│ {name} " in outcome.out


def test_without_a_command_the_help_is_printed(cli: Command) -> None:
    assert cli().out == cli("--help").out


@pytest.mark.parametrize(
    "command",
    [
        ["models"],
        ["explain"],
        ["look"],
        ["inspect"],
        ["convert"],
        ["export"],
        ["lr"],
        ["recipe", "diff"],
        ["data", "check"],
        ["data", "pack"],
        ["init"],
    ],
    ids=" ".join,
)
def test_the_help_of_each_command_shows_an_example_of_it(cli: Command, command: list[str]) -> None:
    outcome = cli(*command, "--help")
    assert outcome.code == 0
    assert f"Example: swin-lab {' '.join(command)}" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["modles"], "no such command 'modles'; did you mean models?"),
        (["data", "pakc"], "no such command 'pakc'; did you mean pack?"),
        (["frobnicate"], "no such command 'frobnicate'\nSee swin-lab --help"),
        (["recipe"], "missing command\nSee swin-lab recipe --help"),
        (["inspect"], "missing argument 'IN'\nSee swin-lab inspect --help"),
        (["convert", "a", "b", "--layuot", "timm"], "no such option: --layuot; did you mean --layout?"),
        (["convert", "a", "b", "--layout", "tim"], "invalid value for '--layout': tim is unknown; did you mean timm?"),
        (["lr", "a.png", "--devices", "0"], "--devices=0 must be an integer of at least 1\nSee swin-lab lr --help"),
        (["train", "--multrun"], "unknown option --multrun; did you mean --multirun?"),
        (["train", "modle=x"], "unknown key modle; did you mean model?"),
        (["eval"], "checkpoint must be given"),
    ],
    ids=str,
)
def test_typing_errors_are_answered_in_two_lines(cli: Command, arguments: list[str], message: str) -> None:
    outcome = cli(*arguments)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {message}")
    assert len(outcome.err.splitlines()) <= 2


def test_ctrl_c_ends_without_a_traceback(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Console, "print", interrupt)
    outcome = cli("models")
    assert (outcome.code, outcome.err.strip()) == (130, "interrupted")


def test_a_bug_keeps_its_traceback(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Console, "print", lambda *_arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli("models")


def complete(*words: str) -> list[str]:
    """Returns the completions that bash offers for the last word."""
    program = "import sys; from swin_lab.commands.app import main; code = main(); print('torch' in sys.modules); sys.exit(code)"
    environment = {"_SWIN_LAB_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(["swin-lab", *words])}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=os.environ | environment | {"COMP_CWORD": str(len(words))},
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["mod"], ["models"]),
        (["models", "swinv2_base_window12_"], ["swinv2_base_window12_192"]),
        (["inspect", "x", "--name", "swin_s3_s"], ["swin_s3_small_224"]),
        (["convert", "a", "b", "--layout", "t"], ["timm", "torchvision"]),
        (["train", "debug=l"], ["debug=limit"]),
    ],
    ids=str,
)
def test_the_shell_completes(words: list[str], expected: list[str]) -> None:
    assert complete(*words) == expected


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["convert", "--help"], ["embed", "--help"], ["explain", "--help"], ["modles"], ["train", "--help"]],
    ids=" ".join,
)
def test_it_answers_before_torch_is_imported(arguments: list[str]) -> None:
    program = "import atexit, sys; from swin_lab.commands.app import main\n"
    program += f"atexit.register(lambda: print('torch' in sys.modules)); main({arguments})"  # Hydra's --help exits.
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False", done.stderr


def test_the_module_is_the_program() -> None:
    done = subprocess.run([sys.executable, "-m", "swin_lab", "modles"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "error: no such command 'modles'; did you mean models?\n")
