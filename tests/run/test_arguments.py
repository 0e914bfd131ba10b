"""Hydra's flags on a command line."""

from pathlib import Path

import pytest

from swin_lab.errors import UserError
from swin_lab.run.arguments import check_flags, config_dirs, flags_and_values, overrides_in


@pytest.mark.parametrize("given", [["--config-dir", "/a"], ["--config-dir=/a"], ["-cd", "/a"], ["-cd=/a"]], ids=" ".join)
def test_a_configuration_directory_is_found_in_every_notation(given: list[str]) -> None:
    arguments = ["-m", "seed=1", *given, "name=x"]
    assert config_dirs(arguments) == [Path("/a")]
    assert flags_and_values(arguments) == given
    assert overrides_in(arguments) == ["seed=1", "name=x"]


def test_a_relative_configuration_directory_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config_dirs(["--config-dir", "conf"]) == [tmp_path / "conf"]


def test_unknown_flags_are_refused_with_the_nearest_one() -> None:
    check_flags(["--multirun", "--cfg", "job", "--conf", "-m", "seed=1"])
    with pytest.raises(UserError, match="unknown option --mutlirun; did you mean --multirun"):
        check_flags(["--mutlirun"])
