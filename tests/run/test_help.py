"""The text of --help."""

import pytest
from conftest import Command


@pytest.mark.parametrize("job", ["train", "eval"])
def test_base_files_are_no_choices(command: Command, job: str) -> None:
    printed = command(job, "--help").out
    assert "digits" in printed
    assert not [word for word in printed.replace(",", " ").split() if word.startswith("_") and word != "_target_:"]


def test_comments_stand_beside_their_keys(command: Command) -> None:
    lines = command("train", "--help").out.splitlines()
    for key, comment in (
        ("label_smoothing: 0.1", "fraction of the target that is spread over all classes"),  # of the task
        ("on_error: raise", "if an image cannot be decoded"),  # of a base of the chosen data
        ("strict: true", "false: load matching tensors and ignore missing and unknown ones"),  # inside transfer
        ("seed: 0", ""),
    ):
        (line,) = [line for line in lines if line.strip().startswith(key)]
        assert comment in line


def test_the_keys_of_given_choices_are_shown(command: Command) -> None:
    printed = command("train", "augment=imagenet", "--help", "schedule=step").out
    assert "auto_augment: rand-m9-mstd0.5-inc1" in printed
    assert "every_epochs: 30" in printed


def test_help_for_a_misspelt_choice_is_refused(command: Command) -> None:
    outcome = command("train", "--help", "schedule=stepp")
    assert (outcome.code, outcome.err) == (2, "error: schedule=stepp is unknown; did you mean step?\n")
