"""Drop path that computes only the branches it keeps: its numbers of images, its expectation, and where it can be used."""

from collections import Counter

import pytest
import torch
from torch import nn

from swin_lab import SwinConfig, SwinTransformer
from swin_lab.errors import UserError
from swin_lab.models.drop_path import DropPath

TINY = {"img_size": 32, "embed_dim": 8, "depths": (1, 2), "num_heads": (1, 2), "window_size": 4, "num_classes": 5}
both_versions = pytest.mark.parametrize("version", [1, 2])


def tiny(**changes):
    torch.manual_seed(0)
    model = SwinTransformer(SwinConfig(**TINY | {"drop_path_rate": 0.5, "drop_path_mode": "skip"} | changes))
    for stage in model.stages:
        for block in stage.blocks:
            nn.init.ones_(block.norm1.weight)  # V2's are 0 at first, which makes every branch 0.
            nn.init.ones_(block.norm2.weight)
    return model.train()


def maps(batch):
    return torch.rand(batch, 2, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1


def images(batch):
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("batch", "rate", "kept"),
    [(8, 0.5, 4), (8, 0.25, 6), (8, 0.2, 6), (10, 0.2, 8), (128, 0.1, 115), (4, 0.1, 4), (1, 0.9, 1), (2, 0.9, 1), (5, 0, 5)],
)
def test_the_branch_is_computed_for_a_fixed_number_of_images_and_at_least_one(batch, rate, kept):
    seen = []
    drop = DropPath(rate, "skip").train()
    for _ in range(5):
        added = drop(maps(batch), lambda x: seen.append(len(x)) or x) - maps(batch)
        assert (added != 0).flatten(1).all(dim=1).sum() == kept
    assert set(seen) == {kept}


def test_a_kept_branch_is_scaled_up_by_the_batch_over_the_kept_images():
    x = maps(8)
    added = DropPath(0.25, "skip").train()(x, torch.sin) - x
    kept = (added != 0).flatten(1).all(dim=1)
    torch.testing.assert_close(added[kept], 8 / 6 * x[kept].sin(), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("batch", "rate"), [(4, 0.5), (5, 0.3), (3, 0.5), (2, 0.9)])
def test_the_mean_over_many_draws_is_the_full_branch_and_every_image_is_kept_equally_often(batch, rate):
    """Of 4,000 draws, counts differ from their expectation by at most 5 standard deviations of a binomial distribution."""
    torch.manual_seed(0)
    x, drop, draws = maps(batch), DropPath(rate, "skip").train(), 4000
    total, counts = torch.zeros_like(x), Counter()
    for _ in range(draws):
        added = drop(x, torch.sin) - x
        total += added
        counts.update(added.flatten(1).any(dim=1).nonzero().flatten().tolist())
    share = max(1, round(batch * (1 - rate))) / batch
    bound = 5 * (share * (1 - share) / draws) ** 0.5
    assert [counts[i] / draws for i in range(batch)] == pytest.approx([share] * batch, abs=bound)
    torch.testing.assert_close(total / draws, x.sin(), rtol=bound / share, atol=0)


def test_gradients_reach_the_kept_images_through_branch_and_identity_and_the_others_through_the_identity():
    x = maps(8).requires_grad_()
    out = DropPath(0.5, "skip").train()(x, torch.square)
    out.sum().backward()
    kept = (out != x).flatten(1).all(dim=1)
    torch.testing.assert_close(x.grad[kept], 1 + 2 * 2 * x[kept].detach(), atol=1e-12, rtol=0)
    assert (x.grad[~kept] == 1).all()


def test_random_numbers_come_from_the_generator_of_torch():
    model, batch = tiny(), images(8)
    logits = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        logits.append(model(batch))
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])


@both_versions
def test_in_evaluation_nothing_is_skipped(version):
    skipping, masking = (tiny(version=version, drop_path_mode=mode).eval() for mode in ("skip", "mask"))
    assert torch.equal(skipping(images(4)), masking(images(4)))


@both_versions
def test_where_nothing_is_dropped_both_modes_compute_the_same_bits(version):
    skipping, masking = (tiny(version=version, drop_path_rate=0.0, drop_path_mode=mode) for mode in ("skip", "mask"))
    assert torch.equal(skipping(images(4)), masking(images(4)))


@both_versions
def test_every_parameter_gets_a_gradient_also_in_mixed_precision(version):
    model = tiny(version=version)
    with torch.autocast("cpu", torch.bfloat16):
        model(images(8)).float().square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@both_versions
def test_activation_checkpointing_drops_the_same_images_again_in_the_backward_pass(version):
    results = []
    for checkpointing in (False, True):
        model = tiny(version=version, activation_checkpointing=checkpointing)
        torch.manual_seed(1)
        logits = model(images(8))
        logits.square().sum().backward()
        results.append([logits, *(parameter.grad for parameter in model.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@both_versions
def test_a_compiled_network_skips_the_same_images_without_a_graph_break(version):
    """Eager kernels under the compiler's decompositions: logits and gradients differ by 1e-5 at most."""
    torch._dynamo.reset()
    results = []
    for compiled in (False, True):
        model = tiny(version=version)
        if compiled:
            model.compile(backend="aot_eager", fullgraph=True)
        torch.manual_seed(1)
        logits = model(images(8))
        logits.square().sum().backward()
        results.append([logits, *(parameter.grad for parameter in model.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-4)


def test_an_unknown_mode_is_refused():
    with pytest.raises(UserError, match=r"drop_path_mode=skipp is unknown; did you mean skip\?"):
        tiny(drop_path_mode="skipp")
