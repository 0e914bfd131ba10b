"""Progressive resolution: training batches have the size of their epoch, evaluations the full one."""

import sys

import pytest
import torch
from conftest import TINY, Command, only_run
from torch import nn

from swin_lab.data.progressive import ProgressiveSize
from swin_lab.errors import UserError
from swin_lab.run.together import check_image_sizes

SIZES = ((1, 16), (3, 24), (5, 32))


@pytest.mark.parametrize(("epoch", "side"), [(0, 32), (1, 16), (2, 16), (3, 24), (4, 24), (5, 32), (90, 32)])
def test_an_epoch_has_the_size_of_the_last_key_that_has_begun(epoch, side):
    assert ProgressiveSize(SIZES, (32, 32)).at(epoch) == (side, side)


def test_it_is_described_by_its_sizes_with_epochs_as_in_the_lines_of_a_training():
    assert str(ProgressiveSize(SIZES, (32, 64))) == (
        "32x64 pixels until epoch 1, 16x32 pixels until epoch 3, 24x48 pixels until epoch 5, then 32x64 pixels"
    )


def test_epochs_that_do_not_increase_are_refused():
    with pytest.raises(UserError, match=r"has the epochs \[4, 0\], which must increase"):
        ProgressiveSize(((4, 24), (0, 16)), (32, 32))


def test_the_shape_of_images_that_are_not_square_is_kept():
    progressive = ProgressiveSize(((0, 16),), (64, 32))
    assert progressive.at(0) == (32, 16)
    assert progressive.resize(torch.rand(2, 3, 64, 32), 0).shape == (2, 3, 32, 16)


def test_a_constant_image_stays_constant():
    """Within 1e-6."""
    resized = ProgressiveSize(((0, 20),), (32, 32)).resize(torch.full((1, 3, 32, 32), 0.7), 0)
    assert torch.allclose(resized, torch.full((1, 3, 20, 20), 0.7), atol=1e-6)


def test_epochs_of_full_size_leave_the_batch_as_it_is():
    images = torch.rand(1, 3, 32, 32)
    assert ProgressiveSize(SIZES, (32, 32)).resize(images, 5) is images


def test_a_size_above_that_of_the_input_is_refused():
    with pytest.raises(UserError, match="64 pixels from epoch 2 on are more than the 32 of the input"):
        ProgressiveSize(((0, 16), (2, 64)), (32, 32))


WATCH = """
from lightning import Callback

SIZES = []


class Watch(Callback):
    def on_train_batch_start(self, trainer, module, batch, *_):
        SIZES.append(("train", trainer.current_epoch, batch[0].shape[-1]))

    def on_validation_batch_start(self, trainer, module, batch, *_):
        SIZES.append(("val", trainer.current_epoch, batch[0].shape[-1]))
"""


STOP = """
import os, signal
from lightning import Callback


class Stop(Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.parametrize("loading", [[], ["data.cache=device", "augment=cifar"]], ids=["loader", "on the device"])
def test_a_run_trains_at_the_size_of_the_epoch_and_evaluates_at_the_full_one(command: Command, tmp_path, loading) -> None:
    (tmp_path / "sizes.py").write_text(WATCH)
    watched = ["data.size_by_epoch=[[0,16],[1,24]]", "+callbacks.watch={_target_: sizes.Watch}"]
    outcome = command("train", *TINY, *loading, *watched)
    assert outcome.code == 0, outcome.err
    assert "\nresizing   16x16 pixels until epoch 1, then 24x24 pixels\n" in outcome.out
    seen = sys.modules["sizes"].SIZES
    assert {entry[2] for entry in seen if entry[0] == "val"} == {32}
    assert {entry[1:] for entry in seen if entry[0] == "train"} == {(0, 16), (1, 24)}
    evaluated = command("eval", f"checkpoint={only_run(tmp_path)}")
    assert evaluated.code == 0, evaluated.err


def test_a_stopped_run_goes_on_at_the_size_of_its_epoch(command: Command, tmp_path) -> None:
    """Its weights are those of a run that was not stopped, to the bit."""
    words = [*TINY, "data.size_by_epoch=[[0,16],[1,24]]"]
    assert command("train", *words, "out=whole").code == 0
    (tmp_path / "stop_progressive.py").write_text(STOP)
    assert command("train", *words, "out=parts", "+callbacks.stop={_target_: stop_progressive.Stop}").code == 75
    assert command("train", f"resume={only_run(tmp_path / 'parts')}").code == 0
    one, two = (
        torch.load(only_run(tmp_path / out) / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for out in ("whole", "parts")
    )
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.size_by_epoch=[[0,64]]", "64 pixels from epoch 0 on are more than the 32 of the input"),
        ("data.size_by_epoch=[[0,1]]", "images of 1x1 pixels are smaller than a patch, 4x4; choose larger ones"),
        ("data.size_by_epoch=[]", "a list of pairs"),
        ("data.size_by_epoch=[[-1,16]]", "a list of pairs"),
        ("data.size_by_epoch=[[0,0]]", "a list of pairs"),
        ("data.size_by_epoch=16", "a list of pairs"),
        ("data.size_by_epoch=[16]", "a list of pairs"),
        ("data.size_by_epoch=[[half,16]]", "a list of pairs"),
    ],
)
def test_sizes_without_sense_are_refused(command: Command, override: str, message: str) -> None:
    outcome = command("train", *TINY, override)
    assert outcome.code == 2
    assert message in outcome.err


def test_a_size_that_is_never_reached_is_warned_of(command: Command) -> None:
    outcome = command("train", *TINY, "data.size_by_epoch=[[0,16],[2,32]]")
    assert outcome.code == 0, outcome.err
    assert "data.size_by_epoch: epoch 2, counted from 0, is never reached; the run has 2" in outcome.printed


def test_a_network_that_takes_one_size_is_refused() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
    check_image_sizes(network, [(32, 32)], 3)
    with pytest.raises(UserError, match="a Sequential takes no images of 16x16 pixels"):
        check_image_sizes(network, [(32, 32), (16, 16)], 3)
    assert network.training


def test_a_convolutional_network_of_another_library_is_accepted(command: Command) -> None:
    words = [*TINY[3:], "model=timm", "model.name=test_resnet", "model.img_size=32", "data.size_by_epoch=[[0,16]]"]
    assert command("train", *words, "trainer.max_epochs=1").code == 0


def test_it_is_refused_together_with_masks_that_a_task_draws(command: Command) -> None:
    outcome = command("train", *TINY, "task=simmim", "task.mask_patch_size=8", "data.size_by_epoch=[[0,16]]")
    assert outcome.code == 2
    assert "data.size_by_epoch has other sizes than what the task draws" in outcome.err
