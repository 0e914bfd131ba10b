"""The text of `--help`: examples, groups with their choices, and every key with its value and its comment in conf/."""

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from swin_lab.paths import CONF
from swin_lab.run.choices import choices, files_of, groups
from swin_lab.run.compose import compose_with_choices

SUMMARIES = {"train": "Train a Swin Transformer.", "eval": "Evaluate a checkpoint."}
EXAMPLES = {
    "train": (
        ("", "the worked example: handwritten digits on a laptop"),
        (" group=choice key=value ...", "anything below is a choice or a key"),
        (" -m optimizer.lr=1e-4,3e-4,1e-3", "one run for each value"),
        (" model=swin_tiny_patch4_window7_224 --help", "the keys of other choices"),
        (" --cfg job", "print the configuration and stop"),
    ),
    "eval": (
        (" checkpoint=RUN-DIR", "on the data it was trained with"),
        (" checkpoint=WEIGHTS.pth data=folder data.root=/images", "weights of any origin"),
        (" data=folder --help", "the keys of a data set"),
    ),
}
"""Job -> arguments and what they do."""
WIDTH, COMMENT_COLUMN = 120, 36


def help_text(job: str, command: str, overrides: Sequence[str], config_dirs: Sequence[Path]) -> str:
    """Returns the text of `--help`.

    Args:
        job: "train" or "eval".
        command: how the job is started, such as `python train.py`.
        overrides: further arguments; the keys of the choices among them are shown.
        config_dirs: directories with further configuration files.

    Raises:
        UserError: the overrides do not compose.
    """
    config, chosen = compose_with_choices(job, overrides, config_dirs)
    width = max(len(arguments) for arguments, _ in EXAMPLES[job])
    shown = [f"  {command}{arguments:<{width}}   {text}" for arguments, text in EXAMPLES[job]]
    used = [group for group in groups(config_dirs) if group in chosen]
    listed = [_wrapped(f"  {group}: ", ", ".join(choices(group, config_dirs))) for group in used]
    keys = list(_lines(config, comments_of(job, chosen, config_dirs), "", 1))
    parts = [SUMMARIES[job], "", *shown, "", "Groups and their choices", "", *listed, "", "Keys and their values", "", *keys]
    return "\n".join(parts)


def comments_of(job: str, chosen: Mapping[str, Any], config_dirs: Sequence[Path]) -> dict[str, str]:
    """Returns the comments beside the keys of a configuration in conf/: full name of the key -> comment.

    Args:
        job: "train" or "eval".
        chosen: group -> choice.
        config_dirs: directories with further configuration files.
    """
    comments = _comments([CONF / f"{job}.yaml"], "")
    for group in groups(config_dirs):
        if isinstance(choice := chosen.get(group), str):
            comments |= _comments(files_of(group, choice, config_dirs), f"{group}.")
    return comments


def _wrapped(start: str, text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=start, subsequent_indent=" " * 6, break_on_hyphens=False)


def _lines(config: Mapping[str, Any], comments: Mapping[str, str], prefix: str, depth: int) -> Iterator[str]:
    for key, value in config.items():
        nested = isinstance(value, dict) and value
        flow = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False).removesuffix("...\n").strip()
        line = f"{'  ' * depth}{key}:" + ("" if nested else f" {flow}")
        comment = comments.get(f"{prefix}{key}")
        yield f"{line:<{COMMENT_COLUMN}} # {comment}" if comment else line
        if nested:
            yield from _lines(value, comments, f"{prefix}{key}.", depth + 1)


def _comments(files: Sequence[Path], prefix: str) -> dict[str, str]:
    """Returns the comments beside the keys of YAML files: full name of the key -> comment."""
    found: dict[str, str] = {}
    for file in files:
        parents: list[tuple[int, str]] = []
        for indent, key, comment in re.findall(r"(?m)^( *)(\w+):[^#\n]*(?:# (.*))?$", file.read_text()):
            parents = [(depth, name) for depth, name in parents if depth < len(indent)]
            parents.append((len(indent), key))
            if comment:
                found[prefix + ".".join(name for _, name in parents)] = comment
    return found
