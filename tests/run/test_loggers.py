"""Loggers: local files in every run, W&B on request, and never a prompt at the terminal."""

import builtins
import getpass
import importlib.util
import os
import sys
from pathlib import Path

import pytest
from conftest import TINY
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from swin_lab.errors import UserError
from swin_lab.record import flat
from swin_lab.run.identity import identify
from swin_lab.run.loggers import build_loggers, check_loggers, log_configuration, wandb_logger

with_wandb = pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")


@pytest.fixture
def no_account(tmp_path, monkeypatch):
    """Simulates a user without a W&B account, and fails at any prompt; returns a run directory."""
    for name in [name for name in os.environ if name.startswith("WANDB_")] + ["NETRC"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    (tmp_path / "home").mkdir()

    def prompt(*_args, **_kwargs):
        pytest.fail("a prompt appeared at the terminal")

    monkeypatch.setattr(builtins, "input", prompt)
    monkeypatch.setattr(getpass, "getpass", prompt)
    monkeypatch.setattr(sys.stdin, "readline", prompt, raising=False)
    run_dir = tmp_path / "runs" / "digits" / "now"
    run_dir.mkdir(parents=True)
    return run_dir


def test_nested_keys_become_dotted_with_native_values():
    nested = {"model": {"depths": [2, 2], "head": {"bias": True}}, "lr": 1e-3, "name": None}
    assert flat(nested) == {"model.depths": [2, 2], "model.head.bias": True, "lr": 1e-3, "name": None}


def test_an_empty_group_stays_visible_as_null():
    assert flat({"logger": {}, "a": {"b": {}}}) == {"logger": None, "a.b": None}


def test_tensorboard_and_csv_files_are_in_the_run_directory(tmp_path):
    loggers = build_loggers({}, identify(tmp_path, "digits"))
    assert [isinstance(*pair) for pair in zip(loggers, (TensorBoardLogger, CSVLogger), strict=True)] == [True, True]
    assert {str(logger.log_dir).rstrip("/") for logger in loggers} == {str(tmp_path)}


def test_without_a_logger_group_there_are_the_two_local_loggers(tmp_path):
    assert len(build_loggers(None, identify(tmp_path, "digits"))) == 2


def test_a_logger_of_the_group_comes_third(tmp_path):
    node = {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": str(tmp_path / "more")}
    assert build_loggers({"more": node}, identify(tmp_path, "digits"))[2].save_dir == str(tmp_path / "more")


def test_a_misspelt_key_of_a_logger_is_refused_with_the_nearest_one(tmp_path):
    node = {"_target_": "swin_lab.run.loggers.wandb_logger", "projekt": "x"}
    with pytest.raises(UserError, match=r"unknown key logger\.wandb\.projekt; did you mean project\?"):
        build_loggers({"wandb": node}, identify(tmp_path, "digits"))


@pytest.mark.parametrize("target", ["nowhere.Logger", "lightning.pytorch.loggers.CSVLoger"])
def test_a_logger_that_does_not_exist_is_refused(tmp_path, target):
    with pytest.raises(UserError, match=target):
        build_loggers({"x": {"_target_": target}}, identify(tmp_path, "digits"))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("mode", "on", "on is unknown; did you mean online"),
        ("mode", "disabled", "disabled is unknown; choose one of auto, offline, online"),
        ("mode", None, "null must be one of auto, online, offline"),
        ("mode", True, "true must be one of auto, online, offline"),
        ("project", "", "'' must be a string that is not empty"),
        ("tags", "a", "a must be a list, each entry a string"),
    ],
)
def test_an_invalid_setting_is_refused_before_the_run_directory_exists(key, value, message):
    node = {"_target_": "swin_lab.run.loggers.wandb_logger", "project": "swin_lab", key: value}
    with pytest.raises(UserError, match=rf"logger\.wandb\.{key}={message}"):
        check_loggers({"wandb": node})


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (
            {"_target_": "lightning.Callback"},
            r"logger\.x\._target_=lightning\.Callback makes a Callback; it must make a Logger",
        ),
        ({"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1}, "makes a Linear; it must make a Logger"),
        ({"_target_": "swin_lab.create_model", "name": "x"}, "it must make a Logger"),
        ({"_target_": "lightning.pytorch.loggers.MLFlowLogger"}, "needs the package mlflow: pip install mlflow"),
        ({"_target_": "lightning.pytorch.loggers.CometLogger"}, "needs the package comet-ml: pip install comet-ml"),
        ({"_target_": "swin_lab.run.loggers.mlflow_logger"}, r"needs the package mlflow: pip install 'swin-lab\[mlflow\]'"),
        ({"_target_": "swin_lab.run.loggers.wandb_logger", "project": "x"}, "needs the package wandb: pip install wandb"),
        ({"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": "/proc/x"}, r"logger\.x\.save_dir=/proc/x cannot be"),
        (
            {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": ".", "flush_logs_every_n_steps": 0},
            r"logger\.x\.flush_logs_every_n_steps=0 must be a positive integer",
        ),
        (None, r"logger\.x does not name a class"),
        (
            {"_target_": "swin_lab.run.loggers.mlflow_logger", "tracking_uri": "./mlruns"},
            r"needs the package mlflow|tracking_uri=\./mlruns is no store of MLflow; give sqlite:///FILE",
        ),
    ],
    ids=str,
)
def test_a_logger_that_cannot_work_is_refused_before_the_run_directory_exists(monkeypatch, node, message):
    for module in ("mlflow", "comet_ml", "wandb"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=message):
        check_loggers({"x": node})


@with_wandb
def test_an_online_logger_without_a_key_is_refused_before_the_run_directory_exists(no_account):
    with pytest.raises(UserError, match=r"logger\.wandb\.mode=online needs a key"):
        check_loggers({"wandb": {"_target_": "swin_lab.run.loggers.wandb_logger", "project": "x", "mode": "online"}})


def test_a_service_that_a_logger_does_not_reach_is_reported_in_one_line(tmp_path, monkeypatch):
    def refuse(self, params):
        raise ConnectionError("the service is down\nmore")

    monkeypatch.setattr(CSVLogger, "log_hyperparams", refuse)
    with pytest.raises(UserError, match=r"^logger CSVLogger: the service is down$"):
        log_configuration([CSVLogger(tmp_path)], {})


def test_a_run_with_an_impossible_logger_leaves_no_directory(command):
    done = command("train", *TINY, "+logger.csv={_target_:lightning.Callback}")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert not Path("runs").exists()


@with_wandb
def test_without_a_key_wandb_is_offline(no_account):
    assert wandb_logger("swin_lab", identify(no_account, "digits"))._offline


@with_wandb
def test_with_a_key_in_the_environment_wandb_is_online(no_account, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert not wandb_logger("swin_lab", identify(no_account, "digits"))._offline


@with_wandb
def test_with_a_key_that_wandb_login_has_stored_wandb_is_online(no_account, tmp_path):
    netrc = tmp_path / "home" / ".netrc"
    netrc.write_text(f"machine api.wandb.ai\n  login user\n  password {'0' * 40}\n")
    netrc.chmod(0o600)
    assert not wandb_logger("swin_lab", identify(no_account, "digits"))._offline


@with_wandb
def test_a_netrc_that_cannot_be_read_is_ignored(no_account, tmp_path):
    (tmp_path / "home" / ".netrc").write_text("not a netrc file\n")
    assert wandb_logger("swin_lab", identify(no_account, "digits"))._offline


@with_wandb
def test_a_key_of_another_server_is_ignored(no_account, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org/path")
    netrc = tmp_path / "home" / ".netrc"
    netrc.write_text(f"machine api.wandb.ai\n  login user\n  password {'0' * 40}\n")
    netrc.chmod(0o600)
    assert wandb_logger("swin_lab", identify(no_account, "digits"))._offline


@with_wandb
@pytest.mark.parametrize("setting", ["mode", "environment"])
def test_offline_takes_precedence_over_a_key(no_account, monkeypatch, setting):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    if setting == "environment":
        monkeypatch.setenv("WANDB_MODE", "offline")
    assert wandb_logger("swin_lab", identify(no_account, "digits"), mode="offline" if setting == "mode" else "auto")._offline


@with_wandb
def test_checkpoints_are_not_uploaded(no_account):
    assert wandb_logger("swin_lab", identify(no_account, "digits"))._log_model is False


@with_wandb
def test_the_logger_of_the_group_is_given_the_run(no_account):
    node = {"_target_": "swin_lab.run.loggers.wandb_logger", "project": "swin_lab", "mode": "offline"}
    logger = build_loggers({"wandb": node}, identify(no_account, "digits"))[2]
    assert logger.save_dir == str(no_account)
    assert logger._name == "digits/now"
