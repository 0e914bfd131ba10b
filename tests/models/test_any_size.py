"""Any height and width at forward time, and windows that fit the map."""

import pytest
import torch

from swin_lab import SwinConfig, SwinTransformer


def tiny(**changes):
    torch.manual_seed(0)
    base = {"img_size": 64, "embed_dim": 16, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8), "window_size": 4}
    model = SwinTransformer(SwinConfig(**base | {"num_classes": 5} | changes)).eval()
    for block in (block for stage in model.stages for block in stage.blocks):  # a new block of V2 is an identity
        torch.nn.init.ones_(block.norm1.weight)
        torch.nn.init.ones_(block.norm2.weight)
    return model


both_versions = pytest.mark.parametrize("version", [1, 2])


def images(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@both_versions
@pytest.mark.parametrize("size", [(250, 190), (32, 32), (500, 333), (37, 61), (1, 1), (4, 300)])
def test_every_map_is_the_image_divided_by_its_stride_rounded_up(size, version):
    maps = tiny(version=version, window_size=7).features(images(1, 3, *size))
    height, width = -(-size[0] // 4), -(-size[1] // 4)
    for x in maps:
        assert x.shape[2:] == (height, width)
        assert x.isfinite().all()
        height, width = -(-height // 2), -(-width // 2)


@both_versions
def test_pixels_missing_in_the_last_row_and_column_of_patches_count_as_zeros(version):
    model, image = tiny(version=version), images(1, 3, 37, 61)
    filled = torch.zeros(1, 3, 40, 64)
    filled[:, :, :37, :61] = image
    torch.testing.assert_close(model(image), model(filled), atol=0, rtol=0)


@both_versions
def test_an_image_size_does_not_affect_the_logits_of_the_next(version):
    model = tiny(version=version)
    sizes = [(64, 64), (50, 78), (32, 96), (17, 23)]
    first = [model(images(1, 3, *size)) for size in sizes]
    again = [model(images(1, 3, *size)) for size in reversed(sizes)]
    assert all(torch.equal(a, b) for a, b in zip(first, reversed(again), strict=True))


@both_versions
def test_gradients_are_finite_at_one_size_after_another(version):
    model = tiny(version=version)
    for size in [(64, 64), (40, 72)]:
        model.zero_grad()
        model(images(2, 3, *size)).square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@both_versions
def test_img_size_only_shrinks_windows(version):
    """Both sizes give maps of at least one window per stage, so that both networks have the same parameters."""
    small, large = tiny(version=version, img_size=128), tiny(version=version, img_size=512)
    large.load_state_dict(small.state_dict(), strict=True)
    image = images(1, 3, 96, 64)
    assert torch.equal(small(image), large(image))


def test_a_small_img_size_shrinks_the_window_of_the_stages_it_is_too_small_for():
    model = tiny(img_size=32, window_size=7)
    assert [stage.blocks[0].attn.window for stage in model.stages] == [(7, 7), (4, 4), (2, 2), (1, 1)]
    rows = [stage.blocks[0].attn.relative_position_bias_table.shape[0] for stage in model.stages]
    assert rows == [13 * 13, 7 * 7, 3 * 3, 1]


def test_a_shrunk_window_still_shifts_by_half_of_itself_on_a_larger_image():
    model = tiny(img_size=32, window_size=7)
    assert [stage.blocks[1].attn.shift for stage in model.stages] == [(3, 3), (2, 2), (1, 1), (0, 0)]
    assert model(images(1, 3, 64, 64)).isfinite().all()


def test_height_and_width_of_img_size_shrink_windows_each_on_its_own():
    model = tiny(img_size=[32, 128], window_size=7)
    assert [stage.blocks[0].attn.window for stage in model.stages] == [(7, 7), (4, 7), (2, 7), (1, 4)]
    assert model(images(1, 3, 32, 128)).shape == (1, 5)


def test_an_img_size_that_is_not_a_multiple_of_the_patch_counts_its_last_patch():
    assert tiny(img_size=33, window_size=20).stages[0].blocks[0].attn.window == (9, 9)


def test_windows_may_differ_from_stage_to_stage_and_between_height_and_width():
    model = tiny(img_size=128, window_size=[8, [4, 8], 4, [2, 4]])
    assert [stage.blocks[0].attn.window for stage in model.stages] == [(8, 8), (4, 8), (4, 4), (2, 4)]
    assert [stage.blocks[1].attn.shift for stage in model.stages] == [(4, 4), (2, 4), (2, 2), (1, 2)]
    assert model(images(1, 3, 100, 128)).isfinite().all()


def test_one_pair_for_all_stages_is_written_once_per_stage():
    model = tiny(window_size=[[2, 4]] * 4)
    assert {stage.blocks[0].attn.window for stage in model.stages} == {(2, 4), (2, 2)}


def test_patches_may_have_another_size():
    maps = tiny(img_size=32, patch_size=2).features(images(1, 3, 30, 32))
    assert [x.shape[2:] for x in maps] == [(15, 16), (8, 8), (4, 4), (2, 2)]


@pytest.mark.parametrize(("depths", "heads"), [((1,), (2,)), ((2, 3), (2, 4)), ((1, 1, 2, 1, 1), (1, 1, 2, 4, 8))])
def test_a_network_has_as_many_stages_as_depths(depths, heads):
    model = tiny(depths=depths, num_heads=heads)
    assert [len(stage.blocks) for stage in model.stages] == list(depths)
    assert model.embedding(images(2, 3, 64, 64)).shape == (2, 16 * 2 ** (len(depths) - 1))
