"""Models of timm, torchvision and transformers behind one interface; small ones, with random weights and no network."""

import json
import os

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torchvision import models

from swin_lab import Backbone, create_model, list_models
from swin_lab.data.transforms import eval_transform
from swin_lab.errors import UserError
from swin_lab.models.external import TimmModel, TorchvisionModel, TransformersModel
from swin_lab.models.external.images import crop_fraction

transformers = pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path):
    """Prevents the five attempts of the hub's client to find a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def saved_config(folder, kind="convnext", **processor):
    """Saves config.json, and preprocessor_config.json if it is given, as transformers does."""
    configs = {
        "convnext": lambda: transformers.ConvNextConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], drop_path_rate=0.0),
        "vit": lambda: transformers.ViTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8
        ),
        "swin": lambda: transformers.SwinConfig(
            embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4, image_size=32, patch_size=4
        ),
        "bert": lambda: transformers.CLIPTextConfig(),
    }
    configs[kind]().save_pretrained(folder)
    if processor:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return str(folder)


CONVNEXT = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 64}, "resample": 3}
VIT = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}, "resample": 2}
BIT = {
    "image_processor_type": "BitImageProcessor",
    "size": {"shortest_edge": 73},
    "crop_size": {"height": 64, "width": 64},
    "do_center_crop": True,
    "resample": 3,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


@pytest.mark.parametrize("library", ["timm", "torchvision", "transformers"])
def test_a_model_reads_images_with_an_exif_orientation_as_its_library_does(tmp_path, library):
    name = {"timm": "timm, convolutional", "torchvision": "torchvision, convolutional", "transformers": "transformers, ViT"}
    assert BUILDERS[name[library]](tmp_path).preprocessing.exif_orientation == (library == "transformers")


BUILDERS = {
    "timm, convolutional": lambda folder: TimmModel("test_resnet", 5, img_size=64),
    "timm, transformer": lambda folder: TimmModel("test_vit", 5, img_size=(48, 32)),
    "timm, one channel": lambda folder: TimmModel("test_convnext", 5, in_channels=1),
    "timm, Swin": lambda folder: TimmModel("swin_tiny_patch4_window7_224", 5, img_size=64),
    "torchvision, convolutional": lambda folder: TorchvisionModel("mobilenet_v3_small", 5, img_size=64),
    "torchvision, Swin": lambda folder: TorchvisionModel("swin_t", 5, img_size=(64, 96)),
    "torchvision, ViT": lambda folder: TorchvisionModel("vit_b_32", 5, img_size=64),
    "torchvision, auxiliary heads": lambda folder: TorchvisionModel("googlenet", 5, img_size=64),
    "transformers, ConvNeXT": lambda folder: TransformersModel(saved_config(folder, **CONVNEXT), 5),
    "transformers, ViT": lambda folder: TransformersModel(saved_config(folder, "vit", **VIT), 5),
    "transformers, Swin": lambda folder: TransformersModel(saved_config(folder, "swin"), 5, img_size=64),
}


@pytest.fixture(scope="module", params=BUILDERS.values(), ids=BUILDERS.keys())
def network(request, tmp_path_factory):
    torch.manual_seed(0)
    return request.param(tmp_path_factory.mktemp("config"))


def test_images_become_logits_and_every_parameter_learns(network):
    image = torch.randn(2, network.in_channels, *network.img_size)
    logits = network.train()(image)
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())


def test_the_state_of_one_model_can_be_loaded_into_another(network):
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    network.load_state_dict(state, strict=True)
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(("name", "part"), [("dm_nfnet_f0", "crop_mode=squash with crop_pct=0.9"), ("volo_d4_448", "=1.15")])
def test_a_preprocessing_of_timm_that_cannot_be_expressed_is_none_with_a_warning(name, part, caplog):
    with torch.device("meta"):
        assert TimmModel(name, 2).preprocessing is None
    assert part in caplog.text


def test_the_preprocessing_has_the_size_and_channels_of_the_network(network):
    if network.preprocessing is not None:
        assert network.preprocessing.img_size == network.img_size
        assert network.preprocessing.channels == network.in_channels


# Preprocessing


def random_image(width, height):
    """Returns a smooth image, in which a displacement by one pixel is visible."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", [(500, 375), (231, 400), (97, 64)])
@pytest.mark.parametrize("name", ["test_resnet", "convnext_atto", "swin_tiny_patch4_window7_224", "vit_base_patch16_clip_384"])
def test_preprocessing_of_timm_equals_its_own_transform(name, size):
    """The tolerance is 1e-6; the last model stretches images (crop_mode=squash)."""
    with torch.device("meta"):
        model = TimmModel(name, 2)
    expected = create_transform(**resolve_model_data_config(model.model), is_training=False)
    image = random_image(*size)
    torch.testing.assert_close(eval_transform(model.preprocessing)(image), expected(image), atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [(500, 375), (231, 400), (97, 64)])
@pytest.mark.parametrize("name", ["mobilenet_v3_small", "swin_t", "efficientnet_b1"])
def test_preprocessing_of_torchvision_equals_its_own_transform(name, size):
    expected = models.get_model_weights(name).DEFAULT.transforms()
    image = random_image(*size)
    with torch.device("meta"):
        actual = TorchvisionModel(name, 2)
    torch.testing.assert_close(eval_transform(actual.preprocessing)(image), expected(image), atol=1e-6, rtol=0)


def test_the_resized_side_of_every_model_of_torchvision_is_exact():
    for name in models.list_models(module=models):
        evaluation = models.get_model_weights(name).DEFAULT.transforms()
        crop, resized = evaluation.crop_size[0], evaluation.resize_size[0]
        assert int(crop / crop_fraction(crop, resized)) == resized


@pytest.mark.parametrize("size", [(500, 375), (97, 64)])
@pytest.mark.parametrize("processor", [CONVNEXT, VIT, BIT], ids=["ConvNeXT", "ViT", "BiT"])
def test_preprocessing_of_transformers_equals_its_image_processor(processor, size, tmp_path):
    """The tolerance is 1.5 grey levels: transformers resizes tensors, and swin_lab resizes PIL images."""
    model = TransformersModel(saved_config(tmp_path, **processor), 2)
    image = random_image(*size)
    expected = transformers.AutoImageProcessor.from_pretrained(tmp_path)(image, return_tensors="pt")["pixel_values"][0]
    actual = eval_transform(model.preprocessing)(image)
    levels = (actual - expected) * torch.tensor(model.preprocessing.std)[:, None, None] * 255
    assert levels.abs().max() <= 1.5


def test_a_crop_size_that_the_image_processor_does_not_use_is_ignored(tmp_path):
    unused = {**VIT, "do_center_crop": False, "crop_size": {"height": 28, "width": 28}}
    assert TransformersModel(saved_config(tmp_path, "vit", **unused), 2).img_size == (32, 32)


def test_a_convnext_from_384_pixels_on_stretches(tmp_path):
    model = TransformersModel(saved_config(tmp_path, **CONVNEXT), 2, img_size=384)
    assert model.preprocessing.resize_mode == "stretch"


@pytest.mark.parametrize(
    "processor",
    [
        {**VIT, "image_processor_type": "MobileViTImageProcessor", "do_flip_channel_order": True},
        {**VIT, "image_processor_type": "DeiTImageProcessor", "do_center_crop": True, "crop_size": {"height": 28, "width": 28}},
    ],
    ids=["flipped channels", "stretched, then cropped"],
)
def test_a_preprocessing_that_cannot_be_expressed_is_none_with_a_warning(processor, tmp_path, caplog):
    assert TransformersModel(saved_config(tmp_path, "vit", **processor), 2, img_size=32).preprocessing is None
    assert "cannot express" in caplog.text


def test_without_an_image_processor_there_is_no_preprocessing(tmp_path):
    assert TransformersModel(saved_config(tmp_path, "vit"), 2).preprocessing is None


# Pretrained weights


def test_torchvision_loads_its_weights_and_replaces_the_head():
    torch.manual_seed(0)
    published = models.get_model("mobilenet_v3_small")
    url = models.get_model_weights("mobilenet_v3_small").DEFAULT.url
    folder = os.path.join(torch.hub.get_dir(), "checkpoints")
    os.makedirs(folder)
    torch.save(published.state_dict(), os.path.join(folder, url.rpartition("/")[2]))
    same, other = (TorchvisionModel("mobilenet_v3_small", count, pretrained=True).model.state_dict() for count in (1000, 5))
    for name, tensor in published.state_dict().items():
        assert torch.equal(same[name], tensor)
        assert name.startswith("classifier.3.") or torch.equal(other[name], tensor)
    assert other["classifier.3.weight"].shape == (5, 1024)


def test_timm_loads_its_weights_and_replaces_the_head(monkeypatch):
    torch.manual_seed(0)
    published = timm.create_model("test_resnet")
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: dict(published.state_dict()))
    loaded = TimmModel("test_resnet", 5, pretrained=True).model.state_dict()
    assert loaded["fc.weight"].shape[0] == 5
    assert all(torch.equal(loaded[name], tensor) for name, tensor in published.state_dict().items() if "fc" not in name)


@pytest.mark.parametrize("kind", ["convnext", "vit", "swin"])
def test_transformers_loads_its_weights_and_replaces_the_head(kind, tmp_path):
    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(saved_config(tmp_path, kind))
    published = transformers.AutoModelForImageClassification.from_config(config)
    published.save_pretrained(tmp_path)
    loaded = TransformersModel(str(tmp_path), 5, pretrained=True).model.state_dict()
    assert loaded["classifier.weight"].shape[0] == 5
    assert all(torch.equal(loaded[name], tensor) for name, tensor in published.state_dict().items() if "classifier" not in name)


def test_weights_with_missing_tensors_are_rejected(tmp_path):
    config = transformers.AutoConfig.from_pretrained(saved_config(tmp_path, "vit"))
    published = transformers.AutoModelForImageClassification.from_config(config)
    state = {name: tensor for name, tensor in published.state_dict().items() if name != "vit.layernorm.weight"}
    published.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(UserError, match=r"have no vit\.layernorm\.weight"):
        TransformersModel(str(tmp_path), 5, pretrained=True)


def test_pretrained_weights_of_another_size_are_rejected(tmp_path):
    config = transformers.AutoConfig.from_pretrained(saved_config(tmp_path, "vit", **VIT))
    transformers.AutoModelForImageClassification.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"position_embeddings .*remove model\.img_size"):
        TransformersModel(str(tmp_path), 5, img_size=64, pretrained=True)
    with pytest.raises(UserError, match=r"vit_b_32 are for \[224, 224\] only"):
        TorchvisionModel("vit_b_32", 5, img_size=64, pretrained=True)


def test_weights_that_cannot_be_fetched_are_named_with_the_next_step(monkeypatch):
    def no_network(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    with pytest.raises(UserError, match=r"(?s)cannot be fetched: .*Run it once with a network"):
        TimmModel("test_resnet", 5, pretrained=True)
    with pytest.raises(UserError, match=r"(?s)cannot be fetched: .*Download https://.*into .*checkpoints"):
        TorchvisionModel("mobilenet_v3_small", 5, pretrained=True)
    with pytest.raises(UserError, match=r"(?s)cannot be read by transformers: .*network connection"):
        TransformersModel("owner/model", 5)


def test_a_model_without_published_weights_cannot_be_pretrained():
    with pytest.raises(UserError, match="timm has no weights of botnet50ts_256"):
        TimmModel("botnet50ts_256", 5, pretrained=True)


# Errors


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TimmModel("convnext_tny", 5), "did you mean convnext_tiny?"),
        (lambda: TimmModel("test_resnet.nowhere", 5), "no such weights of test_resnet"),
        (lambda: TimmModel("hf-hub:owner/model", 5), "is not a model of timm"),
        (lambda: TimmModel("vgg11", 5, drop_path_rate=0.1), "model.drop_path_rate=0.1 is not supported by vgg11"),
        (lambda: TorchvisionModel("swin_tt", 5), "did you mean swin_t?"),
        (lambda: TorchvisionModel("vit_b_32", 5, img_size=50), "model.img_size=[50, 50] is not supported by vit_b_32"),
        (lambda: TorchvisionModel("vit_b_32", 5, img_size=(64, 32)), "model.img_size=[64, 32] must be square"),
        (lambda: TorchvisionModel("maxvit_t", 5, img_size=100), "model.img_size=[100, 100] is not supported by maxvit_t"),
        (lambda: TransformersModel("/no/such/folder", 5), "is not a folder"),
    ],
)
def test_a_wrong_argument_is_rejected(build, message):
    with pytest.raises(UserError) as rejection:
        build()
    assert message in str(rejection.value)


def test_a_folder_without_a_configuration_is_rejected(tmp_path):
    with pytest.raises(UserError, match=r"has no config\.json"):
        TransformersModel(str(tmp_path), 5)


def test_a_model_of_transformers_that_is_not_a_classifier_is_rejected(tmp_path):
    with pytest.raises(UserError, match="is not an image classifier"):
        TransformersModel(saved_config(tmp_path, "bert"), 5)


def test_an_unsupported_drop_path_rate_is_rejected(tmp_path):
    with pytest.raises(UserError, match=r"drop_path_rate=0\.1 is not supported"):
        TransformersModel(saved_config(tmp_path, "vit"), 5, drop_path_rate=0.1)


def test_code_in_a_folder_is_not_executed(tmp_path):
    folder = saved_config(tmp_path, "vit")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}}))
    (tmp_path / "mine.py").write_text("raise SystemExit")
    with pytest.raises(UserError, match="cannot be read by transformers"):
        TransformersModel(folder, 5)


def test_without_transformers_the_package_to_install_is_named(monkeypatch):
    monkeypatch.setattr("swin_lab.models.external.transformers_model.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install transformers"):
        TransformersModel("owner/model", 5)


# Features of Swin


def test_feature_maps_per_stage_are_for_swin_only():
    with pytest.raises(UserError, match="a TimmModel has no feature maps per stage"):
        Backbone(TimmModel("test_resnet", 5))


def test_layers_of_timm_count_from_the_stem_to_the_head():
    model = TimmModel("swin_tiny_patch4_window7_224", 5, img_size=64)
    numbers = {name: model.layer_of(name) for name, _ in model.named_parameters()}
    assert numbers["model.patch_embed.proj.weight"] == 0
    assert numbers["model.head.fc.weight"] == max(numbers.values())
    assert set(numbers.values()) == set(range(max(numbers.values()) + 1))


def test_other_libraries_define_no_layers_and_no_stages():
    for adapter in (TorchvisionModel, TransformersModel):
        assert not hasattr(adapter, "layer_of")
        assert not hasattr(adapter, "freeze_stages")
    assert not hasattr(TimmModel, "freeze_stages")


def test_they_are_not_variants_of_swin():
    assert not {"timm", "torchvision", "transformers"} & set(list_models())
    with pytest.raises(UserError):
        create_model("timm")


# Models that do not take the images


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (
            lambda: TorchvisionModel("inception_v3", 3, img_size=32),
            "inception_v3 of torchvision does not classify images of 32x32",
        ),
        (
            lambda: TimmModel("inception_v3", 3, img_size=32),
            "inception_v3 of timm does not classify images of 32x32",
        ),
    ],
    ids=["torchvision", "timm"],
)
def test_a_model_that_does_not_take_images_of_the_size_is_refused_at_construction(build, complaint):
    with pytest.raises(UserError, match=complaint) as refusal:
        build()
    assert str(refusal.value).count("\n") < 3


class _Dict(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images):
        return {"logits": images}


def test_a_model_that_does_not_return_logits_is_refused_at_construction(monkeypatch):
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: _Dict())
    with pytest.raises(
        UserError, match=r"test_resnet of timm is not a classifier: it returns a dict instead of logits \(1, 3\)"
    ):
        TimmModel("test_resnet", 3)


def test_the_check_of_a_model_changes_neither_its_mode_nor_its_statistics():
    model = TimmModel("test_resnet", 3, img_size=64)
    assert model.training
    assert all(int(buffer) == 0 for name, buffer in model.named_buffers() if name.endswith("num_batches_tracked"))


# The hub


@pytest.mark.parametrize(
    "build",
    [lambda: TransformersModel("facebook/convnext-tiny-224", 3), lambda: TimmModel("test_resnet", 3, pretrained=True)],
    ids=["transformers", "timm"],
)
def test_without_network_the_hub_is_asked_once_and_nothing_is_retried(build, monkeypatch, tmp_path, caplog, capfd):
    asked = []

    class Session:
        def head(self, url, timeout):
            asked.append(url)
            raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("swin_lab.models.external.hub.get_session", Session)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"cannot be (read|fetched)"):
        build()
    assert len(asked) == 1
    assert "Retrying" not in caplog.text + capfd.readouterr().err


def test_a_name_in_an_existing_folder_is_not_looked_up_on_the_hub(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    with pytest.raises(UserError, match=r"model\.name=models/mine is not a folder"):
        TransformersModel("models/mine", 3)
