"""Strict instantiation: a misspelt key or an invalid value is refused with the name of the key before anything runs."""

import builtins
import sys
from dataclasses import dataclass
from functools import partial
from types import ModuleType

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException

import swin_lab
from swin_lab.errors import UserError
from swin_lab.run.instantiate import build_dataclass, check_keys, instantiate, is_chosen
from swin_lab.training import Cosine
from swin_lab.validation import PositiveInt, check_fields

SCHEDULE = {"_target_": "swin_lab.training.Cosine", "warmup_epochs": 1, "warmup_lr_ratio": 0.1, "min_lr_ratio": 0.01}


class Part:
    def __init__(self, weight: float = 1.0, enabled: bool = True) -> None:
        if weight < 0:
            raise UserError(f"weight={weight} is negative")
        self.weight, self.enabled = weight, enabled


class Whole:
    def __init__(self, part: Part | None = None, parts: list[Part] | None = None) -> None:
        self.part, self.parts = part, parts


class Anything:
    def __init__(self, **keys: float) -> None:
        self.keys = keys


class Refusing:
    def __init__(self, error: str) -> None:
        raise {**vars(builtins), "MisconfigurationException": MisconfigurationException}[error]("the reason why\nmore")


@dataclass(frozen=True)
class Config:
    depth: PositiveInt = 2

    def __post_init__(self) -> None:
        check_fields(self)


class Configured:
    def __init__(self, config: Config) -> None:
        self.config = config


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Makes the classes above importable as the module `custom`."""
    module = ModuleType("custom")
    for kind in (Part, Whole, Anything, Refusing, Configured):
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, "custom", module)


def test_a_node_becomes_what_its_target_names():
    built = instantiate("schedule", SCHEDULE)
    assert isinstance(built, Cosine)
    assert built.min_lr_ratio == 0.01


def test_a_node_inside_a_node_is_built_as_well():
    node = {"_target_": "custom.Whole", "parts": [{"_target_": "custom.Part", "weight": 3}]}
    assert instantiate("whole", node).parts[0].weight == 3


def test_a_partial_node_is_the_target_with_its_arguments():
    built = instantiate("optimizer", {"_target_": "torch.optim.AdamW", "_partial_": True, "betas": [0.9, 0.98]})
    assert isinstance(built, partial)
    assert built.keywords == {"betas": (0.9, 0.98)}


def test_a_target_with_a_config_dataclass_takes_its_fields_as_keys():
    assert instantiate("model", {"_target_": "custom.Configured", "depth": 3}).config == Config(3)


def test_a_misspelt_field_of_a_config_dataclass_is_refused_with_the_nearest_one():
    with pytest.raises(UserError, match=r"^unknown key model\.dept; did you mean depth\?$"):
        instantiate("model", {"_target_": "custom.Configured", "dept": 3})


def test_the_node_is_not_changed():
    before = {**SCHEDULE}
    instantiate("schedule", before, {"interval": "epoch"})
    assert before == SCHEDULE


def test_extra_arguments_are_given_to_a_target_that_takes_them():
    assert instantiate("schedule", SCHEDULE, {"interval": "epoch", "run_dir": "x"}).interval == "epoch"


def test_an_argument_of_the_node_takes_precedence_over_an_extra_one():
    assert instantiate("schedule", SCHEDULE | {"interval": "update"}, {"interval": "epoch"}).interval == "update"


def test_a_misspelt_key_is_refused_with_the_nearest_one():
    with pytest.raises(UserError, match=r"^unknown key schedule\.warmup_epoch; did you mean warmup_epochs\?$"):
        instantiate("schedule", SCHEDULE | {"warmup_epoch": 1})


def test_a_key_unlike_all_others_is_refused_with_all_of_them():
    with pytest.raises(UserError, match=r"unknown key part\.zzz; choose one of enabled, weight"):
        instantiate("part", {"_target_": "custom.Part", "zzz": 1})


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [
        ("part", {"_target_": "custom.Part", "wieght": 1}, "whole.part.wieght"),
        ("parts", [{"_target_": "custom.Part"}, {"_target_": "custom.Part", "wieght": 1}], "whole.parts.wieght"),
    ],
)
def test_a_misspelt_key_of_an_inner_node_is_found_and_located(key, value, where):
    with pytest.raises(UserError, match=f"unknown key {where}; did you mean weight"):
        instantiate("whole", {"_target_": "custom.Whole", key: value})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("weight", "heavy", "part.weight=heavy must be a finite number"),
        ("weight", True, "part.weight=true must be a finite number"),
        ("weight", float("nan"), "part.weight=nan must be a finite number"),
        ("enabled", "no", "part.enabled=no must be true or false"),
        ("enabled", 1, "part.enabled=1 must be true or false"),
    ],
    ids=str,
)
def test_a_value_of_another_type_than_the_annotation_is_refused(key, value, message):
    with pytest.raises(UserError) as caught:
        instantiate("part", {"_target_": "custom.Part", key: value})
    assert str(caught.value) == message


def test_types_of_classes_from_other_libraries_are_checked_as_well():
    with pytest.raises(UserError, match=r"^trainer\.deterministic=bogus must be true or false"):
        instantiate("trainer", {"_target_": "lightning.Trainer", "deterministic": "bogus"})


def test_an_inner_object_of_the_wrong_class_is_refused():
    node = {"_target_": "custom.Whole", "part": {"_target_": "custom.Anything"}}
    with pytest.raises(UserError, match=r"whole\.part=.* must be a Part or null"):
        instantiate("whole", node)


def test_a_group_that_is_chosen_as_none_is_none():
    assert instantiate("whole", {"_target_": "custom.Whole", "part": {}}).part is None
    assert not is_chosen("ema", {})
    assert not is_chosen("ema", None)
    assert is_chosen("ema", {"_target_": "custom.Part"})


def test_a_target_that_takes_any_key_is_given_any():
    assert instantiate("x", {"_target_": "custom.Anything", "some": 1}).keys == {"some": 1}


def test_a_target_that_takes_any_key_still_has_its_inner_nodes_checked():
    with pytest.raises(UserError, match=r"x\.some\.wieght"):
        instantiate("x", {"_target_": "custom.Anything", "some": {"_target_": "custom.Part", "wieght": 1}})


@pytest.mark.parametrize("target", ["nowhere.AdamW", "swin_lab.training.AdamV", "", 3])
def test_a_target_that_cannot_be_imported_is_named(target, capfd):
    with pytest.raises(UserError, match=rf"optimizer\._target_={target} cannot be imported") as raised:
        instantiate("optimizer", {"_target_": target})
    assert len(str(raised.value).splitlines()) <= 3
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("target", ["swin_lab.training", "swin_lab.metadata.METADATA_KEY"])
def test_a_target_that_cannot_be_called_is_refused(target):
    with pytest.raises(UserError, match=rf"optimizer\._target_={target}"):
        instantiate("optimizer", {"_target_": target})


def test_a_node_without_a_target_is_refused():
    with pytest.raises(UserError, match=r"optimizer.*_target_"):
        instantiate("optimizer", {"lr": 1e-3})


def test_a_message_of_the_class_itself_is_unchanged():
    with pytest.raises(UserError, match=r"^weight=-1\.0 is negative$"):
        instantiate("part", {"_target_": "custom.Part", "weight": -1})


def test_a_missing_argument_is_named():
    with pytest.raises(UserError, match=r"schedule\.min_lr_ratio is missing"):
        instantiate("schedule", {key: value for key, value in SCHEDULE.items() if key != "min_lr_ratio"})


def test_a_value_that_a_class_from_another_library_refuses_is_located():
    node = {"_target_": "torchvision.transforms.v2.RandomErasing", "scale": [2, 3]}
    with pytest.raises(UserError, match=r"^augment\.tensor_transforms: Scale should"):
        instantiate("augment.tensor_transforms", node)


@pytest.mark.parametrize(
    "error",
    [
        *("RuntimeError", "MisconfigurationException", "ModuleNotFoundError", "OSError", "AttributeError"),
        *("ZeroDivisionError", "AssertionError", "TypeError", "NotImplementedError"),
    ],
)
def test_whatever_a_class_outside_swin_lab_raises_is_one_line_with_the_name_of_the_node(error):
    with pytest.raises(UserError) as caught:
        instantiate("x", {"_target_": "custom.Refusing", "error": error})
    assert str(caught.value) == "x: the reason why"


def test_a_message_of_one_word_is_shown_with_the_class_of_the_error():
    with pytest.raises(UserError, match=r"^x: KeyError 'unknown'$"):
        instantiate("x", {"_target_": "custom.Refusing", "error": "unknown"})


def test_a_bug_in_a_class_of_swin_lab_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(swin_lab, "Refusing", Refusing, raising=False)
    with pytest.raises(ZeroDivisionError):
        instantiate("x", {"_target_": "swin_lab.Refusing", "error": "ZeroDivisionError"})


def test_a_class_of_another_kind_is_refused_before_it_is_built():
    with pytest.raises(UserError, match=r"^x\._target_=custom\.Refusing makes a Refusing; it must make a Part$"):
        instantiate("x", {"_target_": "custom.Refusing", "error": "OSError"}, kind=Part)


def test_keys_that_belong_to_another_part_may_be_allowed():
    check_keys("data", {"_target_": "custom.Part", "weight": 1, "num_workers": 0}, also=["num_workers"])
    with pytest.raises(UserError, match=r"unknown key data\.num_worker; did you mean num_workers\?"):
        check_keys("data", {"_target_": "custom.Part", "num_worker": 0}, also=["num_workers"])


def test_a_dataclass_takes_known_keys_only():
    assert build_dataclass("x", Config, {"depth": 3}) == Config(3)
    with pytest.raises(UserError, match=r"^unknown key x\.dept; did you mean depth\?$"):
        build_dataclass("x", Config, {"dept": 3})


def test_a_dataclass_at_the_top_level_has_no_prefix():
    with pytest.raises(UserError, match=r"^unknown key dept; did you mean depth\?$"):
        build_dataclass("", Config, {"dept": 3})
