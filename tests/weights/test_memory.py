"""Weights in memory: state dicts, and models of every library."""

import pytest
import timm
import torch
import torchvision
from parts import native, same_tensors, transformers_reference

from swin_lab import create_model, load_model, save_weights
from swin_lab.errors import UserError

V1 = {"embed_dim": 16, "depths": (1, 2), "num_heads": (1, 2), "num_classes": 5}


def timm_model(version):
    maker = timm.models.SwinTransformer if version == 1 else timm.models.SwinTransformerV2
    return maker(img_size=64, window_size=4, **V1).eval()


def torchvision_model(version):
    block = (
        {}
        if version == 1
        else {
            "block": torchvision.models.swin_transformer.SwinTransformerBlockV2,
            "downsample_layer": torchvision.models.swin_transformer.PatchMergingV2,
        }
    )
    sizes = {"embed_dim": 16, "depths": [1, 2], "num_heads": [1, 2], "window_size": [4, 4], "num_classes": 5}
    return torchvision.models.SwinTransformer(patch_size=[4, 4], **sizes, **block).eval()


MODELS = {
    "timm": timm_model,
    "torchvision": torchvision_model,
    "transformers": lambda version: transformers_reference(version).eval(),
    "swin_lab": lambda version: native(version).eval(),
}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("library", MODELS)
def test_a_model_of_any_library_is_loaded_with_equal_logits_and_stays_unchanged(library, version):
    torch.manual_seed(0)
    model = MODELS[library](version)
    loaded = load_model(model)
    size = (64, 64) if library in ("timm", "torchvision") else loaded.config.image_size
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(image)
        expected = getattr(expected, "logits", expected)
        torch.testing.assert_close(loaded(image), expected, atol=1e-5, rtol=0)
        for parameter in loaded.parameters():
            parameter.zero_()
        again = model(image)
        assert torch.equal(getattr(again, "logits", again), expected)


@pytest.mark.parametrize("version", [1, 2])
def test_a_model_of_timm_tells_its_image_size_windows_and_preprocessing(version):
    model = timm.create_model({1: "swin_s3_tiny_224", 2: "swinv2_tiny_window8_256"}[version])
    loaded = load_model(model, num_classes=3)
    assert loaded.config.image_size == model.patch_embed.img_size
    assert loaded.config.windows == tuple(tuple(layer.blocks[0].attn.window_size) for layer in model.layers)
    assert loaded.preprocessing.crop_pct == model.pretrained_cfg["crop_pct"]
    assert not loaded.preprocessing.exif_orientation


def test_a_model_of_swin_lab_keeps_what_it_knows():
    model = native(2)
    model.class_names = tuple(f"class {i}" for i in range(model.config.num_classes))
    loaded = load_model(torch.compile(model, backend="eager"))
    assert (loaded.config, loaded.class_names) == (model.config, model.class_names)
    assert same_tensors(loaded.state_dict(), model.state_dict())


@pytest.mark.parametrize(
    "wrap", [lambda tensors: tensors, lambda tensors: {"model": tensors, "epoch": 3}], ids=["flat", "nested"]
)
def test_a_state_dict_is_loaded_like_the_file_that_contains_it(tmp_path, capsys, wrap):
    model = native(1)
    tensors = torch.load(save_weights(model, tmp_path / "tiny.pth", "official"), weights_only=True)["model"]
    assert same_tensors(load_model(wrap(tensors)).state_dict(), model.state_dict())
    assert "weights    the given state dict, layout official" in capsys.readouterr().err


def test_the_dict_of_a_native_file_keeps_its_metadata(tmp_path):
    model = native(2)
    assert load_model(torch.load(save_weights(model, tmp_path / "tiny.pth"), weights_only=True)).config == model.config


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (5, "a path, a state dict or a model, not a int"),
        (None, "not a NoneType"),
        ({}, "the given state dict: the file contains no tensors by name; it is empty"),
        ("", "the path of the weights is empty"),
        (torch.nn.Linear(2, 2), "the given Linear: these are not weights of a Swin Transformer"),
        (torch.nn.Identity(), "the given Identity: the file contains no tensors"),
    ],
    ids=str,
)
def test_what_contains_no_swin_transformer_is_refused(source, complaint):
    with pytest.raises(UserError, match=complaint):
        load_model(source)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"class_names": ["a", "a", "b"]}, "the same name"),
        ({"class_names": ["a", "", "b"]}, "not empty"),
        ({"class_names": ["a", "\udcff", "b"]}, "control characters"),
        ({"class_names": ["a", 1, "b"]}, "must be a string"),
        ({"class_names": "abc"}, "a list of strings"),
        ({"strict": "no"}, "strict=no must be true or false"),
        ({"ema": "no"}, "ema=no must be true or false"),
    ],
    ids=str,
)
def test_arguments_of_another_kind_are_refused(arguments, complaint):
    with pytest.raises(UserError, match=complaint):
        load_model(create_model("swin_micro_patch4_window4_32", num_classes=3), **arguments)


def test_a_partial_state_dict_is_refused_as_in_a_file():
    tensors = create_model("swin_micro_patch4_window4_32").state_dict()
    del tensors["norm.weight"]
    with pytest.raises(UserError, match=r"lacks 1 of the network's tensors: norm\.weight"):
        load_model(tensors)
