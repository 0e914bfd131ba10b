"""Lightning's Trainer: which keys the run sets, which values are refused, and which precision is chosen."""

import re

import pytest
import torch
from lightning import Trainer

from swin_lab.errors import UserError
from swin_lab.run.trainer import build_trainer, check_batches, choose_precision, find_launch

CPU = {"_target_": "lightning.Trainer", "accelerator": "cpu"}
DDP = {"_target_": "lightning.pytorch.strategies.DDPStrategy"}


def test_a_misspelt_key_is_refused_with_the_nearest_one():
    with pytest.raises(UserError, match=r"unknown key trainer\.max_epoch; did you mean max_epochs\?"):
        build_trainer(CPU | {"max_epoch": 3}, "32-true")


@pytest.mark.parametrize("wrong", [{"strategy": "dpp"}, {"accelerator": "abacus"}], ids=str)
def test_values_that_lightning_refuses_are_reported_with_its_message(wrong):
    with pytest.raises(UserError, match=r"^trainer: "):
        build_trainer(CPU | wrong, "32-true")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_epochs": 0}, "trainer.max_epochs=0 must be a positive integer, or -1 for no limit"),
        ({"max_epochs": "many"}, "trainer.max_epochs=many must be a positive integer, or -1 for no limit"),
        ({"max_epochs": -2}, "trainer.max_epochs=-2 must be a positive integer, or -1 for no limit"),
        (
            {"limit_train_batches": 0},
            "trainer.limit_train_batches=0 must be a positive integer, or a fraction such as 0.5",
        ),
        (
            {"max_time": {"seconds": -5}},
            "trainer.max_time={'seconds': -5} must be a positive duration, "
            "such as 00:12:00:00 (days, hours, minutes, seconds) or {hours: 12}, or null",
        ),
        ({"gradient_clip_val": -1}, "trainer.gradient_clip_val=-1 must be a non-negative number up to 1,000,000 or null"),
        ({"check_val_every_n_epoch": 0}, "trainer.check_val_every_n_epoch=0 must be a positive integer"),
        ({"deterministic": "bogus"}, "trainer.deterministic=bogus must be true or false or one of warn or null"),
    ],
    ids=str,
)
def test_an_invalid_value_is_refused(wrong, message):
    with pytest.raises(UserError) as caught:
        build_trainer(CPU | wrong, "32-true")
    assert str(caught.value) == message


@pytest.mark.parametrize("duration", ["00:00:00:00", "12 hours", {"seconds": 0}, {}, {"years": 1}, 5], ids=str)
def test_a_duration_that_is_not_positive_is_refused(duration):
    with pytest.raises(UserError, match=r"^trainer\.max_time=.* must be a positive duration"):
        build_trainer(CPU | {"max_time": duration}, "32-true")


@pytest.mark.parametrize("duration", ["00:00:10:00", {"hours": 12}, {"days": 1, "minutes": 0}, None], ids=str)
def test_a_positive_duration_is_accepted(duration):
    assert isinstance(build_trainer(CPU | {"max_time": duration}, "32-true"), Trainer)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"max_epochs": -1, "max_time": "00:00:10:00"}, "trainer.max_epochs=-1: the run has no end; set trainer.max_steps"),
        ({"max_epochs": 2, "min_epochs": 500}, "trainer.min_epochs=500 is more than trainer.max_epochs=2"),
        ({"max_epochs": 2, "max_steps": 3, "min_steps": 4}, "trainer.min_steps=4 is more than trainer.max_steps=3"),
        ({"max_epochs": 2, "devices": 10**6}, "trainer.devices=1000000: the CPU has"),
        (
            {"max_epochs": 2, "strategy": DDP | {"process_group_backend": "nccl"}},
            "trainer.strategy.process_group_backend=nccl is not available",
        ),
    ],
    ids=str,
)
def test_a_launch_that_contradicts_itself_or_the_machine_is_refused(node, message):
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        find_launch(CPU | node, "auto")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("broadcast_buffers", "no", "=no must be true or false or null"),
        ("find_unused_parameters", 1, "=1 must be true or false"),
        ("static_graph", "yes", "=yes must be true or false"),
        ("gradient_as_bucket_view", None, "=null must be true or false"),
        ("bucket_cap_mb", -1, "=-1 must be a positive number"),
        ("process_group_backend", "foo", "=foo is unknown; did you mean gloo?"),
    ],
)
def test_an_invalid_setting_of_distributed_data_parallel_is_refused(key, value, message):
    with pytest.raises(UserError, match=f"^{re.escape(f'trainer.strategy.{key}{message}')}"):
        build_trainer(CPU | {"strategy": DDP | {key: value}}, "32-true")


@pytest.mark.parametrize("key", ["foo", "module", "device_ids"])
def test_an_unknown_setting_of_distributed_data_parallel_is_refused(key):
    with pytest.raises(UserError, match=rf"^unknown key trainer\.strategy\.{key}"):
        build_trainer(CPU | {"strategy": DDP | {key: 1}}, "32-true")


def test_settings_of_distributed_data_parallel_reach_it():
    settings = {"broadcast_buffers": False, "gradient_as_bucket_view": True, "bucket_cap_mb": 25}
    strategy = build_trainer(CPU | {"strategy": DDP | settings | {"process_group_backend": "gloo"}}, "32-true").strategy
    assert (strategy._ddp_kwargs, strategy.process_group_backend) == (settings, "gloo")


def test_an_environment_variable_that_changes_the_run_is_refused(monkeypatch):
    monkeypatch.setenv("PL_TRAINER_FAST_DEV_RUN", "1")
    with pytest.raises(UserError, match="environment variable PL_TRAINER_FAST_DEV_RUN=1 changes the run; unset it"):
        build_trainer(CPU, "32-true")


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"limit_train_batches": 0.01}, "trainer.limit_train_batches=0.01 leaves none of 10 batches"),
        ({"limit_val_batches": 0.1}, "trainer.limit_val_batches=0.1 leaves none of 5 batches"),
        ({"val_check_interval": 11}, "trainer.val_check_interval=11 is more than the 10 training batches"),
        (
            {"val_check_interval": 6, "limit_train_batches": 0.5},
            "trainer.val_check_interval=6 is more than the 5 training batches",
        ),
        (
            {"val_check_interval": 6, "limit_train_batches": 5},
            "trainer.val_check_interval=6 is more than the 5 training batches",
        ),
    ],
    ids=str,
)
def test_limits_that_leave_no_batch_are_refused(node, message):
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        check_batches(node, 10, 5)


@pytest.mark.parametrize(
    "node",
    [
        {},
        {"limit_train_batches": 0.1, "limit_val_batches": 1},
        {"limit_train_batches": 50, "val_check_interval": 10},
        {"val_check_interval": 0.01},
        {"val_check_interval": 20, "check_val_every_n_epoch": None},
    ],
    ids=str,
)
def test_limits_that_leave_batches_are_accepted(node):
    check_batches(node, 10, 5)


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


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("32", "32-true"),
        ("64", "64-true"),
        ("bf16", "bf16-mixed"),
        *((name, name) for name in ("32-true", "64-true", "bf16-true", "16-true", "bf16-mixed")),
    ],
)
def test_a_given_precision_has_its_full_name_and_is_that_of_the_trainer(given, expected):
    assert choose_precision(given, "cpu") == expected
    assert build_trainer(CPU, choose_precision(given, "cpu")).precision == expected


@pytest.mark.parametrize("accelerator", ["cpu", "auto"])
@pytest.mark.parametrize("given", ["16-mixed", "16"])
def test_fp16_with_loss_scaling_is_refused_on_a_cpu_where_lightning_would_use_bfloat16(monkeypatch, given, accelerator):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match=f"precision={given} needs a GPU; on a CPU, choose precision=32-true or bf16-mixed"):
        choose_precision(given, accelerator)


def test_fp16_with_loss_scaling_is_possible_on_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_precision("16-mixed", "auto") == choose_precision("16", "gpu") == "16-mixed"


@pytest.mark.parametrize("given", ["transformer-engine", "transformer-engine-float16", "bf17", "", "8"])
def test_other_precisions_are_refused(given):
    with pytest.raises(UserError, match=f"precision={given} is unknown"):
        choose_precision(given, "auto")
