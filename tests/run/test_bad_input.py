"""Wrong input: one to three lines of help, exit code 2, and nothing written or overwritten."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY, Command, Outcome
from PIL import Image


def assert_refused(outcome: Outcome, *parts: str) -> None:
    """Checks that a command was refused with a short message that contains these parts."""
    assert outcome.code == 2, outcome.printed
    assert outcome.err.startswith("error: ")
    assert len(outcome.err.strip().splitlines()) <= 3, outcome.err
    assert "Traceback" not in outcome.printed
    for part in parts:
        assert part in outcome.err


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("model=swin_tinny_patch4_window7_224", ["model=swin_tinny", "did you mean swin_tiny_patch4_window7_224?"]),
        ("data=imagnet", ["data=imagnet is unknown", "did you mean imagenet"]),
        ("model.windw_size=4", ["unknown key model.windw_size", "did you mean model.window_size?"]),
        ("trainer.max_epoch=5", ["trainer.max_epoch", "did you mean trainer.max_epochs?"]),
        ("max_epochs=5", ["unknown key max_epochs", "did you mean trainer.max_epochs?"]),
        ("modle=swin_micro_patch4_window4_32", ["unknown key modle", "did you mean model?"]),
        ("+model.windw_size=4", ["unknown key model.windw_size", "did you mean window_size?"]),
        ("+optimizer.momentum=0.9", ["unknown key optimizer.momentum"]),
        ("+data.rooot=/x", ["unknown key data.rooot"]),
        ("+trainer.max_epoch=5", ["unknown key trainer.max_epoch", "did you mean max_epochs?"]),
        ("+globl_batch=5", ["unknown key globl_batch", "did you mean global_batch?"]),
        ("model.num_heads=[3,5]", ["error: model.num_heads=[3, 5]", "8 channels of stage 1", "choose one of [1, 2, 4, 8]"]),
        ("model.depths=[2,2,2]", ["error: model.depths=[2, 2, 2] has 3 stages", "num_heads"]),
        ("model.depths=[2,0]", ["model.depths=[2, 0]", "positive integer"]),
        ("model.depths=[2,-1]", ["model.depths=[2, -1]", "positive integer"]),
        ("model.window_size=0", ["model.window_size=0", "positive integer"]),
        ("model.window_size=-4", ["model.window_size=-4", "positive integer"]),
        ("model.window_size=four", ["model.window_size=four", "positive integer"]),
        ("model.num_classes=7", ["model.num_classes=7", "6 classes"]),
        ("model.depths=[1000000000,2]", ["error: model.depths=[1000000000, 2] is too large"]),
        ("model.embed_dim=99999999", ["error: model.embed_dim=99999999 is too large"]),
        ("model.mlp_ratio=1e5", ["error: model.mlp_ratio=100000.0 is too large"]),
        ("model.img_size=1e21", ["error: model.img_size=1e+21 must be a positive integer"]),
        ("model.img_size=99999", ["error: model.img_size=99999 is too large"]),
        ("img_size=99999", ["error: img_size=99999 must be an integer of at least 1 and at most 16384"]),
        ("data.interpolation={a:1}", ["error: data.interpolation={'a': 1} must be one of nearest, bilinear"]),
        ("model.attention_backend=flash", ["error: model.attention_backend='flash'", "products, reference, sdpa, triton"]),
        ("model.in_channels=4", ["in_channels=4"]),
        ("optimizer.lr=-1e-3", ["optimizer.lr=-0.001"]),
        ("optimizer.lr=fast", ["optimizer.lr=fast"]),
        ("optimizer.lr_scaling=square", ["optimizer.lr_scaling=square", "did you mean sqrt?"]),
        ("schedule.warmup_epochs=-1", ["schedule.warmup_epochs=-1"]),
        ("task.label_smoothing=1.5", ["task.label_smoothing=1.5"]),
        ("global_batch=0", ["global_batch=0"]),
        ("global_batch=65", ["global_batch=65", "64 training images"]),
        ("trainer.devices=0", ["trainer"]),
        ("trainer.max_epochs=many", ["trainer"]),
        ("trainer.accelerator=gpuu", ["trainer", "gpuu"]),
        ("precision=bf17", ["precision", "bf17"]),
        ("seed=-1", ["seed=-1"]),
        ("name=a/b/c", ["name=a/b/c", "cannot be the name of a folder"]),
        ("name=../a", ["name=../a", "cannot be the name of a folder"]),
        ("data.on_error=ignore", ["data.on_error=ignore", "raise, skip"]),
        ("data.num_workers=-2", ["data.num_workers=-2"]),
        ("data.cache=device data.num_workers=2", ["data.num_workers=2 has no effect on data.cache=device"]),
        ("compile=maybe", ["compile=maybe is unknown; choose one of blocks, false, true"]),
        ("compile=block", ["compile=block is unknown; did you mean blocks?"]),
        ("compile=1", ["compile=1 must be one of false, true, blocks"]),
        (
            "compile=true compile_mode=reduce-overhead",
            ["reduce-overhead has no effect on the device cpu", "compile_mode=default"],
        ),
        ("trainer.limit_val_batches=0", ["trainer.limit_val_batches=0"]),
        ("augment=cifarr", ["augment=cifarr", "did you mean cifar?"]),
        ("=5", ["=5"]),
        ("+augment.tensor=[]", ["unknown key augment.tensor", "did you mean tensor_transforms?"]),
        ("augment.tensor_transforms=5", ["augment.tensor_transforms must be a list"]),
        ("trainer.gradient_clip_val=-1", ["trainer.gradient_clip_val=-1"]),
        ("trainer.check_val_every_n_epoch=0", ["trainer.check_val_every_n_epoch=0"]),
        ("trainer.max_steps=0", ["trainer.max_steps=0", "-1 for no limit"]),
        ("trainer.log_every_n_steps=0", ["trainer.log_every_n_steps=0", "positive integer"]),
        ("~trainer.max_epochs", ["trainer.max_epochs is missing"]),
        ("+trainer.val_check_interval=0", ["trainer.val_check_interval=0"]),
        ("+trainer.overfit_batches=2", ["trainer.overfit_batches", "limit_train_batches"]),
        ("augment.image_transforms=[3]", ["augment.image_transforms=3", "_target_"]),
        ("+callbacks.x={_target_:torch.nn.Identity}", ["callbacks.x._target_=torch.nn.Identity", "must make a Callback"]),
        ("schedule._target_=swin_lab.training.EmaConfig", ["schedule"]),
        ("+model._partial_=true", ["model._partial_=true", "remove it"]),
        ("+callbacks.x=3", ["callbacks.x=3", "_target_"]),
        ("optimizer._target_=builtins.dict", ["optimizer._target_=builtins.dict", "no signature"]),
        ("data._target_=null", ["data._target_=None cannot be imported"]),
        ("+trainer.fast_dev_run=true", ["trainer.fast_dev_run", "debug=limit"]),
        ("+trainer.precision=16", ["trainer.precision", "set precision=..."]),
        ("trainer.strategy=ddp_spawn", ["trainer.strategy=ddp_spawn", "trainer.strategy=ddp"]),
        ("trainer.strategy=ddp_fork", ["trainer.strategy=ddp_fork", "trainer.strategy=ddp"]),
        ("trainer.num_nodes=2", ["trainer.num_nodes=2", "torchrun"]),
        ("trainer.max_epochs=-1", ["trainer.max_epochs=-1", "set trainer.max_steps"]),
        ("trainer.accelerator=tpu", ["trainer", "torch_xla"]),
        ("+overfit_batches=1", ["unknown key overfit_batches"]),
        ("callbacks=[]", ["callbacks is missing"]),
        ("++callbacks.extra=1", ["callbacks.extra=1", "_target_"]),
        ("optimizer.betas=0.9", ["optimizer.betas=0.9"]),
        ("+transfer.drop_path_rate=0.3", ["unknown key transfer.drop_path_rate"]),
        ("+transfer.window_size=4", ["unknown key transfer.window_size"]),
        ("transfer.ema=true", ["transfer.ema=true", "no effect without weights"]),
        ("~mixing", ["mixing"]),
        ("out=${nothing}", ["nothing"]),
        ("seed=1,2", ["seed=1,2", "seed=[1,2]", "-m"]),
        ("model=null", ["model=null is not a choice"]),
        ("experiment=3", ["experiment=3 is not a choice"]),
        ("optimizer.layer_decay=0.5 model=torchvision name=resnet18", ["layer_decay", "layer_of"]),
        ("callbacks=head_only model=timm name=resnet10t", ["freezing", "freeze_stages"]),
        ("callbacks=early_stopping +callbacks.early_stopping.monitor=val/acc", ["val/acc", "did you mean val/acc"]),
        ("callbacks=early_stopping +callbacks.early_stopping.mode=maximum", ["mode=maximum is unknown"]),
        ("callbacks=early_stopping callbacks.early_stopping.patience=-1", ["patience=-1", "positive integer"]),
        ("augment=imagenet +augment.img_size=64", ["64x64", "the model takes 32x32"]),
        ("augment=imagenet augment.auto_augment=rand-mX", ["auto_augment=rand-mX", "'mX'"]),
    ],
)
def test_wrong_overrides_are_refused_in_a_few_lines_and_write_nothing(
    command: Command, tmp_path: Path, override: str, parts: list[str]
) -> None:
    given = override.split()
    base = [entry for entry in TINY if not (len(given) > 2 and entry.startswith(("model", "name")))]
    assert_refused(command("train", *base, *given), *parts)
    assert not list(tmp_path.iterdir())


def test_a_misspelt_key_in_a_file_is_refused_as_on_the_command_line(command: Command, tmp_path: Path) -> None:
    recipe = tmp_path / "recipes" / "experiment"
    recipe.mkdir(parents=True)
    (recipe / "mine.yaml").write_text("# @package _global_\nmodel:\n  windw_size: 4\n")
    (recipe / "top.yaml").write_text("# @package _global_\ntrianer:\n  max_epochs: 4\n")
    arguments = ["--config-dir", str(tmp_path / "recipes"), *TINY]
    assert_refused(command("train", *arguments, "experiment=mine"), "unknown key model.windw_size; did you mean window_size?")
    assert_refused(command("train", *arguments, "experiment=top"), "unknown key trianer; did you mean trainer?")
    assert not (tmp_path / "runs").exists()


def test_help_and_wrong_overrides_answer_before_torch_is_imported(tmp_path: Path) -> None:
    for arguments, code in ((["--help"], 0), (["model.windw_size=4"], 2), (["model=swin_tinny"], 2)):
        program = f"import sys; sys.argv = ['train.py', *{arguments}]; from swin_lab.run.entry import main\n"
        program += "try: code = main('train')\nexcept SystemExit as stop: code = stop.code\n"
        program += "print('torch' in sys.modules, code or 0)"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
        assert done.stdout.splitlines()[-1] == f"False {code}", done.stderr


def test_help_shows_groups_choices_and_keys(command: Command) -> None:
    printed = command("train", "--help").out
    for part in ("train.py -m optimizer.lr", "swin_tiny_patch4_window7_224", "digits", "global_batch: 32"):
        assert part in printed


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("none.ckpt", None, "does not exist"),
        ("empty.ckpt", b"", "is empty"),
        ("text.ckpt", b"weights, honestly\n" * 100, "is text, not weights"),
        ("folder", "folder", "is it a run directory?"),
    ],
)
def test_wrong_checkpoints_are_refused_with_the_reason(
    command: Command, tmp_path: Path, name: str, content: bytes | str | None, part: str
) -> None:
    if content == "folder":
        (tmp_path / name).mkdir()
    elif isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    assert_refused(command("eval", f"checkpoint={name}"), name, part)


def test_a_truncated_checkpoint_is_refused_and_not_changed(command: Command, tmp_path: Path) -> None:
    torch.save({"state_dict": {"weight": torch.ones(1000)}}, tmp_path / "whole.ckpt")
    damaged = tmp_path / "damaged.ckpt"
    damaged.write_bytes((tmp_path / "whole.ckpt").read_bytes()[:2000])
    assert_refused(command("eval", f"checkpoint={damaged}"), "damaged.ckpt is damaged")
    assert damaged.stat().st_size == 2000


def test_a_checkpoint_of_another_project_is_refused(command: Command, tmp_path: Path) -> None:
    torch.save({"model": {}, "optimizer": {}}, tmp_path / "foreign.pth")
    assert_refused(command("eval", "checkpoint=foreign.pth"), "foreign.pth", "no tensors by name")


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("data=cifar1O", ["data=cifar1O is unknown", "did you mean cifar10?"]),
        ("data=null", ["data=null is not a choice"]),
        ("task=classification", ["task cannot be chosen here", "task.flip"]),
        ("trainer.devices=1000", ["trainer.devices=1000", "cores"]),
        ("precision=''", ["precision=''"]),
        ("precision=0", ["precision=0"]),
        ("out=taken", ["taken is a file"]),
        ("out=''", ["out=''"]),
        ("+transfer.class_names=[a]", ["unknown key transfer.class_names"]),
        (
            "compile=true compile_mode=reduce-overhead trainer.accelerator=cpu",
            ["compile_mode=reduce-overhead has no effect on the device cpu"],
        ),
    ],
)
def test_wrong_overrides_of_an_evaluation_are_refused(
    command: Command, trained: Path, tmp_path: Path, override: str, parts: list[str]
) -> None:
    (tmp_path / "taken").write_text("precious")
    assert_refused(command("eval", f"checkpoint={trained}", *override.split()), *parts)
    assert (tmp_path / "taken").read_text() == "precious"
    assert not list(tmp_path.rglob("eval_*"))
    assert not (tmp_path / "taken_2").exists()


@pytest.mark.slow
def test_a_reader_that_leaves_early_is_no_interruption(tmp_path: Path) -> None:
    running = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *TINY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.readline()
    running.stdout.close()
    err = running.stderr.read()
    assert running.wait() != 130
    assert "interrupted" not in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("key", "value"), [("window_size", "abc"), ("window_size", "0"), ("img_size", "99999")])
def test_a_wrong_size_of_an_evaluation_is_refused_with_the_full_name_of_its_key(command: Command, key: str, value: str) -> None:
    assert_refused(command("eval", "checkpoint=any.pth", f"transfer.{key}={value}"), f"error: transfer.{key}={value} must be")


def test_eval_without_a_checkpoint_asks_for_one(command: Command) -> None:
    assert_refused(command("eval"), "error: checkpoint must be given: a run directory, a weight file of any layout")


def test_every_missing_value_is_named_with_its_comment_in_conf(command: Command) -> None:
    lines = ("error: data.root must be given: folder of the images\n", "data.targets must be given: file of the targets")
    assert_refused(command("train", "data=multilabel", "task=multilabel"), *lines)


def test_a_missing_value_without_a_comment_is_named_as_it_is_given(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "task").mkdir(parents=True)
    (tmp_path / "mine" / "task" / "mine.yaml").write_text("defaults: [classification, _self_]\nsmoothing: ???\n")
    assert (
        command("train", "--config-dir", "mine", "task=mine").err
        == "error: task.smoothing must be given: task.smoothing=VALUE\n"
    )


def images(folder: Path, count: int = 8) -> Path:
    """Writes two classes of small JPEGs in train/ and val/."""
    for split in ("train", "val"):
        for label, colour in (("blue", (0, 0, 250)), ("red", (250, 0, 0))):
            (folder / split / label).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (40, 36), colour).save(folder / split / label / f"{i}.jpg")
    return folder


FOLDER = [entry for entry in TINY if not entry.startswith("data")] + ["data=folder", "global_batch=8", "data.num_workers=0"]


def test_a_choice_that_is_only_a_base_of_others_is_refused(command: Command) -> None:
    assert_refused(command("train", "data=_loading"), "data=_loading is only a base of other choices", "folder")


def test_too_few_images_for_a_batch_are_refused(command: Command) -> None:
    assert_refused(command("train", *TINY, "trainer.limit_train_batches=0.01"), "trainer.limit_train_batches=0.01 leaves none")


def test_a_missing_data_root_is_named(command: Command) -> None:
    assert_refused(command("train", *FOLDER), "data.root must be given")


def test_a_missing_folder_is_named(command: Command, tmp_path: Path) -> None:
    assert_refused(command("train", *FOLDER, "data.root=nowhere"), "data.root=nowhere", str(tmp_path / "nowhere"))


def test_a_class_folder_without_images_is_named(command: Command, tmp_path: Path) -> None:
    root = images(tmp_path / "set")
    (root / "train" / "green").mkdir()
    (root / "val" / "green").mkdir()
    assert_refused(command("train", *FOLDER, f"data.root={root}"), str(root / "train" / "green"), "no images")
    assert not (tmp_path / "runs").exists()


def test_missing_cifar_files_name_the_folder_to_fill(command: Command, tmp_path: Path) -> None:
    overrides = [entry for entry in TINY if not entry.startswith("data")]
    outcome = command("train", *overrides, "data=cifar10", "data.root=images", "data.download=false")
    assert_refused(outcome, str(tmp_path / "images" / "cifar-10-batches-py"), "cifar-10-python.tar.gz")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_truncated_jpeg_stops_the_run_with_its_path(command: Command, tmp_path: Path, workers: int) -> None:
    root = images(tmp_path / "set")
    broken = root / "train" / "red" / "3.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    outcome = command("train", *FOLDER, f"data.root={root}", f"data.num_workers={workers}")
    assert_refused(outcome, str(broken), "data.on_error=skip")


@pytest.mark.parametrize("workers", [0, 2])
def test_validation_images_are_loaded_before_the_first_update(command: Command, tmp_path: Path, workers: int) -> None:
    root = images(tmp_path / "set")
    broken = next((root / "val" / "blue").iterdir())
    broken.write_bytes(b"no image")
    outcome = command("train", *FOLDER, f"data.root={root}", f"data.num_workers={workers}")
    assert_refused(outcome, str(broken), "data.on_error=skip")
    assert not list(tmp_path.rglob("*.ckpt"))


def test_unreadable_images_are_skipped_counted_and_reported(command: Command, tmp_path: Path) -> None:
    root = images(tmp_path / "set")
    (root / "train" / "red" / "3.jpg").write_bytes(b"no image")
    broken = root / "val" / "blue" / "0.jpg"
    broken.write_bytes(b"no image")
    outcome = command("train", *FOLDER, f"data.root={root}", "data.on_error=skip")
    assert outcome.code == 0, outcome.err
    assert "2 unreadable images" in outcome.out
    assert "15 images" in outcome.out
    (log,) = tmp_path.glob("runs/*/*/run.log")
    assert str(broken) in log.read_text()


def test_an_evaluation_skips_a_batch_without_a_readable_image(command: Command, tmp_path: Path) -> None:
    root = images(tmp_path / "set")
    assert command("train", *FOLDER, f"data.root={root}").code == 0
    (run,) = tmp_path.glob("runs/*/*")
    (root / "val" / "red" / "7.jpg").write_bytes(b"no image")
    assert_refused(command("eval", f"checkpoint={run}", "batch=1"), "7.jpg", "data.on_error=skip")
    assert_refused(command("eval", f"checkpoint={run}", "data.on_error=skip"), "+data.on_error=...")
    outcome = command("eval", f"checkpoint={run}", "batch=1", "+data.on_error=skip")
    assert outcome.code == 0, outcome.err
    assert "15 of 16" in outcome.out


@pytest.mark.parametrize("folder", ["/dev/null/runs", "/proc/runs"])
def test_a_run_directory_that_cannot_be_created_is_named(command: Command, folder: str) -> None:
    assert_refused(command("train", *TINY, f"out={folder}"), folder, "out=FOLDER")


@pytest.mark.slow
def test_a_full_disk_ends_the_run_with_a_message_that_names_the_checkpoints(tmp_path: Path) -> None:
    """A limit on the size of files has the same effect as a full disk: writing fails in the same calls."""
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)); "
    limited += f"sys.argv = ['train.py', *{TINY}]; from swin_lab.run.entry import main; sys.exit(main('train'))"
    done = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True, cwd=tmp_path)
    outcome = Outcome(done.returncode, done.stdout, done.stderr)
    (last,) = tmp_path.rglob("*.ckpt")  # Without the state of an optimizer, the checkpoint before the first update is smaller.
    assert_refused(outcome, "cannot write", "out=FOLDER", f"checkpoints so far: {last.relative_to(tmp_path)}")
    assert torch.load(last, weights_only=True)["global_step"] == 0


def test_a_key_of_a_group_without_a_choice_is_refused(command: Command) -> None:
    outcome = command("train", "mixing.mixup=0.5")
    assert (outcome.code, "unknown key mixing.mixup; mixing=imagenet has it" in outcome.err) == (2, True)


def test_an_unknown_recipe_is_refused_with_those_of_the_same_beginning(command: Command) -> None:
    outcome = command("train", "experiment=swin_tini")
    assert outcome.code == 2
    assert "choose one of swin_tiny" in outcome.err
    assert "others" in outcome.err
