"""Lightning's Trainer: which keys the run sets, which values are refused, and which precision is chosen."""

import pytest
import torch

from swin_lab.errors import UserError
from swin_lab.run.trainer import build_trainer, choose_precision, find_launch

CPU = {"_target_": "lightning.Trainer", "accelerator": "cpu"}


def test_a_misspelt_key_is_refused_with_the_nearest_one():
    with pytest.raises(UserError, match=r"unknown key trainer\.max_epoch; did you mean max_epochs\?"):
        build_trainer(CPU | {"max_epoch": 3}, "32-true")


@pytest.mark.parametrize("wrong", [{"devices": 0}, {"accelerator": "abacus"}], ids=str)
def test_values_that_lightning_refuses_are_reported_with_its_message(wrong):
    with pytest.raises(UserError, match=r"^trainer: "):
        build_trainer(CPU | wrong, "32-true")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_epochs": 0}, "trainer.max_epochs=0 must be a positive integer, or -1 for no limit"),
        ({"max_epochs": "many"}, "trainer.max_epochs=many must be a positive integer, or -1 for no limit"),
        ({"max_epochs": -2}, "trainer.max_epochs=-2 must be a positive integer, or -1 for no limit"),
        ({"limit_train_batches": 0}, "trainer.limit_train_batches=0 must be a positive number"),
        ({"gradient_clip_val": -1}, "trainer.gradient_clip_val=-1 must be a non-negative number or null"),
        ({"check_val_every_n_epoch": 0}, "trainer.check_val_every_n_epoch=0 must be a positive integer"),
        ({"deterministic": "bogus"}, "trainer.deterministic=bogus must be true or false or one of warn or null"),
    ],
    ids=str,
)
def test_an_invalid_value_is_refused(wrong, message):
    with pytest.raises(UserError) as caught:
        build_trainer(CPU | wrong, "32-true")
    assert str(caught.value) == message


def test_a_run_without_a_limit_of_epochs_is_possible():
    assert build_trainer(CPU | {"max_epochs": -1, "max_steps": 10}, "32-true").max_steps == 10


def test_an_unknown_precision_is_refused():
    with pytest.raises(UserError, match="bf17"):
        build_trainer(CPU, "bf17")


@pytest.mark.parametrize("key", [{"precision": "64-true"}, {"use_distributed_sampler": True}], ids=str)
def test_a_key_that_the_run_sets_is_refused(key):
    with pytest.raises(UserError, match=next(iter(key))):
        build_trainer(CPU | key, "32-true")


def test_the_trainer_is_complete_when_it_is_built():
    trainer = build_trainer(CPU, "32-true", accumulate=3, evaluate_first=True)
    assert (trainer.accumulate_grad_batches, trainer.num_sanity_val_steps) == (3, float("inf"))


def test_the_number_of_processes_is_known_before_data_is_loaded():
    launch = find_launch(CPU | {"max_epochs": 1, "devices": 2, "strategy": "ddp"}, "auto")
    assert (launch.world_size, launch.devices_per_node, launch.precision) == (2, 2, "32-true")


@pytest.mark.parametrize("accelerator", ["auto", "gpu", "cpu"])
def test_automatic_precision_without_a_gpu_is_32_bits(monkeypatch, accelerator):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_precision("auto", accelerator) == "32-true"


@pytest.mark.parametrize(("bf16", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_automatic_precision_on_a_gpu_is_bfloat16_where_it_computes_in_it(monkeypatch, bf16, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    assert choose_precision("auto", "auto") == expected
    assert choose_precision("auto", "cpu") == "32-true"


def test_a_given_precision_is_not_changed():
    assert choose_precision("16-mixed", "cpu") == "16-mixed"
