"""Adapters in the network: which parameters are trained, what is computed, and what remains after they are added up."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from swin_lab import SwinConfig, SwinTransformer, load_model, save_weights
from swin_lab.errors import UserError
from swin_lab.models import packed_weights
from swin_lab.models.lora import LoraConfig, inject, merged, merged_tensors

pytest.importorskip("peft", reason="peft (the extra lora) is not installed")

NETWORK = {"img_size": 32, "embed_dim": 8, "depths": (1, 2), "num_heads": (1, 2), "window_size": 4, "num_classes": 6}
ALL = ("qkv", "proj", "fc1", "fc2")


def adapted(version: int = 1, values: dict[str, Any] | None = None, **settings: Any) -> tuple[SwinTransformer, LoraConfig]:
    """A network whose adapters have changed its outputs, as after training."""
    torch.manual_seed(0)
    network = SwinTransformer(SwinConfig(version=version, **{**NETWORK, **(values or {})}))
    for name, parameter in network.named_parameters():
        if version == 2 and name.endswith(("norm1.weight", "norm2.weight")):
            nn.init.ones_(parameter)  # The initial blocks of V2 are the identity.
    config = LoraConfig(**{"rank": 4, **settings})
    inject(network, config)
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return network.eval(), config


def plain(network: SwinTransformer, config: LoraConfig) -> SwinTransformer:
    copy = SwinTransformer(network.config).eval()
    copy.load_state_dict(merged_tensors(network.state_dict(), config))
    return copy


IMAGES = torch.rand(3, 3, 40, 32, generator=torch.Generator().manual_seed(1))
"""Their maps are padded: 10 x 8 tokens in windows of 4."""


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("backend", ["reference", "sdpa", "products", "auto"])
def test_logits_with_adapters_and_after_adding_them_up_are_equal(version: int, backend: str) -> None:
    network, config = adapted(version, {"attention_backend": backend}, layers=ALL)
    before = network(IMAGES)
    torch.testing.assert_close(plain(network, config)(IMAGES), before, atol=1e-5, rtol=0)
    untouched, _ = adapted(version, {"attention_backend": backend}, layers=ALL)
    for name, parameter in untouched.named_parameters():
        if "lora_B" in name:
            nn.init.zeros_(parameter)
    assert (untouched(IMAGES) - before).abs().max() > 1e-2  # The adapters are not passed over.


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("layer", ALL)
def test_every_kind_of_layer_takes_part_in_the_outputs_and_gets_gradients(version: int, layer: str) -> None:
    network, _ = adapted(version, layers=(layer,))
    network.train()(IMAGES).square().sum().backward()
    trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert {name for name in trained if "lora_" not in name} == {"head.weight", "head.bias"}
    assert len(trained) == 2 + 2 * 3  # three blocks
    for name, parameter in trained.items():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("version", [1, 2])
def test_new_adapters_change_no_output(version: int) -> None:
    torch.manual_seed(0)
    network = SwinTransformer(SwinConfig(version=version, **NETWORK)).eval()
    before = network(IMAGES)
    inject(network, LoraConfig(rank=4))
    assert torch.equal(network.eval()(IMAGES), before)


def test_norms_are_trained_if_wanted() -> None:
    network, _ = adapted(norms=True)
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad and "lora_" not in name}
    norms = {
        f"{name}.{end}"
        for name, part in network.named_modules()
        if isinstance(part, nn.LayerNorm)
        for end in ("weight", "bias")
    }
    assert trained == norms | {"head.weight", "head.bias"}


@pytest.mark.parametrize("version", [1, 2])
def test_the_context_computes_with_the_sums_and_leaves_tensors_and_their_names_alone(version: int) -> None:
    network, config = adapted(version)
    copy, names = plain(network, config), list(network.state_dict())
    with torch.no_grad():
        before = network(IMAGES)
        with merged(network):
            assert torch.equal(network(IMAGES), copy(IMAGES))
            assert list(network.state_dict()) == names
        assert torch.equal(network(IMAGES), before)


def test_sums_are_packed_for_an_evaluation_in_bfloat16() -> None:
    network, config = adapted()
    copy = plain(network, config)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        with packed_weights(copy):
            wanted = copy(IMAGES)
        with merged(network) as sums, packed_weights(sums), packed_weights(network):
            assert torch.equal(network(IMAGES), wanted)


@pytest.mark.parametrize("version", [1, 2])
def test_packed_weights_do_not_pass_over_adapters(version: int) -> None:
    network, _ = adapted(version)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        wanted = network(IMAGES)
        with packed_weights(network):
            torch.testing.assert_close(network(IMAGES), wanted, atol=2e-2, rtol=0)  # eight bits of bfloat16


@pytest.mark.parametrize("version", [1, 2])
def test_compiled_graphs_contain_the_adapters(version: int) -> None:
    network, _ = adapted(version, {"depths": (1,), "num_heads": (1,)})
    torch.testing.assert_close(torch.compile(network, backend="eager", fullgraph=True)(IMAGES), network(IMAGES))


def test_a_network_with_adapters_is_saved_and_copied_as_an_ordinary_one(tmp_path: Path) -> None:
    network, config = adapted(alpha=3.0)
    wanted = plain(network, config).state_dict()
    for copy in (load_model(save_weights(network, tmp_path / "saved.safetensors")), load_model(network)):
        assert all(torch.equal(tensor, wanted[name]) for name, tensor in copy.state_dict().items())


@pytest.mark.parametrize("version", [1, 2])
def test_the_file_after_adding_up_loads_in_timm_with_equal_logits(version: int, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    network, config = adapted(version)
    save_weights(plain(network, config), tmp_path / "merged.pth", "timm")
    name = "swin_tiny_patch4_window7_224" if version == 1 else "swinv2_tiny_window8_256"
    sizes = {key: NETWORK[key] for key in ("img_size", "embed_dim", "depths", "num_heads", "window_size", "num_classes")}
    theirs = timm.create_model(name, pretrained=False, **sizes).eval()
    theirs.load_state_dict(torch.load(tmp_path / "merged.pth", weights_only=True), strict=False)
    images = IMAGES[:, :, :32]
    torch.testing.assert_close(theirs(images), network(images), atol=1e-5, rtol=0)


def test_a_scale_is_alpha_by_rank_and_2_by_default() -> None:
    assert LoraConfig(rank=8).scale == 2
    assert LoraConfig(rank=8, alpha=4).scale == 0.5


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"rank": 0}, "model.lora.rank=0 must be a positive integer"),
        ({"rank": 4, "alpha": 0}, "model.lora.alpha=0 must be a positive number"),
        ({"rank": 4, "dropout": 1}, "model.lora.dropout=1"),
        (
            {"rank": 4, "layers": ["qkv", "head"]},
            r"model.lora.layers=\[qkv, head\] must be a list of some of qkv, proj, fc1, fc2",
        ),
        ({"rank": 4, "layers": []}, r"model.lora.layers=\[\] must be"),
        ({"rank": 4, "layers": ["qkv", "qkv"]}, "names a layer twice"),
    ],
)
def test_invalid_settings_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        LoraConfig(**values)


def test_a_rank_above_the_smallest_layer_is_refused() -> None:
    LoraConfig(rank=8).check_network(SwinConfig(**NETWORK))
    with pytest.raises(UserError, match=r"model.lora.rank=9 is larger than the smallest adapted layer, of 8 channels"):
        LoraConfig(rank=9).check_network(SwinConfig(**NETWORK))


def test_swin_mlp_has_adapters_of_its_mlps_only() -> None:
    network = SwinConfig(**NETWORK, token_mixer="mlp")
    LoraConfig(rank=4, layers=("fc1", "fc2")).check_network(network)
    with pytest.raises(UserError, match="Swin-MLP has no attention; choose"):
        LoraConfig(rank=4).check_network(network)


def test_a_network_without_a_layer_is_refused() -> None:
    with pytest.raises(UserError, match=r"model.lora.layers=\[qkv, proj\]: a Linear has no layer qkv"):
        inject(nn.Linear(2, 2), LoraConfig(rank=1))
