"""Learning rates per layer: the layer of a parameter, the rate of every layer, and its effect on a step (FACTS c5)."""

import lightning
import pytest
import torch
from engines import adamw, classification_engine
from lightning import Callback
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from swin_lab import SwinConfig, SwinTransformer, create_model
from swin_lab.errors import UserError
from swin_lab.training import Cosine, RunLength
from swin_lab.weights.layouts import layout_to_write

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # Lightning's advice on workers

TINY, BASE, TINY_2 = "swin_tiny_patch4_window7_224", "swin_base_patch4_window7_224", "swinv2_tiny_window8_256"
MLP = "swin_mlp_tiny_c24_patch4_window8_256"
LAYERS = [(TINY, 14), (BASE, 26), (TINY_2, 14), (MLP, 14)]
CLASSES = 5


def recipe(**changes):
    return adamw(**{"reference_batch": 512, "weight_decay": 0.05} | changes)


@pytest.fixture(scope="module")
def networks():
    with torch.device("meta"):
        return {name: create_model(name) for name, _ in LAYERS}


def layer_by_the_official_rule(name, depths):
    """Returns the layer by get_swin_layer of the official optimizer.py, for names of the official code."""
    parts = name.split(".")
    if parts[0] == "patch_embed":
        return 0
    if parts[0] != "layers":
        return sum(depths) + 1
    stage = int(parts[1])
    return sum(depths[:stage]) + int(parts[3]) + 1 if parts[2] == "blocks" else sum(depths[: stage + 1])


@pytest.mark.parametrize("variant", [name for name, _ in LAYERS])
def test_every_parameter_is_in_the_layer_of_the_official_code(networks, variant):
    network = networks[variant]
    layout, last = layout_to_write("official", network.config.version), len(network.stages) - 1
    for name, _ in network.named_parameters():
        assert network.layer_of(name) == layer_by_the_official_rule(layout.to_library(name, last), network.config.depths), name


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("embed.proj.weight", 0),
        ("embed.norm.bias", 0),
        ("stages.0.blocks.0.attn.qkv.weight", 1),
        ("stages.0.blocks.1.mlp.fc2.bias", 2),
        ("stages.1.merge.reduction.weight", 2),  # the layer of the preceding block
        ("stages.1.blocks.0.norm1.weight", 3),
        ("stages.2.merge.norm.weight", 4),
        ("stages.2.blocks.5.attn.relative_position_bias_table", 10),
        ("stages.3.merge.norm.bias", 10),
        ("stages.3.blocks.1.mlp.fc1.weight", 12),
        ("norm.weight", 13),
        ("head.weight", 13),
        ("head.bias", 13),
    ],
)
def test_layers_of_swin_t(networks, name, layer):
    assert name in dict(networks[TINY].named_parameters())
    assert networks[TINY].layer_of(name) == layer


@pytest.mark.parametrize(("variant", "layers"), LAYERS)
def test_every_layer_has_a_decayed_and_an_undecayed_group(networks, variant, layers):
    groups = recipe(layer_decay=0.9).groups(networks[variant], 512)
    assert [group["layer"] for group in groups] == [layer for layer in range(layers) for _ in range(2)]
    assert [group["weight_decay"] for group in groups] == [0.05, 0.0] * layers


@pytest.mark.parametrize(("variant", "layers"), LAYERS)
def test_groups_per_layer_contain_every_parameter_once(networks, variant, layers):
    groups = recipe(layer_decay=0.9).groups(networks[variant], 512)
    names = [name for group in groups for name in group["names"]]
    assert sorted(names) == sorted(name for name, _ in networks[variant].named_parameters())
    assert sum(len(group["params"]) for group in groups) == len(names)


@pytest.mark.parametrize("variant", [name for name, _ in LAYERS])
def test_learning_rates_per_layer_do_not_change_which_parameters_decay(networks, variant):
    def decayed(**options):
        groups = recipe(**options).groups(networks[variant], 512)
        return {name for group in groups if group["weight_decay"] for name in group["names"]}

    assert decayed(layer_decay=0.9) == decayed()


@pytest.mark.parametrize(
    ("variant", "decay", "scale"),
    [(BASE, 0.8, 0.00377789), (BASE, 0.9, 0.0717898), (BASE, 0.75, 0.000752543), (TINY, 0.9, 0.254187)],
)
def test_the_patch_embedding_has_the_published_fraction_of_the_learning_rate(networks, variant, decay, scale):
    """FACTS c5 gives the factors with six digits."""
    rates = [group["lr"] for group in recipe(layer_decay=decay).groups(networks[variant], 512)]
    assert rates[0] / 1e-2 == rates[1] / 1e-2 == pytest.approx(scale, rel=2e-6)


def test_the_ratio_of_learning_rates_of_consecutive_layers_is_constant(networks):
    rates = [group["lr"] for group in recipe(layer_decay=0.8).groups(networks[TINY], 512)][::2]
    assert rates == pytest.approx([1e-2 * 0.8 ** (13 - layer) for layer in range(14)], rel=1e-12)


def test_learning_rates_per_layer_scale_with_the_global_batch(networks):
    """FACTS c3: a learning rate of 1.25e-3 per 512 images, at a batch of 2,048."""
    groups = recipe(lr=1.25e-3, lr_scaling="linear", layer_decay=0.9).groups(networks[TINY], 2048)
    assert groups[-1]["lr"] == pytest.approx(5e-3, rel=1e-12)
    assert groups[0]["lr"] == pytest.approx(5e-3 * 0.254187, rel=2e-6)


def test_without_layer_decay_there_are_two_groups_with_the_same_learning_rate(networks):
    groups = recipe().groups(networks[TINY], 512)
    assert [group["lr"] for group in groups] == [1e-2, 1e-2]


def test_a_layer_decay_of_one_gives_one_learning_rate(networks):
    assert {group["lr"] for group in recipe(layer_decay=1.0).groups(networks[TINY], 512)} == {1e-2}


DEPTHS = (1, 2)
SMALL = {"img_size": 32, "embed_dim": 8, "depths": DEPTHS, "num_heads": (1, 2), "window_size": 4, "drop_path_rate": 0.0}
TOP = sum(DEPTHS) + 1


class Rates(Callback):
    """Records the learning rate of each parameter before every update, and the weights after it."""

    def __init__(self):
        self.rates, self.weights = [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        names = {parameter: name for name, parameter in pl_module.network.named_parameters()}
        self.rates.append({names[p]: group["lr"] for group in optimizer.param_groups for p in group["params"]})

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.weights.append({name: p.detach().clone() for name, p in pl_module.network.named_parameters()})


SCHEDULE = Cosine(warmup_epochs=1, warmup_lr_ratio=0.5, min_lr_ratio=0.1)


def run(network, **changes):
    torch.manual_seed(0)
    images, seen = torch.randn(16, 3, 32, 32), Rates()
    module = classification_engine(network, CLASSES, optimizer=recipe(**changes), schedule=SCHEDULE, global_batch=4)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(max_epochs=3, accelerator="cpu", num_sanity_val_steps=0, callbacks=[seen], **quiet)
    trainer.fit(module, DataLoader(TensorDataset(images, torch.arange(16) % CLASSES), batch_size=4))
    return seen, trainer


@pytest.fixture(scope="module")
def trained():
    """Trains for twelve updates without weight decay; returns recorded rates and weights, initial weights, trainer."""
    torch.manual_seed(0)
    network = SwinTransformer(SwinConfig(**SMALL, num_classes=CLASSES))
    start = {name: p.detach().clone() for name, p in network.named_parameters()}
    seen, trainer = run(network, layer_decay=0.5, weight_decay=0.0)
    return seen, start, trainer


def layer(name):
    """Returns the layer in the small network: embedding 0, first block and merging 1, two blocks 2 and 3, norm and head 4."""
    prefixes = {"embed": 0, "stages.0.blocks.0": 1, "stages.1.merge": 1, "stages.1.blocks.0": 2, "stages.1.blocks.1": 3}
    return next((number for prefix, number in prefixes.items() if name.startswith(f"{prefix}.")), 4)


def test_the_learning_rate_of_a_parameter_is_that_of_its_layer_times_the_schedule(trained):
    seen, start, _ = trained
    assert len(seen.rates) == 12
    for update, rates in enumerate(seen.rates):
        factor = SCHEDULE.factor(update, RunLength(4, 12))
        expected = {name: 1e-2 * 0.5 ** (TOP - layer(name)) * factor for name in start}
        assert rates == pytest.approx(expected, rel=1e-9)


def test_the_logged_learning_rate_is_that_of_the_head(trained):
    seen, _, trainer = trained
    assert float(trainer.callback_metrics["train/lr"]) == pytest.approx(seen.rates[-1]["head.weight"], rel=1e-6)


def test_the_first_step_of_a_layer_has_the_size_of_its_learning_rate(trained):
    """The first step of AdamW is the rate times the sign of a gradient far above eps; 1e-3: float32 of order one."""
    seen, start, _ = trained
    for number in range(TOP + 1):
        steps = [
            (seen.weights[0][name] - old).abs().max().item()
            for name, old in start.items()
            if layer(name) == number and "qkv.bias" not in name  # keys have gradients of about eps
        ]
        assert steps
        assert max(steps) == pytest.approx(1e-2 * 0.5 * 0.5 ** (TOP - number), rel=1e-3)


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3 * 32 * 32, CLASSES)

    def forward(self, images):
        return self.layer(images.flatten(1))


def test_a_network_that_does_not_number_its_layers_is_refused_by_name():
    with pytest.raises(UserError, match=r"optimizer\.layer_decay=0.9: a Plain has no method layer_of\(name\)"):
        run(Plain(), layer_decay=0.9)


def test_without_layer_decay_such_a_network_trains():
    assert len(run(Plain())[0].rates) == 12


@pytest.mark.parametrize("wrong", [0, -0.5, 1.1, float("nan"), "slow", True], ids=str)
def test_a_layer_decay_outside_0_to_1_is_refused_by_name(wrong):
    with pytest.raises(UserError, match=rf"optimizer\.layer_decay={str(wrong).lower()}"):
        recipe(layer_decay=wrong)
