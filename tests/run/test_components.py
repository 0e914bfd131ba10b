"""Components built from parts of the configuration: data, task, optimizer, model, preprocessing, augmentation."""

import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import TINY
from lightning import Callback
from torch import nn

from swin_lab import SwinTransformer
from swin_lab.data import Digits, LoaderConfig, Synthetic
from swin_lab.errors import UserError
from swin_lab.run.augmentation import build_augmentation
from swin_lab.run.components import Data, build_data, build_optimization, build_preprocessing, build_task
from swin_lab.run.instantiate import check_node
from swin_lab.run.model import build_model
from swin_lab.training import Cosine, DataDescription, EmaConfig

MODEL = {
    "_target_": "swin_lab.models.SwinTransformer",
    "img_size": 32,
    "embed_dim": 16,
    "depths": [2, 2],
    "num_heads": [1, 2],
    "window_size": 4,
    "num_classes": None,
}
ADAMW = {
    "_target_": "torch.optim.AdamW",
    "lr": 1e-3,
    "reference_batch": 64,
    "lr_scaling": "sqrt",
    "weight_decay": 0.05,
    "layer_decay": None,
    "betas": [0.9, 0.98],
}
COSINE = {"_target_": "swin_lab.training.Cosine", "warmup_epochs": 1, "warmup_lr_ratio": 0.1, "min_lr_ratio": 0.01}
SYNTHETIC = {"_target_": "swin_lab.data.Synthetic", "num_classes": 3, "train_images": 6, "val_images": 3}
CHECKPOINT = {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint"}
THREE = DataDescription(class_names=("a", "b", "c"))


def classification(data=THREE):
    return build_task({"_target_": "swin_lab.tasks.Classification", "mixing": {}}, data)


class Net(nn.Module):
    """A custom model without img_size."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3, num_classes)

    def forward(self, images):
        return self.head(images.mean(dim=(2, 3)))


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    module = ModuleType("custom")
    module.Net = Net
    monkeypatch.setitem(sys.modules, "custom", module)


def test_a_data_node_becomes_a_source_and_the_loader_settings():
    data = build_data(SYNTHETIC | {"num_workers": 0, "on_error": "skip", "crop_pct": 0.9})
    assert isinstance(data.source, Synthetic)
    assert data.loader == LoaderConfig(num_workers=0, on_error="skip", crop_pct=0.9)


def test_a_misspelt_key_of_the_loader_is_refused_with_the_nearest_one():
    with pytest.raises(UserError, match=r"unknown key data\.num_worker; did you mean num_workers\?"):
        build_data(SYNTHETIC | {"num_worker": 0})


def test_a_task_knows_classes_and_validation_images():
    data = build_data(SYNTHETIC)
    assert data.description.class_names == tuple(data.source.class_names)
    assert (data.description.num_val_images, data.description.val_image_name(2)) == (3, data.source.val.name(2))


def test_an_optimizer_node_is_split_into_recipe_and_arguments_of_the_class():
    optimizer = build_optimization(ADAMW, COSINE, {}).optimizer
    assert isinstance(optimizer.create, partial)
    assert (optimizer.create.func, optimizer.create.keywords) == (torch.optim.AdamW, {"betas": (0.9, 0.98)})
    assert (optimizer.lr, optimizer.reference_batch, optimizer.lr_scaling) == (1e-3, 64, "sqrt")


def test_schedule_and_ema_are_built_and_none_is_none():
    optimization = build_optimization(ADAMW, COSINE, {})
    assert (type(optimization.schedule), optimization.ema) == (Cosine, None)
    node = {"_target_": "swin_lab.training.EmaConfig", "decay": 0.9}
    assert build_optimization(ADAMW, COSINE, node).ema == EmaConfig(decay=0.9)


@pytest.mark.parametrize(
    ("target", "settings"),
    [
        ("torch.optim.SGD", {"momentum": 0.9}),
        ("torch.optim.RMSprop", {}),
        ("timm.optim.Lion", {"betas": [0.9, 0.99]}),
        ("timm.optim.Lamb", {}),
    ],
)
def test_any_optimizer_of_torch_or_timm_has_the_groups_and_learning_rate_scaling_of_the_recipe(target, settings):
    node = {key: value for key, value in ADAMW.items() if key != "betas"} | {"_target_": target} | settings
    network = swin(MODEL)
    optimizer = build_optimization(node, COSINE, {}).optimizer.build(network, 256, allow_fused=False)
    assert type(optimizer).__name__ == target.rpartition(".")[2]
    assert {group["lr"] for group in optimizer.param_groups} == {2e-3}  # the square root of 256 / 64
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.05, 0.0]
    before = [parameter.clone() for parameter in network.parameters()]
    network(torch.randn(2, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def swin(node):
    return build_model(node, classification()).network


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"betas": [0.9]}, r"optimizer\.betas=\[0\.9\] must be a list of 2 numbers"),
        ({"betas": [0.9, 1.0]}, r"optimizer\.betas=\[0\.9, 1\.0\] must be a list of 2 numbers, each at least 0 and below 1"),
        ({"beta": [0.9, 0.99]}, r"unknown key optimizer\.beta; did you mean betas\?"),
        ({"reference_bach": 3}, r"unknown key optimizer\.reference_bach; did you mean reference_batch\?"),
        ({"_target_": "torch.optim.Rprop"}, r"unknown key optimizer\.betas"),
    ],
    ids=str,
)
def test_an_invalid_optimizer_setting_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        build_optimization(ADAMW | changes, COSINE, {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"foreach": True, "fused": True}, "^optimizer: AdamW refuses its settings: .*foreach"),
        ({"maximize": True}, r"^optimizer\.maximize=true must be false; a run minimises the loss$"),
    ],
    ids=str,
)
def test_a_setting_that_the_optimizer_or_the_run_refuses_is_one_line(changes, message):
    with pytest.raises(UserError, match=message):
        build_optimization(ADAMW | changes, COSINE, {})


def test_the_default_of_adafactor_may_be_given():
    node = {key: value for key, value in ADAMW.items() if key != "betas"} | {"_target_": "torch.optim.Adafactor"}
    optimizer = build_optimization(node | {"eps": [None, 0.001]}, COSINE, {}).optimizer
    assert optimizer.create.keywords["eps"] == (None, 0.001)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("lightning.pytorch.callbacks.LearningRateFinder", "set optimizer.lr"),
        ("lightning.pytorch.callbacks.BatchSizeFinder", "set max_device_batch"),
        ("lightning.pytorch.callbacks.GradientAccumulationScheduler", "set global_batch and max_device_batch"),
        ("lightning.pytorch.callbacks.StochasticWeightAveraging", "ema=warm"),
        ("lightning.pytorch.callbacks.EMAWeightAveraging", "ema=warm"),
        ("lightning.pytorch.callbacks.BackboneFinetuning", "callbacks=unfreeze"),
        ("lightning.pytorch.callbacks.SpikeDetection", "remove it"),
        ("lightning.pytorch.callbacks.TQDMProgressBar", "a run has one already"),
        ("lightning.pytorch.callbacks.DeviceStatsMonitor", "needs the package psutil: pip install psutil"),
        ("lightning.pytorch.loggers.CSVLogger", "makes a CSVLogger; it must make a Callback"),
    ],
)
def test_a_callback_that_contradicts_the_run_or_lacks_a_package_is_refused(monkeypatch, target, message):
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(UserError, match=rf"^callbacks\.x\._target_={target} .*{message}$"):
        check_node("callbacks.x", {"_target_": target}, ("monitor", "mode"), Callback)


@pytest.mark.parametrize(
    ("key", "value"),
    [("filename", "best"), ("filename", "last"), ("save_last", True), ("mode", "most"), ("dirpath", "/proc/x")],
)
def test_a_further_checkpoint_must_not_replace_those_of_the_run(key, value):
    with pytest.raises(UserError, match=rf"^callbacks\.x\.{key}="):
        check_node("callbacks.x", CHECKPOINT | {key: value}, (), Callback)


def test_further_checkpoints_are_written_beside_those_of_the_run(command):
    nodes = {"all": "save_top_k:-1", "top": "monitor:val/acc1,mode:max,filename:top"}
    given = [f"+callbacks.{key}={{_target_:{CHECKPOINT['_target_']},{settings}}}" for key, settings in nodes.items()]
    done = command("train", *TINY, *given)
    assert done.code == 0, done.err
    names = {file.name for file in Path("runs").rglob("*.ckpt")}
    assert names == {"best.ckpt", "last.ckpt", "previous.ckpt", "top.ckpt", "epoch=0-step=4.ckpt", "epoch=1-step=8.ckpt"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            [f"+callbacks.{key}={{_target_:lightning.pytorch.callbacks.ModelCheckpoint}}" for key in "ab"],
            "trainer: Found more than",
        ),
        (["trainer.limit_train_batches=0.01"], "trainer.limit_train_batches=0.01 leaves none of 4 batches"),
        (["+trainer.val_check_interval=1000"], "trainer.val_check_interval=1000 is more than the 4 training batches"),
    ],
    ids=str,
)
def test_what_does_not_fit_together_is_refused_before_the_run_directory_exists(command, given, message):
    done = command("train", *TINY, *given)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert message in done.err
    assert not Path("runs").exists()


def test_weight_decay_is_not_dropped_silently_by_an_optimizer_without_it():
    node = {key: value for key, value in ADAMW.items() if key != "betas"} | {"_target_": "torch.optim.Rprop"}
    with pytest.raises(UserError, match=r"optimizer\.weight_decay=0\.05: Rprop has no weight decay; set it to 0"):
        build_optimization(node, COSINE, {})


def test_a_model_has_as_many_classes_as_the_data():
    model = build_model(MODEL, classification())
    assert isinstance(model.network, SwinTransformer)
    assert model.network(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    assert model.node == MODEL | {"num_classes": 3}
    assert model.img_size == (32, 32)


def test_the_data_s_number_of_classes_may_be_given_as_well():
    assert build_model(MODEL | {"num_classes": 3}, classification()).network.head.out_features == 3


def test_another_number_of_classes_than_the_data_has_is_refused():
    with pytest.raises(UserError, match=r"model\.num_classes=1000 but the task needs 3 classes; leave model\.num_classes out"):
        build_model(MODEL | {"num_classes": 1000}, classification())


def test_a_custom_model_needs_no_registration_and_no_img_size():
    model = build_model({"_target_": "custom.Net"}, classification(), img_size=64)
    assert model.network.head.out_features == 3
    assert model.img_size == (64, 64)


def test_a_custom_model_without_any_size_gets_that_of_imagenet_recipes():
    assert build_model({"_target_": "custom.Net"}, classification()).img_size == (224, 224)


def test_a_size_that_contradicts_the_model_is_refused():
    with pytest.raises(UserError, match=r"img_size=64 differs from the 32x32 pixels of the model; set model\.img_size"):
        build_model(MODEL, classification(), img_size=64)


def test_preprocessing_measures_what_is_not_given():
    model = build_model(MODEL, classification())
    loader = LoaderConfig(std=(0.5, 0.5, 0.5))
    built = build_preprocessing(model, Data(Synthetic(), loader), loader, None)
    assert built.std == (0.5, 0.5, 0.5)
    assert all(0.3 < value < 0.7 for value in built.mean)
    assert (built.img_size, built.channels) == ((32, 32), 3)


def test_preprocessing_of_a_network_for_greyscale_images_has_one_channel():
    model = build_model(MODEL | {"in_channels": 1, "img_size": [32, 48]}, classification())
    built = build_preprocessing(model, Data(Digits(), LoaderConfig()), LoaderConfig(), None)
    assert (built.img_size, built.channels, len(built.mean), len(built.std)) == ((32, 48), 1, 1, 1)


def test_transforms_get_the_size_that_they_are_not_given():
    model = build_model(MODEL, classification())
    preprocessing = build_preprocessing(model, Data(Synthetic(), LoaderConfig()), LoaderConfig(), None)
    crop, noise = ({"_target_": f"torchvision.transforms.v2.{name}"} for name in ("RandomCrop", "GaussianNoise"))
    node = {"image_transforms": [crop, crop | {"size": 8}], "tensor_transforms": [noise]}
    augmentation = build_augmentation(node, preprocessing)
    assert [tuple(step.size) for step in augmentation.image_transforms] == [(32, 32), (8, 8)]
    assert augmentation.tensor_transforms[0].mean == 0  # its own default, not the mean of the data


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"image_transforms": []}, r"augment\.tensor_transforms must be a list of transforms"),
        ({"image_transforms": [], "tensor_transforms": [], "x": 1}, r"unknown key augment\.x"),
    ],
)
def test_an_augmentation_that_is_not_two_lists_is_refused(node, message):
    model = build_model(MODEL, classification())
    preprocessing = build_preprocessing(model, Data(Synthetic(), LoaderConfig()), LoaderConfig(), None)
    with pytest.raises(UserError, match=message):
        build_augmentation(node, preprocessing)
