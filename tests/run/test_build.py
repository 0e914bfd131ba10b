"""From configuration to objects: a misspelt key or a wrong value is told of in the user's words before anything runs."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from swin_lab import SwinTransformer
from swin_lab.data import Digits, LoaderConfig, Synthetic
from swin_lab.errors import UserError
from swin_lab.run import build
from swin_lab.training import AdamW

MODEL = {
    "_target_": "swin_lab.models.SwinTransformer",
    "img_size": 32,
    "embed_dim": 16,
    "depths": [2, 2],
    "num_heads": [1, 2],
    "window_size": 4,
    "num_classes": None,
}
OPTIMIZER = {
    "_target_": "swin_lab.training.AdamW",
    "lr": 1e-3,
    "reference_batch": 64,
    "lr_scaling": "sqrt",
    "weight_decay": 0.05,
}
SYNTHETIC = {"_target_": "swin_lab.data.Synthetic", "num_classes": 3, "train_images": 6, "val_images": 3}


class Part:
    def __init__(self, weight: float = 1.0) -> None:
        if weight < 0:
            raise UserError(f"weight={weight} is negative")
        self.weight = weight


class Whole:
    def __init__(self, part: Part | None = None, parts: list[Part] | None = None) -> None:
        self.part, self.parts = part, parts


class Anything:
    def __init__(self, **keys: float) -> None:
        self.keys = keys


class Broken:
    def __init__(self) -> None:
        raise ZeroDivisionError("a bug")


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """The classes above as a user's own module."""
    module = ModuleType("of_a_user")
    for kind in (Part, Whole, Anything, Broken):
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, "of_a_user", module)


def test_a_node_becomes_what_its_target_names():
    made = build.make("optimizer", OPTIMIZER)
    assert isinstance(made, AdamW)
    assert made.lr == 1e-3


def test_a_node_inside_a_node_is_made_as_well():
    node = {"_target_": "of_a_user.Whole", "parts": [{"_target_": "of_a_user.Part", "weight": 3}]}
    assert build.make("whole", node).parts[0].weight == 3


def test_lists_arrive_as_plain_python():
    made = build.make("optimizer", OPTIMIZER | {"betas": [0.9, 0.98]})
    assert type(made.betas) is list


def test_the_node_is_left_as_it_was():
    before = {**OPTIMIZER}
    build.make("optimizer", before, {"eps": 1e-6})
    assert before == OPTIMIZER


def test_extra_arguments_come_from_the_run():
    assert build.make("optimizer", OPTIMIZER, {"eps": 1e-6}).eps == 1e-6


def test_a_misspelt_key_brings_the_nearest():
    with pytest.raises(UserError, match=r"^unknown key optimizer\.weigth_decay; did you mean weight_decay\?$"):
        build.make("optimizer", OPTIMIZER | {"weigth_decay": 0.1})


def test_a_key_that_is_like_no_other_brings_all():
    with pytest.raises(UserError, match=r"unknown key part\.zzz; choose one of weight"):
        build.make("part", {"_target_": "of_a_user.Part", "zzz": 1})


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [
        ("part", {"_target_": "of_a_user.Part", "wieght": 1}, "whole.part.wieght"),
        ("parts", [{"_target_": "of_a_user.Part"}, {"_target_": "of_a_user.Part", "wieght": 1}], "whole.parts.wieght"),
    ],
)
def test_a_misspelt_key_of_an_inner_node_is_found_and_placed(key, value, where):
    with pytest.raises(UserError, match=f"unknown key {where}; did you mean weight"):
        build.make("whole", {"_target_": "of_a_user.Whole", key: value})


def test_a_target_that_takes_any_key_is_given_any():
    assert build.make("x", {"_target_": "of_a_user.Anything", "some": 1}).keys == {"some": 1}


def test_a_target_that_takes_any_key_still_has_its_inner_nodes_checked():
    with pytest.raises(UserError, match=r"x\.some\.wieght"):
        build.make("x", {"_target_": "of_a_user.Anything", "some": {"_target_": "of_a_user.Part", "wieght": 1}})


@pytest.mark.parametrize("target", ["nowhere.AdamW", "swin_lab.training.AdamV", "", 3])
def test_a_target_that_cannot_be_imported_is_named(target):
    with pytest.raises(UserError, match=rf"optimizer\._target_={target} cannot be imported") as raised:
        build.make("optimizer", OPTIMIZER | {"_target_": target})
    assert len(str(raised.value).splitlines()) <= 3


@pytest.mark.parametrize("target", ["swin_lab.training", "swin_lab.card.CARD"])
def test_a_target_that_cannot_be_called_is_refused(target):
    with pytest.raises(UserError, match=rf"optimizer\._target_={target}"):
        build.make("optimizer", OPTIMIZER | {"_target_": target})


def test_a_node_without_a_target_is_refused():
    with pytest.raises(UserError, match=r"optimizer.*_target_"):
        build.make("optimizer", {"lr": 1e-3})


def test_a_message_of_the_class_itself_arrives_unchanged():
    with pytest.raises(UserError, match=r"^optimizer\.lr=-1 is no number of zero or more$"):
        build.make("optimizer", OPTIMIZER | {"lr": -1})


def test_a_message_of_an_inner_class_arrives_unchanged():
    with pytest.raises(UserError, match=r"^weight=-1 is negative$"):
        build.make("whole", {"_target_": "of_a_user.Whole", "part": {"_target_": "of_a_user.Part", "weight": -1}})


def test_a_missing_argument_is_named():
    with pytest.raises(UserError, match=r"optimizer\.weight_decay is missing"):
        build.make("optimizer", {key: value for key, value in OPTIMIZER.items() if key != "weight_decay"})


def test_a_value_that_a_class_from_elsewhere_refuses_is_placed():
    node = {"_target_": "torchvision.transforms.v2.RandomErasing", "p": 2}
    with pytest.raises(UserError, match=r"^augment\.tensor: `p` should"):
        build.make("augment.tensor", node)


def test_a_bug_in_a_class_is_not_dressed_up_as_a_mistake_of_the_user():
    with pytest.raises(ZeroDivisionError, match="a bug"):
        build.make("x", {"_target_": "of_a_user.Broken"})


def test_a_data_node_becomes_a_source_and_the_way_of_loading():
    source, loading = build.make_source(SYNTHETIC | {"num_workers": 0, "on_error": "skip", "crop_pct": 0.9})
    assert isinstance(source, Synthetic)
    assert loading == LoaderConfig(num_workers=0, on_error="skip", crop_pct=0.9)


def test_a_misspelt_key_of_the_data_brings_the_nearest_even_of_loading():
    with pytest.raises(UserError, match=r"unknown key data\.num_worker; did you mean num_workers\?"):
        build.make_source(SYNTHETIC | {"num_worker": 0})


def test_a_network_has_as_many_classes_as_the_data():
    network, complete = build.make_network(MODEL, 3)
    assert isinstance(network, SwinTransformer)
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    assert complete == MODEL | {"num_classes": 3}


def test_the_data_s_number_of_classes_may_be_given_as_well():
    assert build.make_network(MODEL | {"num_classes": 3}, 3)[0].head.out_features == 3


def test_another_number_of_classes_than_the_data_has_is_refused():
    with pytest.raises(UserError, match=r"model\.num_classes=1000 but the data has 3 classes"):
        build.make_network(MODEL | {"num_classes": 1000}, 3)


def test_preprocessing_measures_what_is_not_given():
    made = build.make_preprocessing(MODEL | {"in_channels": 3}, LoaderConfig(std=(0.5, 0.5, 0.5)), Synthetic())
    assert made.std == (0.5, 0.5, 0.5)
    assert all(0.3 < value < 0.7 for value in made.mean)
    assert (made.img_size, made.channels) == ((32, 32), 3)


def test_preprocessing_of_a_grey_network_has_one_channel():
    made = build.make_preprocessing(MODEL | {"in_channels": 1, "img_size": [32, 48]}, LoaderConfig(), Digits())
    assert (made.img_size, made.channels, len(made.mean), len(made.std)) == ((32, 48), 1, 1, 1)


def test_a_misspelt_key_of_the_trainer_brings_the_nearest():
    with pytest.raises(UserError, match=r"unknown key trainer\.max_epoch; did you mean max_epochs\?"):
        build.make_trainer({"_target_": "lightning.Trainer", "max_epoch": 3}, "32-true", [])


@pytest.mark.parametrize("wrong", [{"devices": 0}, {"accelerator": "abacus"}], ids=str)
def test_what_lightning_refuses_is_told_in_its_words(wrong):
    with pytest.raises(UserError, match=r"^trainer: "):
        build.make_trainer({"_target_": "lightning.Trainer", "accelerator": "cpu"} | wrong, "32-true", [])


def test_an_unknown_precision_is_refused():
    with pytest.raises(UserError, match="bf17"):
        build.make_trainer({"_target_": "lightning.Trainer", "accelerator": "cpu"}, "bf17", [])


@pytest.mark.parametrize("key", [{"precision": "64-true"}, {"use_distributed_sampler": True}], ids=str)
def test_a_trainer_key_that_the_run_decides_is_refused_and_not_dropped_in_silence(key):
    with pytest.raises(UserError, match=next(iter(key))):
        build.make_trainer({"_target_": "lightning.Trainer", "accelerator": "cpu"} | key, "32-true", [])


@pytest.mark.parametrize(("accelerator", "expected"), [("auto", "32-true"), ("gpu", "32-true"), ("cpu", "32-true")])
def test_automatic_precision_without_a_gpu_is_32_bits(monkeypatch, accelerator, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert build.choose_precision("auto", accelerator) == expected


@pytest.mark.parametrize(("bf16", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_automatic_precision_on_a_gpu_is_bfloat16_where_it_computes_in_it(monkeypatch, bf16, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    assert build.choose_precision("auto", "auto") == expected
    assert build.choose_precision("auto", "cpu") == "32-true"


def test_a_precision_that_is_given_is_kept():
    assert build.choose_precision("16-mixed", "cpu") == "16-mixed"


@pytest.mark.parametrize("job", ["train", "eval"])
def test_a_misspelt_group_at_the_top_brings_the_nearest(job):
    build.check_top_keys({"data": {}, "trainer": {}}, job)
    with pytest.raises(UserError, match=r"^unknown key trainner; did you mean trainer\?$"):
        build.check_top_keys({"data": {}, "trainner": {}}, job)


@pytest.mark.parametrize("key", ["model", "optimizer", "label_smoothing", "global_batch", "name", "overrides"])
def test_the_keys_of_a_training_run_are_known(key):
    build.check_top_keys({key: None}, "train")


def test_parts_of_a_user_s_own_need_no_registration():
    class Net(nn.Module):
        def __init__(self, num_classes: int) -> None:
            super().__init__()
            self.head = nn.Linear(1, num_classes)

    sys.modules["of_a_user"].Net = Net
    network, _ = build.make_network({"_target_": "of_a_user.Net"}, 4)
    assert network.head.out_features == 4
