"""The command line of train.py and eval.py: Hydra's flags, in any position, and overrides."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from swin_lab.errors import UserError, did_you_mean

FLAGS: Mapping[str, str] = {
    "--help": "-h",
    "--cfg": "-c",
    "--resolve": "",
    "--package": "-p",
    "--run": "-r",
    "--multirun": "-m",
    "--info": "-i",
    "--config-dir": "-cd",
    "--config-name": "-cn",
    "--config-path": "-cp",
    "--shell-completion": "-sc",
    "--hydra-help": "",
    "--version": "",
}
"""Long flag of Hydra -> its short form."""
VALUES: Mapping[str, Sequence[str]] = {
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    "--package": (),
    "--config-dir": (),
    "--config-name": (),
    "--config-path": (),
}
"""Flag with a value -> its values; none if it takes any."""
OF_EVERY_RUN = ("--config-dir", "--config-name", "--config-path")
"""Flags that every run of a sweep needs, too."""


@dataclass(frozen=True)
class CommandLine:
    """Contains the flags and overrides of a command line."""

    flags: tuple[tuple[str, str | None], ...] = ()
    """Long name and value of each flag; the value is None if it has none."""
    overrides: tuple[str, ...] = ()

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> "CommandLine":
        """Reads arguments in which flags and overrides have any order.

        Raises:
            UserError: a flag is unknown, has no value or an invalid one, or has a value that it does not take.
        """
        flags: list[tuple[str, str | None]] = []
        overrides: list[str] = []
        rest = list(arguments)
        while rest:
            word = rest.pop(0)
            if not word.startswith("-"):
                overrides.append(word)
                continue
            name, equals, value = word.partition("=")
            flag = _long_name(name)
            if not equals and flag in VALUES and rest and (flag != "--info" or rest[0] in VALUES[flag]):
                equals, value = "=", rest.pop(0)
            if flag == "--info" and not equals:
                equals, value = "=", "all"
            _check_value(flag, value if equals else None)
            flags.append((flag, value if equals else None))
        names = [name for name, _ in flags]
        if "--package" in names and "--cfg" not in names:
            raise UserError("--package is a part of the configuration that --cfg prints; add --cfg job")
        return cls(tuple(flags), tuple(overrides))

    def has(self, flag: str) -> bool:
        """Returns whether a flag is given."""
        return any(name == flag for name, _ in self.flags)

    def flag_words(self, names: Iterable[str] = FLAGS) -> list[str]:
        """Returns these flags, as far as they are given, as arguments of a command line."""
        given = [(name, value) for name, value in self.flags if name in set(names)]
        return [word for name, value in given for word in ((name,) if value is None else (name, value))]

    @property
    def config_dirs(self) -> list[Path]:
        """Returns the absolute directories of `--config-dir`."""
        return [Path(value).absolute() for name, value in self.flags if name == "--config-dir" and value]


def with_stored_overrides(line: CommandLine) -> CommandLine:
    """Returns a command line that repeats the overrides of the run which `resume=RUN-DIR` names; what is typed replaces them.

    Raises:
        UserError: the directory is none of a run.
    """
    typed = {_key(override): override for override in line.overrides}
    resume = typed.get("resume", "").partition("=")[2].strip("'\"")
    if resume in ("", "auto", "null"):
        return line
    run_dir = Path(resume).expanduser()
    if run_dir.is_file() and run_dir.parent.name == "checkpoints":
        run_dir = run_dir.parent.parent
    file = run_dir / "overrides.txt"
    if not file.is_file():
        found = "contains no overrides.txt, so it is no run directory" if run_dir.exists() else "does not exist"
        raise UserError(f"resume={resume}: {run_dir} {found}; give a run directory, or auto for the newest unfinished run")
    stored = [override for override in file.read_text().splitlines() if _key(override) not in {*typed, "resume", "resume_with"}]
    return replace(line, overrides=(*stored, *line.overrides))


def _key(override: str) -> str:
    """Returns the key that an override names."""
    return override.lstrip("+~").partition("=")[0].partition("@")[0]


def _long_name(name: str) -> str:
    """Returns the flag that a name is, abbreviates or begins."""
    if name in FLAGS:
        return name
    found = [flag for flag, short in FLAGS.items() if name == short]
    if not found and name.startswith("--") and len(name) > 2:
        found = [flag for flag in FLAGS if flag.startswith(name)]
    if len(found) > 1:
        raise UserError(f"{name} is ambiguous; choose one of {', '.join(found)}")
    if not found:
        key = f"; keys of the configuration have no dashes: {name[2:]}=VALUE" if len(name) > 2 and name.startswith("--") else ""
        raise UserError(f"unknown option {name}{did_you_mean(name, FLAGS)}{key}")
    return found[0]


def _check_value(flag: str, value: str | None) -> None:
    if flag not in VALUES and value is not None:
        raise UserError(f"{flag} takes no value, but {value!r} is given")
    if flag in VALUES and flag != "--info" and not value:
        choices = f"; choose one of {', '.join(VALUES[flag])}" if VALUES[flag] else ""
        raise UserError(f"{flag} needs a value{choices}")
    if value is not None and VALUES.get(flag) and value not in VALUES[flag]:
        raise UserError(f"{flag}={value} is unknown; choose one of {', '.join(VALUES[flag])}")
