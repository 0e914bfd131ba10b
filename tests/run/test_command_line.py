"""Hydra's flags and overrides on a command line, in any order."""

from pathlib import Path

import pytest

from swin_lab.errors import UserError
from swin_lab.run.command_line import CommandLine


@pytest.mark.parametrize("given", [["--config-dir", "/a"], ["--config-dir=/a"], ["-cd", "/a"], ["-cd=/a"]], ids=" ".join)
def test_a_configuration_directory_is_found_in_every_notation(given: list[str]) -> None:
    line = CommandLine.parse(["-m", "seed=1", *given, "name=x"])
    assert line.config_dirs == [Path("/a")]
    assert line.flag_words(["--config-dir"]) == ["--config-dir", "/a"]
    assert line.overrides == ("seed=1", "name=x")


def test_a_relative_configuration_directory_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert CommandLine.parse(["--config-dir", "conf"]).config_dirs == [tmp_path / "conf"]


def test_abbreviated_flags_are_completed() -> None:
    line = CommandLine.parse(["seed=1", "--multi", "--cfg", "job", "--info", "defaults-tree", "name=x", "--info"])
    assert line.flag_words() == ["--multirun", "--cfg", "job", "--info", "defaults-tree", "--info", "all"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mutlirun"], "unknown option --mutlirun; did you mean --multirun"),
        (["-x"], "unknown option -x"),
        (["-"], "unknown option -"),
        (["--"], "unknown option --"),
        (["--conf=x"], "--conf is ambiguous; choose one of --config-dir, --config-name, --config-path"),
        (["--cfg"], "--cfg needs a value; choose one of job, hydra, all"),
        (["--cfg", "jobs"], "--cfg=jobs is unknown; choose one of job, hydra, all"),
        (["--info=x"], "--info=x is unknown"),
        (["--multirun=3"], "--multirun takes no value, but '3' is given"),
        (["seed=1", "--config-dir"], "--config-dir needs a value"),
    ],
)
def test_invalid_flags_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        CommandLine.parse(arguments)


def test_flags_between_and_after_overrides_work(command) -> None:
    outcome = command("train", "seed=7", "--cfg", "job", "out=elsewhere", "--package", "_global_")
    assert (outcome.code, "seed: 7" in outcome.out, "out: elsewhere" in outcome.out) == (0, True, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--package", "x"], "--package is a part of the configuration that --cfg prints"),
        (["--experimental-rerun", "/etc/passwd"], "unknown option --experimental-rerun"),
        (["-m", "seed=range(3,0)"], "has no runs"),
        (["=3"], "=3 has no key"),
        (["runs"], "runs is not KEY=VALUE"),
        (["~weights"], "~weights: there is no such key, or it is null"),
        (["~model", "model.embed_dim=8"], "model.embed_dim is given, but ~model removes model"),
        (["logger.wandb.project=x"], "unknown key logger.wandb.project; logger=wandb has it"),
        (["name=" + "n" * 300], "name too long"),
    ],
)
def test_other_mistakes_of_a_command_line_are_explained(command, arguments: list[str], message: str) -> None:
    outcome = command("train", "data=synthetic", *arguments)
    assert (outcome.code, message in outcome.err) == (2, True), outcome.err
    assert outcome.err.startswith("error: ")
    assert len(outcome.err.splitlines()) <= 3


def test_a_run_directory_that_is_forgotten_is_explained_to_eval(command, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert command("eval", "run").err == "error: run is not KEY=VALUE; did you mean checkpoint=run?\n"


def test_a_process_number_that_is_none_is_refused(command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "abc")
    assert command("train").err == "error: the environment variable LOCAL_RANK=abc must be a non-negative integer; unset it\n"


@pytest.mark.slow
def test_modules_in_the_current_folder_are_not_imported_if_no_target_names_them(process, tmp_path: Path) -> None:
    for name in ("hydra_plugins/evil.py", "accelerate.py", "zstandard.py", "pandas.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"open('{name.replace('/', '_')}.imported', 'w')\n")
    small = ["data=synthetic", "trainer.accelerator=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=1"]
    assert process("train", *small, "model.embed_dim=8", "model.num_heads=[1,2]").code == 0
    assert not list(tmp_path.glob("*.imported"))
