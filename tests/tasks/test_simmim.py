"""SimMIM against its published formulas, written out here: masks, targets, loss, gradients, groups of weight decay, updates."""

from math import ceil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY
from engines import adamw
from lightning import Callback
from lightning.pytorch.plugins import Precision

from swin_lab import SwinConfig, SwinTransformer
from swin_lab.bench.composition import build_from
from swin_lab.data.draws import Draws
from swin_lab.errors import UserError
from swin_lab.run.trainer import build_trainer
from swin_lab.tasks import SimMIM

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # Lightning's advice on workers

SIZES = {"img_size": 32, "embed_dim": 8, "depths": (1, 2), "num_heads": (1, 2), "window_size": 4, "num_classes": 0}
PATCH, STRIDE, CELL = 4, 8, 8
VERSIONS = pytest.mark.parametrize(("version", "side"), [(1, None), (2, 47), (2, 5)], ids=["V1", "V2-47", "V2-5"])


def task_of(side=None, **changes):
    return SimMIM(**{"mask_patch_size": CELL, "norm_target_size": side} | changes)


def network_of(version, task):
    """Builds a network whose every parameter affects its output; a new V2 is the identity."""
    torch.manual_seed(0)
    network = task.build_network(SwinTransformer(SwinConfig(version=version, drop_path_rate=0.0, **SIZES)))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network


def draws(indices, seed=0, epoch=0):
    return Draws(seed, epoch, np.asarray(indices), np.zeros(len(indices)))


def batch_of(task, images=6):
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(images, 3, 32, 32, generator=generator)
    return pixels, torch.zeros(images), torch.arange(images), *task.draw(draws(range(images)), (32, 32))


def published_target(images, side):
    """TASKS: mean and mean square without padding; n pixels under the window; sample variance; 1e-6."""
    if side is None:
        return images
    around = {"kernel_size": side, "stride": 1, "padding": side // 2}
    mean = F.avg_pool2d(images, **around, count_include_pad=False)
    mean_square = F.avg_pool2d(images.square(), **around, count_include_pad=False)
    n = F.avg_pool2d(torch.ones_like(images), **around, count_include_pad=True) * side**2
    variance = ((mean_square - mean.square()) * n / (n - 1)).clamp(min=0)
    return (images - mean) / (variance + 1e-6).sqrt()


def published_loss(network, images, mask, side):
    """TASKS: replaced tokens, stages, norm, 1x1 convolution, pixel shuffle; the sum over masked pixels, each counted once."""
    tokens = network.encoder.embed(images)
    of_tokens = mask.repeat_interleave(CELL // PATCH, 1).repeat_interleave(CELL // PATCH, 2).float()
    x = tokens * (1 - of_tokens[..., None]) + network.mask_token * of_tokens[..., None]
    for stage in network.encoder.stages:
        x = stage(x)
    x = network.encoder.norm(x)
    flat = x @ network.decoder.weight[:, :, 0, 0].T + network.decoder.bias  # (B, h, w, 3 * stride^2)
    restored = flat.unflatten(-1, (3, STRIDE, STRIDE)).permute(0, 3, 1, 4, 2, 5).reshape(images.shape)
    of_pixels = of_tokens.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)[:, None]
    difference = (published_target(images, side) - restored).abs()
    return (difference * of_pixels).sum() / (of_pixels.sum() + 1e-5) / 3


# Masks


def test_masks_have_the_published_size_and_count():
    (mask,) = SimMIM().draw(draws(range(50)), (192, 192))
    assert (mask.shape, mask.dtype) == ((50, 6, 6), torch.bool)
    assert mask.flatten(1).sum(1).tolist() == [22] * 50
    of_tokens = mask.repeat_interleave(8, 1).repeat_interleave(8, 2)
    assert (of_tokens[0].numel(), int(of_tokens[0].sum())) == (2304, 1408)


@pytest.mark.parametrize(("size", "ratio"), [((32, 32), 0.6), ((32, 64), 0.25), ((16, 48), 0.5)])
def test_the_count_is_rounded_up_for_any_size_and_ratio(size, ratio):
    (mask,) = task_of(mask_ratio=ratio).draw(draws(range(4)), size)
    height, width = size[0] // CELL, size[1] // CELL
    assert mask.shape == (4, height, width)
    assert mask.flatten(1).sum(1).tolist() == [ceil(ratio * height * width)] * 4


def test_a_mask_depends_on_seed_epoch_and_image_alone():
    (together,) = task_of().draw(draws([7, 3, 5]), (32, 32))
    (alone,) = task_of().draw(draws([5]), (32, 32))
    assert torch.equal(together[2], alone[0])
    for other in (draws([5], seed=1), draws([5], epoch=1), draws([6])):
        assert not torch.equal(task_of().draw(other, (32, 32))[0], alone)


def test_every_cell_is_masked_equally_often():
    """Within 5 standard deviations of 22 / 36 in 4,000 images."""
    (mask,) = SimMIM().draw(draws(range(4000)), (192, 192))
    p = 22 / 36
    assert (mask.float().mean(0) - p).abs().max() < 5 * (p * (1 - p) / 4000) ** 0.5


# Formulas


@pytest.mark.parametrize("side", [3, 5, 31, 47])
def test_targets_are_normalised_locally(side):
    """The formula is computed in float64: in float32, the sums of 47 x 47 pixels are themselves off by 2e-6."""
    images = torch.randn(4, 3, 32, 24, generator=torch.Generator().manual_seed(side))
    assert torch.allclose(task_of(side).target(images), published_target(images.double(), side).float(), rtol=0, atol=1e-6)


def test_the_targets_of_a_uniform_image_are_zero():
    assert torch.equal(task_of(5).target(torch.full((1, 3, 16, 16), 0.5)), torch.zeros(1, 3, 16, 16))


@VERSIONS
def test_loss_and_gradients_are_the_published_ones(version, side):
    task = task_of(side)
    network, batch = network_of(version, task), batch_of(task)
    parameters = dict(network.named_parameters())
    expected = published_loss(network, batch[0], batch[3], side)
    expected_gradients = torch.autograd.grad(expected, parameters.values())
    actual = task.training_loss(network, batch, 0)
    gradients = torch.autograd.grad(actual, parameters.values())
    assert abs(actual.item() - expected.item()) < 1e-6
    for name, mine, theirs in zip(parameters, gradients, expected_gradients, strict=True):
        assert (mine - theirs).abs().max() < 1e-6, name
        assert theirs.abs().max() > 0, name


def test_the_loss_sees_masked_pixels_only():
    task = task_of()
    network, (images, labels, indices, mask) = network_of(1, task), batch_of(task)
    hidden = mask.repeat_interleave(CELL, 1).repeat_interleave(CELL, 2)[:, None]
    changed = images + 5 * hidden
    assert torch.equal(network(images, mask), network(changed, mask))
    assert not torch.equal(network(images, mask), network(images + ~hidden, mask))
    loss = task.training_loss(network, (changed, labels, indices, mask), 0)
    assert loss > task.training_loss(network, (images, labels, indices, mask), 0)


def test_the_metric_is_the_loss_of_the_whole_set_for_any_batches():
    task = task_of(5)
    network, batch = network_of(2, task).eval(), batch_of(task)
    metrics = task.metrics()
    with torch.no_grad():
        for part in (slice(0, 1), slice(1, 4), slice(4, 6)):
            rows = tuple(tensor[part] for tensor in batch)
            metrics.update(task.evaluation_output(network, rows), rows)
        expected = published_loss(network, batch[0], batch[3], 5)
    computed = metrics.compute()
    assert int(computed["images"]) == 6
    assert float(computed["loss"]) == pytest.approx(float(expected), abs=1e-6)


@VERSIONS
def test_shown_images_are_the_original_and_the_reconstruction_of_masked_cells(version, side):
    task = task_of(side)
    images, _, _, mask = batch_of(task)
    hidden = mask.repeat_interleave(CELL, 1).repeat_interleave(CELL, 2)[:, None].expand_as(images)
    shown = task.shown(images, mask, task.target(images))  # a perfect reconstruction
    assert torch.equal(shown[:, 0], images)
    assert torch.equal(shown[:, 1], images.masked_fill(hidden, 0.0))
    assert torch.allclose(shown[:, 2], images, atol=1e-5)


# Optimizer


@pytest.mark.parametrize("version", [1, 2])
def test_weight_decay_spares_what_the_published_lists_name(version):
    network = network_of(version, task_of())
    decayed, plain = (set(group["names"]) for group in adamw(weight_decay=0.05).groups(network, 1))
    parts = ("mask_token", "relative_position_bias_table", "cpb_mlp", "logit_scale")
    expected = {
        name
        for name, parameter in network.named_parameters()
        if parameter.ndim == 1 or name.endswith(".bias") or any(part in name for part in parts)
    }
    assert plain == expected
    assert {"encoder.embed.proj.weight", "decoder.weight"} <= decayed


def test_the_mask_token_is_in_the_first_layer_and_the_decoder_in_the_last():
    network = network_of(1, task_of())
    layers = {name: group["layer"] for group in adamw(layer_decay=0.5).groups(network, 1) for name in group["names"]}
    assert {layers[name] for name in ("mask_token", "encoder.embed.proj.weight")} == {0}
    assert {layers[name] for name in ("decoder.weight", "decoder.bias", "encoder.norm.weight")} == {4}
    assert layers["encoder.stages.1.blocks.1.mlp.fc1.weight"] == 3


UPDATES = [
    *(word for word in TINY if "epochs" not in word),
    "task=simmim",
    f"task.mask_patch_size={CELL}",
    "augment=simmim",
    "schedule=multistep",
    "schedule.warmup_epochs=1",
    "schedule.warmup_lr_ratio=0.005",
    "schedule.epochs=[3]",
    "trainer.max_epochs=5",
    "trainer.gradient_clip_val=0.5",
    "data.num_workers=0",
    "+trainer.enable_checkpointing=false",
]


class Losses(Callback):
    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, *_):
        self.values.append(trainer.callback_metrics["train/loss"].item())


def built(version, side):
    """Builds the components of a run; both calls have the same weights, none of them zero."""
    target = "null" if side is None else side
    training = build_from([*UPDATES, f"model.version={version}", f"task.norm_target_size={target}"], None, {})
    torch.manual_seed(3)
    for parameter in training.model.network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return training


@pytest.mark.parametrize(("version", "side"), [(1, None), (2, 47)], ids=["V1", "V2"])
def test_twenty_updates_equal_a_plain_loop(version, side):
    """4 updates per epoch; the rate rises in the first epoch and is divided by ten after the third.

    Weights may differ by 2e-6: AdamW divides by the root of gradients that are small.
    """
    training, watch = built(version, side), Losses()
    build_trainer(training.config.trainer, "32-true", callbacks=[watch]).fit(training.engine, training.data_module)
    plain = built(version, side)
    network, data, expected = plain.model.network.train(), plain.data_module, []
    data.trainer = SimpleNamespace(global_rank=0, world_size=1, num_devices=1, training=True, precision_plugin=Precision())
    names = ("mask_token", "relative_position_bias_table", "cpb_mlp", "logit_scale")
    spared = {n: p.ndim == 1 or n.endswith("bias") or any(m in n for m in names) for n, p in network.named_parameters()}
    groups = [
        {"params": [p for n, p in network.named_parameters() if spared[n] == which], "weight_decay": 0.0 if which else 0.05}
        for which in (False, True)
    ]
    peak = 3e-3 * (16 / 32) ** 0.5
    optimizer = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.999), eps=1e-8)
    for epoch in range(5):
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        for number, loaded in enumerate(loader):
            images, _, _, mask = data.on_after_batch_transfer(data.on_before_batch_transfer(loaded, 0), 0)
            for group in optimizer.param_groups:
                group["lr"] = peak * ((0.005 + 0.995 * number / 4) if epoch == 0 else 0.1 if epoch >= 3 else 1.0)
            optimizer.zero_grad()
            loss = published_loss(network, images, mask, side)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
            optimizer.step()
            expected.append(loss.item())
    assert len(watch.values) == 20
    assert watch.values == pytest.approx(expected, abs=1e-6)
    for (name, mine), theirs in zip(training.model.network.named_parameters(), network.parameters(), strict=True):
        assert (mine - theirs).abs().max() < 2e-6, name


# Refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_patch_size": 0}, "task.mask_patch_size=0 must be"),
        ({"mask_ratio": 0.0}, "task.mask_ratio=0.0 must be a number between 0 and 1"),
        ({"mask_ratio": 1.0}, "task.mask_ratio=1.0 must be a number between 0 and 1"),
        ({"norm_target_size": 4}, "task.norm_target_size=4 must be an odd integer"),
    ],
)
def test_values_without_sense_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        SimMIM(**changes)


@pytest.mark.parametrize("changes", [{"mask_patch_size": 32}, {"mask_patch_size": 6}, {"mask_patch_size": 12}])
def test_cells_that_do_not_fit_the_images_are_refused_with_those_that_do(changes):
    with pytest.raises(UserError, match=r"does not split images of 32x32 .*\nFor the cells, choose one of \[4, 8, 16\]"):
        network_of(1, SimMIM(**changes))


def test_images_that_the_stride_does_not_divide_are_refused():
    with pytest.raises(UserError, match=r"model.img_size=36x36 must be a multiple of 8"):
        task_of().build_network(SwinTransformer(SwinConfig(**SIZES | {"img_size": 36})))


def test_another_network_is_refused():
    with pytest.raises(UserError, match="masks the tokens of a SwinTransformer; the model is a Linear"):
        task_of().build_network(torch.nn.Linear(2, 2))
