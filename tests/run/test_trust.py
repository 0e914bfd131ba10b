"""A checkpoint imports, interpolates, writes, downloads and allocates nothing that its user did not ask for.

Canaries: a module that writes a file when it is imported, a secret in an environment variable, and sockets that end the test.
"""

import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import Command
from omegaconf import OmegaConf
from safetensors.torch import save_file

from swin_lab import SwinConfig, SwinTransformer, load_model
from swin_lab.errors import UserError
from swin_lab.metadata import METADATA_KEY, Metadata, RunMetadata
from swin_lab.models.external import TimmModel, TorchvisionModel
from swin_lab.paths import CONF
from swin_lab.preprocessing import Preprocessing
from swin_lab.run import instantiate
from swin_lab.run import restore as run_restore
from swin_lab.run.stored import images_at_once
from swin_lab.run.trust import OWN_CLASSES, needs_trust
from swin_lab.weights import Contents, read_source, save_weights

SWIN = "swin_lab.models.SwinTransformer"
NETWORK = {"img_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4, "num_classes": 3}
DATA = {"_target_": "swin_lab.data.Synthetic", "num_classes": 3, "train_images": 6, "val_images": 6, "num_workers": 0}
TASK = {"_target_": "swin_lab.tasks.Classification", "label_smoothing": 0.1, "mixing": {}}
PREPROCESSING = Preprocessing.for_data(
    img_size=(32, 32), channels=3, crop_pct=1.0, interpolation="bicubic", mean=[0.5] * 3, std=[0.25] * 3
)
CANARY = {"_target_": "canary.Bird"}
SECRET = "secret-4711"


@pytest.fixture(autouse=True)
def canaries(tmp_path, monkeypatch):
    """Sets all canaries."""
    (tmp_path / "canary.py").write_text("open('sung', 'w').close()\nclass Bird: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SWIN_LAB_TEST_SECRET", SECRET)

    def connect(*_args, **_kwargs):
        pytest.fail("something connects to the network")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)


def network():
    torch.manual_seed(0)
    return SwinTransformer(SwinConfig(**NETWORK))


def written(folder, *, model=None, data=None, task=None, net=None, size=32, **config):
    """Writes the checkpoint of a run with nodes of another origin; returns its path."""
    nodes = {"data": data or DATA, "task": task or TASK, **config}
    metadata = Metadata(
        model={"_target_": SWIN, **NETWORK} if model is None else model,
        class_names=("pattern 0", "pattern 1", "pattern 2"),
        preprocessing=replace(PREPROCESSING, img_size=(size, size)),
        run=RunMetadata(precision="32-true", device_batch=4, config=nodes),
    )
    state = {f"network.{name}": tensor for name, tensor in (net or network()).state_dict().items()}
    torch.save({METADATA_KEY: metadata.as_dict(), "state_dict": state}, folder / "a.ckpt")
    return folder / "a.ckpt"


def assert_refused(outcome, *parts):
    assert outcome.code == 2, outcome.printed
    assert 1 <= len(outcome.err.strip().splitlines()) <= 3, outcome.err
    for part in parts:
        assert part in outcome.err
    assert not Path("sung").exists()
    assert not list(Path().glob("eval_*"))


def test_an_honest_checkpoint_is_evaluated(command: Command, tmp_path):
    outcome = command("eval", f"checkpoint={written(tmp_path)}", "trainer.accelerator=cpu")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("teacher", ["owner/name", "timm:test_resnet", "/dev/zero", "nowhere", "https://a.example/b.pth"])
def test_an_evaluation_does_not_open_the_teacher_that_a_file_names(command: Command, tmp_path, monkeypatch, teacher):
    for name in ("read_source", "locate"):
        monkeypatch.setattr(f"swin_lab.run.teacher.{name}", lambda source: pytest.fail(f"{source} is opened"))
    task = TASK | {"_target_": "swin_lab.tasks.Distillation", "teacher": teacher, "feature_stages": [0], "features": 0.5}
    outcome = command("eval", f"checkpoint={written(tmp_path, task=task)}", "trainer.accelerator=cpu")
    assert outcome.code == 0, outcome.err


def test_a_checkpoint_may_ask_for_a_swin_mlp(command: Command, tmp_path):
    node = {"_target_": SWIN, **NETWORK, "token_mixer": "mlp"}
    net = SwinTransformer(SwinConfig(**NETWORK, token_mixer="mlp"))
    outcome = command("eval", f"checkpoint={written(tmp_path, model=node, net=net)}", "trainer.accelerator=cpu")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"token_mixer": CANARY}, "canary.Bird"),
        ({"token_mixer": "conv"}, "token_mixer=conv is unknown"),
        ({"token_mixer": "mlp"}, "lacks"),
        ({"token_mixer": "mlp", "img_size": 512, "window_size": 128}, "a network of 302,018,307 parameters"),
    ],
)
def test_a_checkpoint_that_asks_for_another_token_mixer_than_its_weights_have_is_refused(
    command: Command, tmp_path, changes, part
):
    """A window MLP of 128 x 128 tokens would have 2^28 weights per head."""
    outcome = command("eval", f"checkpoint={written(tmp_path, model={'_target_': SWIN, **NETWORK, **changes})}")
    assert_refused(outcome, part)


# Imports


FOREIGN = {
    "model": {"model": CANARY},
    "data": {"data": CANARY},
    "task": {"task": CANARY},
    "a value of the model": {"model": {"_target_": SWIN, **NETWORK, "img_size": CANARY}},
    "a list": {"data": DATA | {"mean": [CANARY, 0.5, 0.5]}},
    "a list in a mapping": {"data": DATA | {"mean": {"a": [CANARY]}}},
    "the mixing of the task": {"task": TASK | {"mixing": CANARY}},
    "a teacher": {"task": TASK | {"_target_": "swin_lab.tasks.Distillation", "teacher": CANARY}},
    "a data set of MapDataset": {"data": {"_target_": "swin_lab.data.MapDataset", "train": CANARY}},
    "a partial": {"task": TASK | {"mixing": CANARY | {"_partial_": True}}},
    "arguments by position": {"data": DATA | {"_args_": [CANARY]}},
    "a conversion": {"data": DATA | {"_convert_": CANARY}},
}


@pytest.mark.parametrize("nodes", FOREIGN.values(), ids=FOREIGN)
def test_a_class_from_elsewhere_is_not_imported(command: Command, tmp_path, nodes):
    outcome = command("eval", f"checkpoint={written(tmp_path, **nodes)}")
    assert_refused(outcome, str(tmp_path / "a.ckpt"), "canary.Bird", "trust=true")


def test_the_canary_of_that_test_is_imported_with_trust(command: Command, tmp_path):
    assert command("eval", f"checkpoint={written(tmp_path, model=CANARY)}", "trust=true").code == 2
    assert Path("sung").exists()


@pytest.mark.parametrize("trust", ["no", "'true'", "1", "[true]", "null", "yes"])
def test_trust_is_a_boolean(command: Command, tmp_path, trust):
    outcome = command("eval", f"checkpoint={written(tmp_path, data=CANARY)}", f"trust={trust}")
    assert_refused(outcome, "trust", "true or false")


def test_a_class_that_the_user_gives_needs_no_trust_and_drops_the_file_s_keys(command: Command, tmp_path):
    file = written(tmp_path, data=DATA | {"mean": CANARY}, task=TASK | {"mixing": CANARY})
    given = ["data=synthetic", "data.num_classes=3", "data.val_images=4", "+task._target_=swin_lab.tasks.Classification"]
    outcome = command("eval", f"checkpoint={file}", *given, "trainer.accelerator=cpu")
    assert outcome.code == 0, outcome.err
    assert not Path("sung").exists()


@pytest.mark.parametrize("name", ["swin_lab.data.Nope", "swin_lab.models.SwinTransformer.__init__", "swin_lab.metadata.json"])
def test_a_name_of_swin_lab_that_this_version_does_not_have_is_not_a_matter_of_trust(command: Command, tmp_path, name):
    outcome = command("eval", f"checkpoint={written(tmp_path, data={'_target_': name})}")
    assert_refused(outcome, name, "another version")
    assert "trust" not in outcome.err


@pytest.mark.parametrize("where", ["model", "data", "task"])
@pytest.mark.parametrize("key", ["_partial_", "_recursive_", "_args_", "further"])
def test_keys_that_a_file_may_not_set_are_refused(command: Command, tmp_path, where, key):
    node = {"model": {"_target_": SWIN, **NETWORK}, "data": DATA, "task": TASK}[where]
    assert_refused(command("eval", f"checkpoint={written(tmp_path, **{where: node | {key: True}})}"), "a.ckpt", key)


@pytest.mark.parametrize("target", [SWIN, "swin_lab.data.Digits", 3])
def test_a_class_of_ours_in_the_wrong_place_is_refused(command: Command, tmp_path, target):
    assert_refused(command("eval", f"checkpoint={written(tmp_path, task={'_target_': target})}"), str(target))


def native(folder, model, name):
    """Writes a file of `save_weights` whose metadata describes another model."""
    file = save_weights(network(), folder / name)
    metadata = Metadata(model=model).as_dict()
    if name.endswith(".pth"):
        torch.save(torch.load(file) | {METADATA_KEY: metadata}, file)
    else:
        save_file(network().state_dict(), file, {METADATA_KEY: json.dumps(metadata)})
    return file


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
@pytest.mark.parametrize(
    "arguments", [["inspect", "FILE"], ["convert", "FILE", "out.pth"], ["export", "FILE", "out.pt2"]], ids=lambda a: a[0]
)
def test_no_command_imports_a_class_of_a_file(cli: Command, tmp_path, arguments, name):
    file = native(tmp_path, CANARY, name)
    assert_refused(cli(*(str(file) if argument == "FILE" else argument for argument in arguments)), "canary.Bird")


def test_neither_load_model_nor_training_imports_a_class_of_a_file(command: Command, tmp_path):
    file = native(tmp_path, CANARY, "a.pth")
    assert_refused(command("train", f"weights={file}", "data=synthetic"), "canary.Bird")
    with pytest.raises(UserError, match=r"canary\.Bird"):
        load_model(file)
    assert not Path("sung").exists()


def test_a_folder_of_transformers_imports_no_code_beside_the_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = save_weights(network(), tmp_path / "hf", "huggingface")
    (folder / "canary.py").write_text((tmp_path / "canary.py").read_text())
    config = json.loads((folder / "config.json").read_text())
    further = {"auto_map": {"AutoConfig": "canary.Bird", "AutoModel": "canary.Bird"}, "_target_": "canary.Bird"}
    (folder / "config.json").write_text(json.dumps(config | further))
    load_model(folder)
    assert not Path("sung").exists()


# Interpolations

INTERPOLATION = "${oc.env:SWIN_LAB_TEST_SECRET}"


@pytest.mark.parametrize(
    "nodes",
    [
        {"data": DATA | {"_target_": "swin_lab.data.Folder", "root": f"hf://datasets/x/{INTERPOLATION}"}},
        {"data": {"_target_": "swin_lab.data.Folder", "root": INTERPOLATION}},
        {"task": TASK | {"mixing": INTERPOLATION}},
        {"task": TASK | {INTERPOLATION: 1}},
        {"data": {"_target_": INTERPOLATION}},
    ],
    ids=["root", "a whole value", "a group", "a key", "a class"],
)
def test_interpolations_in_a_file_are_refused(command: Command, tmp_path, nodes):
    outcome = command("eval", f"checkpoint={written(tmp_path, **nodes)}")
    assert_refused(outcome, "without control characters and interpolations")
    assert SECRET not in outcome.printed


def test_interpolations_elsewhere_in_the_configuration_are_not_resolved(command: Command, tmp_path):
    file = written(tmp_path, name=INTERPOLATION, logger={"x": {"_target_": "canary.Bird", "project": INTERPOLATION}})
    outcome = command("eval", f"checkpoint={file}", "out=here", "trainer.accelerator=cpu")
    assert outcome.code == 0, outcome.err
    assert SECRET not in outcome.printed
    assert not any(SECRET in written_file.read_text(errors="ignore") for written_file in (tmp_path / "here").glob("*"))


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_interpolations_in_metadata_are_refused(tmp_path, name):
    with pytest.raises(UserError, match="interpolations"):
        load_model(native(tmp_path, {"_target_": SWIN, **NETWORK, "attention_backend": INTERPOLATION}, name))


# Network


def test_a_file_does_not_download_its_data(command: Command, tmp_path):
    data = {"_target_": "swin_lab.data.Cifar", "variant": "cifar10", "root": "made", "download": True}
    assert_refused(command("eval", f"checkpoint={written(tmp_path, data=data)}"), "+data.download=true")
    assert not Path("made").exists()


def test_a_file_without_the_key_does_not_download_its_data_either(command: Command, tmp_path):
    data = {"_target_": "swin_lab.data.Cifar", "variant": "cifar100", "root": "made"}
    assert_refused(command("eval", f"checkpoint={written(tmp_path, data=data)}"), "+data.download=true")
    assert not Path("made").exists()


@pytest.mark.parametrize("given", [["+data.download=true"], ["trust=true"], ["data=cifar10"]])
def test_a_user_s_own_word_downloads_data(command: Command, tmp_path, given):
    data = {"_target_": "swin_lab.data.Cifar", "variant": "cifar10", "root": "made", "download": True}
    with pytest.raises(pytest.fail.Exception, match="connects"):
        command("eval", f"checkpoint={written(tmp_path, data=data)}", *given)


ELSEWHERE = {
    "parquet": {"data": {"_target_": "swin_lab.data.Parquet", "root": "hf://datasets/owner/name"}},
    "imagenet": {"data": {"_target_": "swin_lab.data.ImageNet", "variant": "imagenet1k", "root": "hf://datasets/owner/name"}},
    "timm, pretrained": {
        "model": {"_target_": "swin_lab.models.external.TimmModel", "name": "resnet10t", "num_classes": 3, "pretrained": True}
    },
    "timm, hub": {
        "model": {"_target_": "swin_lab.models.external.TimmModel", "name": "hf-hub:timm/resnet10t", "num_classes": 3}
    },
    "torchvision, pretrained": {
        "model": {
            "_target_": "swin_lab.models.external.TorchvisionModel",
            "name": "resnet18",
            "num_classes": 3,
            "pretrained": True,
        }
    },
    "transformers": {
        "model": {"_target_": "swin_lab.models.external.TransformersModel", "name": "owner/name", "num_classes": 3}
    },
}


@pytest.mark.parametrize("nodes", ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_file_connects_to_no_host(command: Command, tmp_path, nodes):
    assert_refused(command("eval", f"checkpoint={written(tmp_path, **nodes)}"), str(tmp_path / "a.ckpt"))


# Memory


def synthetic(**changes):
    return {"data": DATA | changes}


def swin(**changes):
    return {"model": {"_target_": SWIN, **NETWORK, **changes}}


def timm(**changes):
    return {"model": {"_target_": "swin_lab.models.external.TimmModel", "name": "resnet10t", "num_classes": 3, **changes}}


HUGE = {
    "depths": swin(depths=[10**9, 1]),
    "many blocks": swin(depths=[900, 1]),
    "embed_dim": swin(embed_dim=10**9),
    "img_size": swin(img_size=10**8),
    "num_classes": swin(num_classes=10**9),
    "window_size": swin(window_size=10**9, img_size=4096, patch_size=1),
    "train_images": synthetic(train_images=10**12),
    "images of synthetic": synthetic(val_images=10**6, img_size=512),
    "classes of synthetic": synthetic(num_classes=10**9),
    "img_size of digits": {"data": {"_target_": "swin_lab.data.Digits", "img_size": 10**6}},
    "num_workers": synthetic(num_workers=10**6),
    "cache_mib": synthetic(cache_mib=10**9),
    "classes of lists": {
        "data": {"_target_": "swin_lab.data.Listed", "root": ".", "train_list": "a", "val_list": "a", "num_classes": 10**9}
    },
    "a device as a list": {
        "data": {"_target_": "swin_lab.data.Listed", "root": ".", "train_list": "/dev/zero", "val_list": "/dev/zero"}
    },
    "parquet in memory": {"data": {"_target_": "swin_lab.data.Parquet", "root": ".", "in_memory": True}},
    "img_size of timm": timm(img_size=10**8),
    "num_classes of timm": timm(num_classes=10**9),
}


@pytest.mark.parametrize("nodes", HUGE.values(), ids=HUGE)
def test_sizes_in_a_file_are_bounded_before_anything_is_built(command: Command, tmp_path, monkeypatch, nodes):
    file = written(tmp_path, **nodes)
    given = [] if "data" in nodes else ["data=synthetic", "data.num_classes=3"]
    call, build = instantiate._call, SwinTransformer.__init__

    def only_given(where, *arguments):
        assert where in (("data", "task", "trainer") if given else ("trainer",))
        return call(where, *arguments)

    def without_memory(self, config):
        assert torch.empty(0).device.type == "meta"
        build(self, config)

    monkeypatch.setattr(instantiate, "_call", only_given)
    monkeypatch.setattr(SwinTransformer, "__init__", without_memory)
    assert_refused(command("eval", f"checkpoint={file}", *given), "a.ckpt")


def test_a_model_of_timm_is_not_built_for_weights_of_another(command: Command, tmp_path, monkeypatch):
    built = []
    build = TimmModel.__init__

    def counted(self, *args, **kwargs):
        build(self, *args, **kwargs)
        built.append(next(self.parameters()).device.type)

    file = written(tmp_path, **timm(name="vit_giant_patch14_224"), net=TimmModel("resnet10t", 3), size=224)
    monkeypatch.setattr(TimmModel, "__init__", counted)
    assert_refused(command("eval", f"checkpoint={file}"), "does not fit a TimmModel")
    assert built == ["meta"]


def test_a_model_of_timm_is_evaluated_without_trust(command: Command, tmp_path):
    file = written(tmp_path, **timm(img_size=32), net=TimmModel("resnet10t", 3))
    assert command("eval", f"checkpoint={file}", "trainer.accelerator=cpu").code == 0


@pytest.mark.parametrize(("size", "batch"), [((32, 32), 2**15), ((2048, 2048), 8), ((224, 224), 668)])
def test_the_images_at_once_are_bounded(tmp_path, size, batch):
    metadata = read_source(written(tmp_path)).metadata
    contents = Contents(tmp_path, {}, replace(metadata, run=replace(metadata.run, device_batch=2**20)))
    preprocessing = replace(PREPROCESSING, img_size=size)
    assert images_at_once(None, contents, preprocessing) == batch
    assert images_at_once(None, contents, preprocessing, trust=True) == 2**20
    assert images_at_once(5, contents, preprocessing) == 5


@pytest.mark.parametrize("changes", [{"img_size": (4096, 1025)}, {"img_size": (1000, 1000), "crop_pct": 0.2}])
def test_large_images_need_a_given_batch(tmp_path, changes):
    contents = read_source(written(tmp_path))
    with pytest.raises(UserError, match="batch=1"):
        images_at_once(None, contents, replace(PREPROCESSING, **changes))


@pytest.mark.parametrize("has_metadata", [True, False])
def test_large_windows_need_trust(command: Command, tmp_path, has_metadata):
    windows = {"img_size": 260, "window_size": 65, "depths": [1, 1]}
    net = SwinTransformer(SwinConfig(**NETWORK | windows))
    file = written(tmp_path, model={"_target_": SWIN, **NETWORK, **windows}, net=net)
    if not has_metadata:
        torch.save(net.state_dict(), file)
    assert_refused(command("eval", f"checkpoint={file}", "data=synthetic", "data.num_classes=3"), "windows of 65", "trust=true")


def test_a_model_of_timm_that_keeps_large_indices_needs_trust(command: Command, tmp_path, monkeypatch):
    monkeypatch.setattr(run_restore, "MAX_BUFFER_BYTES", 2**20)
    node = timm(name="beitv2_base_patch16_224", img_size=224)
    file = written(tmp_path, **node, size=224)
    assert_refused(command("eval", f"checkpoint={file}"), "bytes besides its weights", "trust=true")


def test_a_regnet_is_not_built_for_weights_of_another(command: Command, tmp_path, monkeypatch):
    built = []
    build = TorchvisionModel.__init__

    def counted(self, *args, **kwargs):
        build(self, *args, **kwargs)
        built.append({parameter.device.type for parameter in self.parameters()})

    node = {"_target_": "swin_lab.models.external.TorchvisionModel", "name": "regnet_y_128gf", "num_classes": 3}
    file = written(tmp_path, model=node, size=384)
    monkeypatch.setattr(TorchvisionModel, "__init__", counted)
    assert_refused(command("eval", f"checkpoint={file}"), "does not fit a TorchvisionModel")
    assert built == [{"meta"}]


def test_a_model_for_another_image_size_than_its_preprocessing_is_refused(command: Command, tmp_path):
    file = written(tmp_path, **timm(name="vit_tiny_patch16_224"), net=TimmModel("vit_tiny_patch16_224", 3))
    assert_refused(command("eval", f"checkpoint={file}"), "a.ckpt", "(224, 224)", "(32, 32)")


# The list


def choices(group):
    """Returns the nodes of a group's choices in conf/."""
    base = {"data": OmegaConf.to_container(OmegaConf.load(CONF / "data" / "_loading.yaml"))}.get(group, {})
    found = {}
    for file in sorted((CONF / group).glob("[!_]*.yaml")):
        own = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
        found[file.stem] = {
            key: {"root": "images", "mixing": None}.get(key, value)
            for key, value in {**base, **own}.items()
            if key != "defaults"
        }
    return found


@pytest.mark.parametrize("group", ["data", "task"])
def test_every_choice_of_ours_needs_no_trust_except_data_sets_of_any_class(group):
    assert [name for name, node in choices(group).items() if needs_trust({group: node})] == ["dataset"] * (group == "data")


def test_a_task_with_mixing_needs_no_trust():
    assert not needs_trust({"task": TASK | {"mixing": choices("mixing")["imagenet"]}})


@pytest.mark.parametrize("target", sorted(OWN_CLASSES))
def test_every_class_of_the_list_exists(target):
    assert callable(instantiate.resolve("model", {"_target_": target}))
