"""Runs of a distillation: equal to a classification with share 0, resumed to the bit, and evaluated without the teacher."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from conftest import ROOT, TINY, Command, Outcome, final_metrics, gradient_norms, only_run, recorded, same

from swin_lab import load_model
from swin_lab.imagenet import wordnet_ids
from swin_lab.run.dump import read_dump

STUDENT = [*TINY, "model.embed_dim=4", "data.num_workers=0", "model.drop_path_rate=0.2", "trainer.log_every_n_steps=1"]
SOFT = ["task=distillation", "task.kind=soft", "task.share=0.5", "mixing=imagenet", "ema=warm", "task.features=0.1"]


@pytest.fixture(scope="module")
def teacher(tiny_training: tuple[Path, Outcome]) -> Path:
    """The run directory of the teacher, of six classes."""
    return only_run(tiny_training[0]).resolve()


@pytest.fixture(scope="module")
def distilled(run_script: Command, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """The run directory of a distillation whose teacher is gone, and its outcome, for tests that only read them."""
    folder = tmp_path_factory.mktemp("distilled")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copytree(teacher, "teacher")
        before = {file: file.read_bytes() for file in Path("teacher").rglob("*.ckpt")}
        outcome = run_script("train", *STUDENT, *SOFT, "task.teacher=teacher")
        assert outcome.code == 0, outcome.err
        assert before == {file: file.read_bytes() for file in Path("teacher").rglob("*.ckpt")}
        shutil.rmtree("teacher")
    return only_run(folder).resolve(), outcome


def state(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return loaded


def losses(run: Path) -> list[str]:
    with (run / "metrics.csv").open(newline="") as file:
        return [row["train/loss"] for row in csv.DictReader(file) if row["train/loss"]]


def test_with_share_0_twenty_updates_equal_those_of_a_classification_to_the_bit(command: Command, teacher: Path) -> None:
    fixed = [*STUDENT, "mixing=imagenet", "trainer.max_epochs=5"]
    distillation = ["task=distillation", f"task.teacher={teacher}", "task.share=0"]
    assert command("train", *fixed, "out=plain").code == 0
    plain = only_run(Path("plain"))
    assert len(losses(plain)) == 20
    for kind in ("hard", "soft"):
        assert command("train", *fixed, *distillation, f"task.kind={kind}", f"out={kind}").code == 0
        taught = only_run(Path(kind))
        assert losses(taught) == losses(plain)
        assert gradient_norms(taught) == gradient_norms(plain)
        assert same(state(taught)["state_dict"], state(plain)["state_dict"])
        assert final_metrics(taught) == final_metrics(plain)


def test_no_checkpoint_contains_the_teacher(distilled: tuple[Path, Outcome], teacher: Path) -> None:
    run, _ = distilled
    checkpoint = state(run)
    names = {name.removeprefix("network.model.") for name in checkpoint["state_dict"]}
    extra = {name for name in names if name.startswith("network.adapters.")}
    own = {name.removeprefix("network.") for name in state(teacher)["state_dict"]}
    assert names - extra == own
    assert {name.removeprefix("network.model.") for name in checkpoint["ema"]} == names
    assert len(extra) == 4
    shapes = [tuple(tensor.shape) for name, tensor in checkpoint["state_dict"].items() if name.endswith("adapters.1.weight")]
    assert shapes == [(16, 8)]  # channels of the teacher's and the student's second stage
    weights = sum(len(group["params"]) for group in checkpoint["optimizer_states"][0]["param_groups"])  # type: ignore[call-overload]
    assert weights == len(names)


def test_the_start_tells_teacher_loss_and_images(distilled: tuple[Path, Outcome]) -> None:
    lines = [line.split(maxsplit=1) for line in distilled[1].out.splitlines() if line]
    texts = dict(line for line in lines if len(line) == 2)
    assert texts["teacher"].startswith("teacher, a SwinTransformer, ")
    assert texts["teaching"] == "soft at temperature 3, share 0.5, maps with weight 0.1; its images: as the student sees them"


def test_an_evaluation_needs_no_teacher_and_no_trust(distilled: tuple[Path, Outcome], command: Command) -> None:
    """The teacher of the run is gone; the batch size does not matter."""
    run, _ = distilled
    outcome = command("eval", f"checkpoint={run}", "out=evaluated", "batch=7")
    assert outcome.code == 0, outcome.err
    assert final_metrics(Path("evaluated"))["val/acc1"] == final_metrics(run)["val/acc1"]
    assert final_metrics(Path("evaluated"))["val/loss"] == pytest.approx(final_metrics(run)["val/loss"], abs=1e-6)


def test_a_prediction_needs_no_teacher(distilled: tuple[Path, Outcome], cli: Command) -> None:
    from PIL import Image

    Image.new("RGB", (40, 30), "red").save("red.png")
    outcome = cli("predict", distilled[0], "red.png", "-o", "out.csv", "--device", "cpu", "--workers", 0)
    assert outcome.code == 0, outcome.printed


def test_the_adapters_are_dropped_where_the_student_is_loaded(distilled: tuple[Path, Outcome]) -> None:
    run, _ = distilled
    model = load_model(run)
    saved = state(run, "best")["state_dict"]["network.model.head.weight"]  # type: ignore[index]
    assert torch.equal(model.head.weight, saved)
    assert not [name for name in model.state_dict() if "adapters" in name]


def test_a_run_that_was_stopped_continues_to_the_bit(distilled: tuple[Path, Outcome], command: Command, teacher: Path) -> None:
    Path("stop_distillation.py").write_text(
        "import os, signal\nfrom lightning import Callback\nclass Stop(Callback):\n"
        "    def on_train_batch_end(self, trainer, *_):\n"
        "        if trainer.global_step == 3: os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    shutil.copytree(teacher, "teacher")
    stop = "+callbacks.stop={_target_: stop_distillation.Stop}"
    assert command("train", *STUDENT, *SOFT, "task.teacher=teacher", stop).code == 75
    run = next(Path("runs/tiny").iterdir())
    outcome = command("train", f"resume={run}")
    assert outcome.code == 0, outcome.err
    assert same(state(run)["state_dict"], state(distilled[0])["state_dict"])
    assert final_metrics(run) == final_metrics(distilled[0])


def test_a_student_learns_from_a_published_model_of_timm(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its classes are those of the data here: the tiny model is said to have six."""
    torch.manual_seed(0)
    published = timm.create_model("test_resnet", num_classes=6)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: dict(published.state_dict()))
    refused = command("train", *STUDENT, "task=distillation", "task.teacher=timm:test_resnet")
    assert refused.code == 2
    assert "task.teacher=timm:test_resnet: the data has 6 classes and the checkpoint was trained on 1000" in refused.err
    cfg = timm.models.get_pretrained_cfg("test_resnet")
    cfg.num_classes = 6
    monkeypatch.setattr("swin_lab.models.external.timm_model.get_pretrained_cfg", lambda name: cfg)
    monkeypatch.setattr("timm.models._builder.resolve_pretrained_cfg", lambda *_, **__: cfg)
    outcome = command("train", *STUDENT, "task=distillation", "task.teacher=timm:test_resnet", "trainer.max_epochs=1")
    assert outcome.code == 0, outcome.err
    assert "a TimmModel" in outcome.out
    assert "resized from 32x32 to 160x160 (bilinear)" in outcome.out
    assert "normalised with mean (0.500, 0.500, 0.500)" in outcome.out


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "file"), [("timm", "teacher.safetensors"), ("huggingface", "teacher")])
def test_a_teacher_in_the_file_of_another_library_teaches_the_same(
    distilled: tuple[Path, Outcome], command: Command, cli: Command, teacher: Path, layout: str, file: str
) -> None:
    assert cli("convert", teacher, file, "--layout", layout).code == 0
    outcome = command("train", *STUDENT, *SOFT, f"task.teacher={file}")
    assert outcome.code == 0, outcome.err
    assert same(state(only_run(Path()))["state_dict"], state(distilled[0])["state_dict"])


def test_a_teacher_in_an_official_file_gets_images_of_imagenets_normalisation(
    command: Command, cli: Command, teacher: Path
) -> None:
    """Such a file has no preprocessing of its own, and the official models have this one."""
    assert cli("convert", teacher, "teacher.pth", "--layout", "official").code == 0
    outcome = command("train", *STUDENT, *SOFT, "task.teacher=teacher.pth", "trainer.max_epochs=1")
    assert outcome.code == 0, outcome.err
    assert "normalised with mean (0.485, 0.456, 0.406) and std (0.229, 0.224, 0.225)" in outcome.out


def test_a_teacher_of_other_classes_is_refused_before_anything_is_written(command: Command, teacher: Path) -> None:
    outcome = command("train", *STUDENT, "data.num_classes=7", "task=distillation", f"task.teacher={teacher}")
    assert outcome.code == 2
    assert "the data has 7 classes and the checkpoint was trained on 6" in outcome.err
    assert not Path("runs").exists()


def test_a_head_for_imagenet_is_refused_with_the_setting_of_the_teacher(command: Command, tmp_path: Path) -> None:
    from swin_lab import create_model, save_weights

    model = create_model("swin_micro_patch4_window4_32", num_classes=1000)
    assert len(wordnet_ids(1000) or ()) == 1000
    save_weights(model, tmp_path / "imagenet.safetensors", layout="timm")
    outcome = command("train", *STUDENT, "task=distillation", "task.teacher=imagenet.safetensors")
    assert outcome.code == 2
    assert "its head would be new (6 classes): the file has 1000 classes" in outcome.err
    assert "task.teacher_transfer.head=keep" in outcome.err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.teacher=nowhere", "task.teacher=nowhere: "),
        (
            "task.teacher=timm:resnet_of_nobody",
            "task.teacher=timm:resnet_of_nobody: model.name=resnet_of_nobody is not a model",
        ),
        ("task.teacher_transfer.ema=3", "task.teacher_transfer.ema=3 must be true or false"),
        ("+task.teacher_transfer.heads=keep", "unknown key task.teacher_transfer.heads; did you mean head?"),
        ("task.features=-1", "task.features=-1 must be a non-negative number"),
    ],
)
def test_a_teacher_that_cannot_be_opened_is_refused(command: Command, teacher: Path, override: str, message: str) -> None:
    words = [*STUDENT, "task=distillation", f"task.teacher={teacher}", override]
    outcome = command("train", *words)
    assert (outcome.code, message in outcome.err) == (2, True), outcome.err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("null", "callbacks.freezing keeps all but the head, and task.features trains maps of the stages"),
        ("3", "callbacks.freezing: 3 stages cannot be frozen; the model has 2"),
    ],
)
def test_a_student_of_maps_whose_stages_are_all_frozen_is_refused(
    command: Command, teacher: Path, stages: str, message: str
) -> None:
    words = [*STUDENT, *SOFT, f"task.teacher={teacher}", "callbacks=head_only", f"callbacks.freezing.stages={stages}"]
    outcome = command("train", *words)
    assert (outcome.code, message in outcome.err) == (2, True), outcome.err


def test_a_teacher_that_predicts_no_classes_is_refused(command: Command) -> None:
    words = [*TINY, "task=simmim", "task.mask_patch_size=8", "augment=simmim", "trainer.max_epochs=1", "out=first"]
    assert command("train", *words).code == 0
    outcome = command("train", *STUDENT, "task=distillation", f"task.teacher={only_run(Path('first'))}")
    assert outcome.code == 2
    assert "it was trained by SimMIM, whose outputs are not classes" in outcome.err


def test_a_replay_opens_the_teacher_of_a_trusted_dump_only(command: Command, cli: Command, teacher: Path) -> None:
    """The gradient of the run was spoiled after its backward pass, so that the loss of the replay is that of the run."""
    Path("spoil_distillation.py").write_text(
        "import torch\nfrom lightning import Callback\nclass Spoil(Callback):\n"
        "    def on_after_backward(self, trainer, module):\n"
        "        if trainer.global_step == 5: next(module.parameters()).grad.view(-1)[0] = torch.inf\n"
    )
    words = [*STUDENT, *SOFT, f"task.teacher={teacher}", "+callbacks.spoil={_target_: spoil_distillation.Spoil}"]
    assert command("train", *words).code == 2
    run = next(Path("runs/tiny").iterdir())
    dump = run / "nonfinite_6.pt"
    assert read_dump(str(dump))[1].update == 6
    refused = cli("replay", dump)
    assert (refused.code, "--trust" in refused.err) == (2, True), refused.printed
    shown = cli("replay", dump, "--trust")
    assert shown.code == 0, shown.printed
    recorded_loss = float(losses(run)[-1])
    assert f"{recorded_loss:.6g}" in shown.out


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ["trainer=ddp", "trainer.devices=2"],
        ["trainer=fsdp", "trainer.devices=2"],
        ["max_device_batch=auto"],
        ["max_device_batch=4", "mixing=none"],
        ["precision=bf16-mixed", "on_nonfinite=skip"],
        ["precision=bf16-true"],
    ],
    ids=lambda more: more[0],
)
def test_a_distillation_trains(process: Command, teacher: Path, tmp_path: Path, more: list[str]) -> None:
    outcome = process("train", *STUDENT, *SOFT, f"task.teacher={teacher}", "trainer.accelerator=cpu", *more)
    assert outcome.code == 0, outcome.err
    assert recorded(only_run(tmp_path))["run.state"] == "finished"


def test_the_benchmark_has_a_help() -> None:
    script = ROOT / "benchmarks" / "distillation_digits.py"
    done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
