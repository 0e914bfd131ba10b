"""A network that gives no logits is refused with what it gives and what is needed."""

import pytest
import torch
from torch import nn

from swin_lab.errors import UserError
from swin_lab.tasks import Classification
from swin_lab.training import DataDescription

IMAGES, LABELS = torch.zeros(2, 3, 8, 8), torch.tensor([0, 1])


class Giving(nn.Module):
    """Returns always the same."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, images):
        return self.output


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    ("output", "found"),
    [
        (None, "a NoneType"),
        ({"logits": torch.zeros(2, 3)}, "a dict"),
        ((torch.zeros(2, 3), torch.zeros(2, 3)), "a tuple"),
        (torch.zeros(2, 1000), r"a tensor \(2, 1000\)"),
        (torch.zeros(2, 3, 8, 8), r"a tensor \(2, 3, 8, 8\)"),
        (torch.zeros(3), r"a tensor \(3,\)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_network_that_gives_no_logits_is_refused_in_training_and_evaluation(output, found, flip):
    task = Classification(data=DataDescription(class_names=("a", "b", "c")), flip=flip)
    for use in (
        lambda: task.training_loss(Giving(output), (IMAGES, LABELS), 0),
        lambda: task.evaluation_output(Giving(output), (IMAGES,)),
    ):
        with pytest.raises(UserError, match=rf"Giving\) returns {found}; .* logits \(2, 3\), \(images, classes\)"):
            use()


def test_batch_normalisation_of_one_value_is_refused_with_the_remedy():
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3), nn.Flatten())
    with pytest.raises(UserError, match=r"more than one value per channel, and 1 image of 8x8 pixels .*global_batch"):
        Classification(data=DataDescription(class_names=("a", "b", "c"))).training_loss(network, (IMAGES[:1], LABELS[:1]), 0)


def test_an_error_inside_a_network_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        Classification(data=DataDescription(class_names=("a", "b"))).training_loss(nn.Linear(5, 2), (IMAGES, LABELS), 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_the_loss_is_computed_from_logits_in_full_precision_at_least(dtype):
    task = Classification(data=DataDescription(class_names=("a", "b")))
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).to(dtype)
    loss = task.training_loss(network, (torch.rand(4, 3, 2, 2).to(dtype), torch.tensor([0, 1, 0, 1])), 0)
    assert loss.dtype == torch.promote_types(dtype, torch.float32)
