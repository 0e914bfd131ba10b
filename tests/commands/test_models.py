"""`swin-lab models`."""

from conftest import Command

from swin_lab import list_models


def test_models_lists_every_variant_with_its_whole_name_in_80_columns(cli: Command) -> None:
    outcome = cli("models")
    assert outcome.code == 0
    out = outcome.out
    assert [line.split()[0] for line in out.splitlines() if line.startswith("swin")] == list_models()
    assert max(map(len, out.split("\n\n")[0].splitlines())) <= 80


def test_models_shows_the_published_accuracy_of_a_variant(cli: Command) -> None:
    out = cli("models", "swin_base_patch4_window7_224").out
    assert out.splitlines()[1].split() == ["swin_base_patch4_window7_224", "87.77", "M", "15.44", "224", "83.5", "85.2"]


def test_models_takes_a_pattern(cli: Command) -> None:
    out = cli("models", "swinv2_tiny*").out
    assert [line.split()[0] for line in out.splitlines() if line.startswith("swin")] == list_models("swinv2_tiny*")


def test_a_pattern_that_matches_no_model_is_refused(cli: Command) -> None:
    outcome = cli("models", "swim*")
    assert (outcome.code, "swim*" in outcome.err, "lists all" in outcome.err) == (2, True, True)
