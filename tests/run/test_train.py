"""train.py from the command line to the files that it writes."""

import csv
import re
from pathlib import Path

import rich
import torch
from conftest import TINY, Command, Outcome, final_metrics, only_run, recorded
from omegaconf import OmegaConf


def test_a_run_writes_the_documented_files(tiny_training: tuple[Path, Outcome]) -> None:
    run = only_run(tiny_training[0] / "runs" / "tiny")
    names = {file.relative_to(run).as_posix() for file in run.rglob("*") if file.is_file()}
    documented = {
        "config.yaml",
        "overrides.txt",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
        "metrics.csv",
        "results.json",
        "run.log",
    }
    assert documented <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert not [name for name in names if re.search(r"[= ]", name)]


def test_nothing_is_written_outside_the_run_directory(tiny_training: tuple[Path, Outcome]) -> None:
    assert [entry.name for entry in tiny_training[0].iterdir()] == ["runs"]


def test_the_last_table_names_metrics_directory_dashboard_and_evaluation(tiny_training: tuple[Path, Outcome]) -> None:
    folder, printed = tiny_training[0], tiny_training[1].out
    run = only_run(folder).relative_to(folder)
    assert "top-1" in printed
    assert "top-5" in printed
    assert f"eval.py checkpoint={run}" in printed
    assert "tensorboard --logdir runs" in printed
    assert "images/s" in printed


def test_results_contain_identity_data_speed_and_overrides(tiny_training: tuple[Path, Outcome]) -> None:
    result = recorded(only_run(tiny_training[0]))
    assert result["overrides"] == TINY
    assert result["run.images"] == 30
    assert result["data.train_images"] == 64
    assert result["run.updates"] == 8
    assert result["run.images_per_second"] > 0
    assert result["run.wall_seconds"] > 0
    assert result["versions.torch"] == torch.__version__
    assert result["git.commit"] is None or len(result["git.commit"]) == 40
    assert result["metrics.final.acc1"] == result["metrics.best.acc1"]


def test_the_written_configuration_is_resolved_and_plain(tiny_training: tuple[Path, Outcome]) -> None:
    text = (only_run(tiny_training[0]) / "config.yaml").read_text()
    assert "${" not in text
    assert OmegaConf.create(text)["model"]["embed_dim"] == 8


def test_checkpoints_load_without_code_and_describe_themselves(tiny_training: tuple[Path, Outcome]) -> None:
    for name in ("best", "last"):
        content = torch.load(only_run(tiny_training[0]) / "checkpoints" / f"{name}.ckpt", weights_only=True)
        metadata = content["swin_lab"]
        assert metadata["model"]["num_classes"] == 6
        assert metadata["class_names"][0] == "pattern 0"
        assert metadata["preprocessing"]["img_size"] == [32, 32]


def test_metrics_csv_has_a_column_for_every_metric(command: Command, tmp_path: Path) -> None:
    command("train", *TINY, "trainer.log_every_n_steps=1")
    with (only_run(tmp_path) / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    wanted = {"train/loss", "train/loss_epoch", "train/lr", "train/grad_norm", "val/loss", "val/acc1", "val/acc5"}
    assert wanted <= {name for row in rows for name, value in row.items() if value}


def test_the_same_seed_gives_bit_identical_results(command: Command, tmp_path: Path) -> None:
    for name in ("first", "second"):
        command("train", *TINY, f"name={name}", "seed=3")
    first, second = (recorded(only_run(tmp_path / "runs" / name)) for name in ("first", "second"))
    assert final_metrics(first) == final_metrics(second)
    tensors = [
        torch.load(only_run(tmp_path / "runs" / name) / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("first", "second")
    ]
    assert all(torch.equal(tensors[0][key], tensors[1][key]) for key in tensors[0] if key.startswith("network."))


def test_another_seed_gives_other_numbers(command: Command, tmp_path: Path) -> None:
    for seed in (3, 4):
        command("train", *TINY, f"name=seed{seed}", f"seed={seed}")
    losses = [final_metrics(only_run(tmp_path / "runs" / f"seed{seed}"))["val/loss"] for seed in (3, 4)]
    assert losses[0] != losses[1]


def test_accumulation_gives_the_same_training_as_one_large_batch(command: Command, tmp_path: Path) -> None:
    """Every update has the same images and only the order of summation differs: losses differ by 1e-4 at most."""
    deterministic = [*TINY, "model.drop_path_rate=0.0", "augment=none"]
    command("train", *deterministic, "name=whole")
    printed = command("train", *deterministic, "name=parts", "max_device_batch=5").out
    assert "16 = 1 device x 4 images x 4 accumulated" in printed
    whole, parts = (recorded(only_run(tmp_path / "runs" / name)) for name in ("whole", "parts"))
    assert whole["run.updates"] == parts["run.updates"] == 8
    assert abs(whole["metrics.final.loss"] - parts["metrics.final.loss"]) < 1e-4


def test_two_runs_of_the_same_second_have_different_directories(command: Command, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("swin_lab.run.fit.timestamped", lambda folder: folder / "now")
    for _ in range(2):
        assert command("train", *TINY, "trainer.max_epochs=1").code == 0
    assert sorted(folder.name for folder in (tmp_path / "runs" / "tiny").iterdir()) == ["now", "now_2"]


def test_with_five_classes_or_fewer_there_is_no_top_5(command: Command, tmp_path: Path) -> None:
    command("train", *TINY, "data.num_classes=5")
    assert set(final_metrics(only_run(tmp_path))) == {"val/loss", "val/acc1"}


def test_a_run_that_ends_before_its_first_evaluation_is_evaluated_at_its_end(command: Command, tmp_path: Path) -> None:
    outcome = command("train", *TINY, "trainer.max_steps=2")
    assert outcome.code == 0, outcome.err
    assert "the last weights" in outcome.out
    assert command("eval", f"checkpoint={only_run(tmp_path)}").code == 0


def test_a_terminal_shows_a_progress_bar(command: Command) -> None:
    rich.reconfigure(force_terminal=True)
    try:
        printed = command("train", *TINY).out
    finally:
        rich.reconfigure(force_terminal=None)
    assert "Epoch 1/1" in printed
    assert "Validation" in printed
    assert "epoch   2/2" in printed


def test_without_a_terminal_each_epoch_is_one_plain_line(tiny_training: tuple[Path, Outcome]) -> None:
    printed = tiny_training[1].out
    assert len(re.findall(r"^epoch +\d/2  loss [\d.]+  val loss [\d.]+  top-1 [\d.]+%  [\d,]+ images/s", printed, re.M)) == 2
    assert "\x1b" not in printed


def test_the_line_of_an_epoch_without_an_evaluation_has_no_metrics_of_an_earlier_one(command: Command) -> None:
    printed = command("train", *TINY, "trainer.max_epochs=3", "trainer.check_val_every_n_epoch=2").out
    lines = re.findall(r"^epoch +\d/3.*", printed, re.M)
    assert ["top-1" in line and "val loss" in line for line in lines] == [False, True, False]


def test_derived_values_are_printed_once(tiny_training: tuple[Path, Outcome]) -> None:
    printed = tiny_training[1].out
    assert printed.count("16 = 1 device x 16 images") == 1
    assert printed.count("precision 32-true") == 1
    assert printed.count("attention  products") == 1
    assert printed.count("learning rate 0.002121") == 1  # 3e-3 * sqrt(16/32)


def test_debug_limit_runs_from_start_to_end(command: Command) -> None:
    assert command("train", *TINY[:-2], "debug=limit").code == 0


def test_early_stopping_and_constant_schedule_are_choices(command: Command) -> None:
    assert command("train", *TINY, "callbacks=early_stopping", "schedule=constant").code == 0


def test_wandb_runs_offline_without_a_key(command: Command, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    outcome = command("train", *TINY, "logger=wandb")
    assert outcome.code == 0
    assert "wandb      offline; send the run later with: wandb sync" in outcome.out
    assert list((only_run(tmp_path) / "wandb").glob("offline-run-*"))


def test_a_run_that_only_max_steps_ends_makes_that_many_updates(command: Command, tmp_path: Path) -> None:
    outcome = command("train", *TINY, "trainer.max_epochs=-1", "trainer.max_steps=6")
    assert outcome.code == 0, outcome.err
    assert recorded(only_run(tmp_path))["run.updates"] == 6


def test_the_evaluation_of_the_best_weights_is_logged_as_final_and_is_no_point_of_the_curve(
    command: Command, tmp_path: Path
) -> None:
    assert command("train", *TINY, "trainer.max_epochs=3", "ema=warm").code == 0
    run = only_run(tmp_path)
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("val/acc1", "val_ema/loss"):
        assert len([row for row in rows if row[name]]) == 3
    (final,) = [row for row in rows if row["final/loss"]]
    metrics = final_metrics(run)
    assert float(final["final/acc1"]) == metrics["val/acc1"]
    assert float(final["final_ema/loss"]) == metrics["val_ema/loss"]


def test_the_last_epoch_is_printed_and_recorded_next_to_the_best(command: Command, tmp_path: Path) -> None:
    """The best epoch was selected on the images of its evaluation."""
    rates = ["trainer.max_epochs=3", "optimizer.lr=0.03"]
    printed = command("train", *TINY, *rates).out
    run = only_run(tmp_path)
    result = recorded(run)
    with (run / "metrics.csv").open() as file:
        accuracies = [float(row["val/acc1"]) for row in csv.DictReader(file) if row["val/acc1"]]
    assert result["metrics.last.epoch"] == 3
    assert result["metrics.last.acc1"] == accuracies[-1]
    assert accuracies[result["metrics.final.epoch"] - 1] == max(accuracies) == result["metrics.final.acc1"]
    assert re.search(rf"last epoch +│ top-1 {accuracies[-1]:.4%} ", printed)


FORGET = """
import torch
from lightning import Callback

class Forget(Callback):
    def on_validation_start(self, trainer, module):
        if trainer.state.fn == "fit" and trainer.current_epoch == 2:
            with torch.no_grad():
                for weight in module.network.parameters():
                    weight.zero_()
"""


def test_a_last_epoch_that_is_not_the_best_is_recorded_although_the_best_checkpoint_was_loaded(
    command: Command, tmp_path: Path
) -> None:
    """The network forgets everything before the evaluation of its last epoch."""
    Path("forget.py").write_text(FORGET)
    forget = "+callbacks.forget._target_=forget.Forget"
    printed = command("train", *TINY, "trainer.max_epochs=3", "callbacks=none", forget).out
    result = recorded(only_run(tmp_path))
    assert result["metrics.final.epoch"] < 3
    assert result["metrics.last.epoch"] == 3
    assert result["metrics.last.acc1"] < result["metrics.final.acc1"]
    assert re.search(rf"last epoch +│ top-1 {result['metrics.last.acc1']:.4%} ", printed)


def test_if_the_last_epoch_was_not_evaluated_the_last_evaluated_one_is_named(command: Command, tmp_path: Path) -> None:
    printed = command("train", *TINY, "trainer.max_epochs=3", "trainer.check_val_every_n_epoch=2").out
    assert "after epoch 2, the last evaluated one" in printed
    assert recorded(only_run(tmp_path))["metrics.last.epoch"] == 2


def test_the_best_checkpoint_is_read_once(command: Command, monkeypatch) -> None:
    """The only other file that is read is the one before the first update, which is read back."""
    read = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda file, *args, **kwargs: read.append(file) or load(file, *args, **kwargs))
    assert command("train", *TINY).code == 0
    assert [getattr(file, "name", "").rpartition("/")[2] for file in read] == ["last.ckpt", "best.ckpt"]


def test_an_optimizer_that_fails_in_the_first_update_is_refused(command: Command) -> None:
    outcome = command("train", *TINY, "trainer.max_epochs=1", "+optimizer.capturable=true")
    assert outcome.code == 2
    assert "optimizer._target_=torch.optim.adamw.AdamW fails in the first update" in outcome.err


def test_no_precision_is_another_one_under_its_name(command: Command) -> None:
    outcome = command("train", *TINY, "precision=16-mixed")
    assert (outcome.code, "precision=16-mixed needs a GPU" in outcome.err) == (2, True)
    assert "precision bf16-true" in command("train", *TINY, "trainer.max_epochs=1", "precision=bf16-true").out


def test_a_batch_of_one_image_cannot_be_mixed(command: Command, tmp_path: Path) -> None:
    outcome = command("train", *TINY, "max_device_batch=1", "mixing=imagenet")
    assert outcome.code == 2
    assert "16 = 1 device x 1 images x 16 accumulated" in outcome.err
    assert not (tmp_path / "runs").exists()


def test_a_diverging_training_ends_with_an_error_which_its_record_names(command: Command, tmp_path: Path) -> None:
    outcome = command("train", *TINY, "trainer.max_epochs=5", "optimizer.lr=1e6", "optimizer.weight_decay=0")
    assert outcome.code == 2
    assert re.search(r"(loss|gradient norm) is NaN or infinite .*at update \d+ \(epoch 1\)|the evaluation of", outcome.err)
    found = recorded(only_run(tmp_path))
    assert (found["run.state"], "NaN or infinite" in found["run.reason"]) == ("failed", True)
    assert "metrics.final.acc1" not in found


def test_printed_commands_can_be_copied_from_a_folder_with_a_space(command: Command, tmp_path: Path) -> None:
    printed = command("train", *TINY, "out=a b", "trainer.max_epochs=1").out
    assert "--logdir 'a b'\n" in printed
    assert f"eval.py 'checkpoint={only_run(tmp_path).relative_to(tmp_path)}'" in printed
