"""Distillation against its published formulas, written out here: losses, gradients, maps, and the images of the teacher."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from swin_lab import SwinConfig, SwinTransformer
from swin_lab.errors import UserError
from swin_lab.models.feature_model import FeatureModel
from swin_lab.preprocessing import Preprocessing
from swin_lab.tasks import Classification, Distillation, Mixing
from swin_lab.tasks.distillation import map_difference
from swin_lab.tasks.teacher import Teacher
from swin_lab.training import DataDescription

CLASSES = ("a", "b", "c", "d", "e")
SIZES = {"img_size": 32, "depths": (1, 2), "num_heads": (1, 2), "window_size": 4, "num_classes": 5, "drop_path_rate": 0.0}
SEEN = Preprocessing.for_data(
    img_size=(32, 32), channels=3, crop_pct=1.0, interpolation="bicubic", mean=[0.5] * 3, std=[0.25] * 3
)
MIXING = Mixing(mixup=0.8, cutmix=1.0)
KINDS = pytest.mark.parametrize(
    "kind",
    [{"kind": "hard"}, {"kind": "hard", "share": 0.3}, {"kind": "soft"}, {"kind": "soft", "share": 0.7, "temperature": 2.0}],
    ids=["hard", "hard 0.3", "soft", "soft 0.7"],
)
TARGETS = pytest.mark.parametrize("targets", [{}, {"label_smoothing": 0.1}, {"mixing": MIXING, "label_smoothing": 0.1}])


def network_of(dim, seed):
    torch.manual_seed(seed)
    network = SwinTransformer(SwinConfig(embed_dim=dim, **SIZES))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network


def batch_of(images=6):
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(images, 3, 32, 32, generator=generator)
    return pixels, torch.arange(images) % len(CLASSES), torch.arange(images)


def fresh(batch):
    """Mixing writes to the images."""
    return tuple(tensor.clone() for tensor in batch)


def built(own=SEEN, **settings):
    """Returns a task with its teacher, the student, and the networks of both without what the task adds."""
    task = Distillation(data=DataDescription(class_names=CLASSES), teacher="somewhere", **settings)
    teacher, student = network_of(16, 1), network_of(8, 2)
    frozen, network = task.with_features(teacher, student)
    return replace(task, teacher=Teacher(frozen, "a teacher", own, SEEN)), network, teacher, student


def published_loss(student_logits, teacher_logits, targets, kind, share, temperature):
    """TASKS: (1 - a) CE + a T^2 KL(softmax(teacher / T), softmax(student / T)), or (1 - a) CE + a CE(argmax teacher)."""
    own = -(targets * student_logits.softmax(1).log()).sum(1)
    if kind == "hard":
        taught = -student_logits.softmax(1).log()[torch.arange(len(targets)), teacher_logits.argmax(1)]
    else:
        p, q = (teacher_logits / temperature).softmax(1), (student_logits / temperature).softmax(1)
        taught = temperature**2 * (p * (p / q).log()).sum(1)
    return ((1 - share) * own + share * taught).mean()


def smoothed(labels, smoothing):
    return F.one_hot(labels, len(CLASSES)) * (1 - smoothing) + smoothing / len(CLASSES)


@KINDS
@TARGETS
def test_loss_and_gradients_are_the_published_ones(kind, targets):
    task, network, teacher, _ = built(**kind, **targets)
    images, labels, _ = fresh(batch_of())
    wanted = smoothed(labels, targets.get("label_smoothing", 0.0))
    if "mixing" in targets:
        images, wanted = MIXING.mix(images, labels, len(CLASSES), 0.1, 7)
    share = kind.get("share", {"hard": 0.5, "soft": 0.1}[kind["kind"]])
    expected = published_loss(network(images), teacher(images), wanted, kind["kind"], share, kind.get("temperature", 3.0))
    parameters = list(network.parameters())
    expected_gradients = torch.autograd.grad(expected, parameters)
    loss = task.training_loss(network, fresh(batch_of()), 7)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    for mine, theirs in zip(torch.autograd.grad(loss, parameters), expected_gradients, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-6)


@KINDS
@TARGETS
def test_with_share_0_loss_and_gradients_are_those_of_classification_to_the_bit(kind, targets):
    task, network, _, _ = built(**kind | {"share": 0.0}, **targets)
    plain = Classification(data=task.data, **targets)
    parameters = list(network.parameters())
    losses = [each.training_loss(network, fresh(batch_of()), 7) for each in (task, plain)]
    assert torch.equal(*losses)
    for mine, theirs in zip(*(torch.autograd.grad(loss, parameters) for loss in losses), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("stages", [None, (1,)])
def test_maps_are_compared_after_an_adapter_with_normalised_ones(stages):
    task, network, teacher, student = built(share=0.0, features=0.4, feature_stages=stages)
    assert isinstance(network, FeatureModel)
    images, labels, _ = batch_of()
    chosen = [0, 1] if stages is None else list(stages)
    pairs = zip(student.features(images, chosen), teacher.features(images, chosen), network.adapters, strict=True)
    differences = []
    for own_BCHW, taught_BCHW, adapter in pairs:
        own = own_BCHW.movedim(1, -1) @ adapter.weight.T + adapter.bias
        taught = taught_BCHW.movedim(1, -1).detach()
        normalised = (taught - taught.mean(-1, keepdim=True)) / (taught.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        differences.append((own - normalised).square().mean())
    expected = F.cross_entropy(student(images), labels) + 0.4 * sum(differences) / len(differences)
    loss = task.training_loss(network, batch_of(), 0)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    loss.backward()
    reached = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert {"adapters.0.weight", "adapters.0.bias", "model.embed.proj.weight"} <= reached


def test_a_student_with_adapters_gives_the_logits_of_the_model():
    _, network, _, student = built(features=1.0)
    images = batch_of()[0]
    assert torch.equal(network(images), student(images))
    assert torch.equal(network(images, with_maps=True)[0], student(images))
    assert network.layer_of("adapters.0.weight") == student.layer_of("head.weight")
    assert network.layer_of("model.embed.proj.weight") == 0


def test_compiled_networks_have_the_loss_and_the_gradients_of_plain_ones():
    """With a backend that needs no C++ compiler, and without graph breaks."""
    task, network, _, _ = built(kind="soft", features=0.4)
    parameters = list(network.parameters())
    expected = task.training_loss(network, batch_of(), 0)
    expected_gradients = torch.autograd.grad(expected, parameters)
    for part in (network, task.teacher.network):
        part.compile(backend="eager", fullgraph=True)
    loss = task.training_loss(network, batch_of(), 0)
    torch._dynamo.reset()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    for mine, theirs in zip(torch.autograd.grad(loss, parameters), expected_gradients, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-6)


# The teacher


def test_the_teacher_is_in_evaluation_mode_and_has_no_gradients():
    task, network, teacher, _ = built(kind="soft")
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for seed in range(3):
        task.training_loss(network.train(), fresh(batch_of()), seed).backward()
        optimizer.step()
    assert not teacher.training
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


def test_the_teacher_gets_the_pixels_in_its_own_normalisation():
    own = replace(SEEN, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    values = torch.rand(2, 3, 32, 32)
    teacher = Teacher(torch.nn.Identity(), "a teacher", own, SEEN)
    seen = teacher((values - 0.5) / 0.25)
    expected = (values - torch.tensor(own.mean)[:, None, None]) / torch.tensor(own.std)[:, None, None]
    assert torch.allclose(seen, expected, atol=1e-5)
    assert teacher.changes == "normalised with mean (0.485, 0.456, 0.406) and std (0.229, 0.224, 0.225)"


@pytest.mark.parametrize(("interpolation", "mode"), [("bilinear", "bilinear"), ("lanczos", "bicubic")])
def test_the_teacher_gets_images_of_its_own_size(interpolation, mode):
    own = replace(SEEN, img_size=(48, 40), interpolation=interpolation)
    images = torch.randn(2, 3, 32, 32)
    teacher = Teacher(torch.nn.Identity(), "a teacher", own, SEEN)
    assert torch.equal(teacher(images), F.interpolate(images, (48, 40), mode=mode, antialias=True))
    assert teacher.changes == f"resized from 32x32 to 48x40 ({mode})"


def test_maps_of_another_size_are_compared_at_that_of_the_student():
    """A map of 2x2 means of a map is compared like these means: the loss of maps that are equal then is 0."""
    means = torch.randn(2, 3, 4, 8, generator=torch.Generator().manual_seed(0))
    larger = means.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    resized = F.interpolate(larger.permute(0, 3, 1, 2), (3, 4), mode="bilinear", antialias=True).permute(0, 2, 3, 1)
    assert map_difference(resized, larger).item() == 0
    assert map_difference(means + 1, larger).item() == pytest.approx((means + 1 - resized).square().mean().item(), rel=1e-6)
    task, network, _, _ = built(own=replace(SEEN, img_size=(64, 64)), features=1.0)
    assert task.training_loss(network, batch_of(), 0).isfinite()


def test_statistics_of_a_teacher_do_not_change_in_a_training():
    network = network_of(8, 2)
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 4, 4), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(256, 5)
    )
    teacher = Teacher(layers.train(), "a teacher", SEEN, SEEN)
    before = {name: value.clone() for name, value in layers.state_dict().items()}
    task = Distillation(data=DataDescription(class_names=CLASSES), teacher=teacher)
    network.train()
    task.training_loss(network, batch_of(), 0).backward()
    assert all(torch.equal(value, before[name]) for name, value in layers.state_dict().items())
    assert all(parameter.grad is None for parameter in layers.parameters())


def test_a_teacher_of_the_same_preprocessing_gets_the_very_images():
    images = torch.randn(2, 3, 32, 32)
    teacher = Teacher(torch.nn.Identity(), "a teacher", SEEN, SEEN)
    assert teacher(images) is images
    assert teacher.changes == "as the student sees them"


def test_a_teacher_keeps_its_size_where_an_epoch_of_the_student_has_another_one():
    teacher = Teacher(torch.nn.Identity(), "a teacher", SEEN, SEEN)
    assert teacher(torch.randn(2, 3, 16, 16)).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_teacher_computes_in_the_precision_of_its_images(dtype):
    teacher = Teacher(network_of(8, 0), "a teacher", replace(SEEN, mean=(0.4, 0.4, 0.4)), SEEN)
    assert teacher(torch.randn(2, 3, 32, 32, dtype=dtype)).dtype == dtype


# Refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": 3}, r"task\.teacher=3 must be a weight file"),
        ({"kind": "both"}, r"task\.kind=both is unknown; did you mean soft"),
        ({"share": 1.5}, r"task\.share=1\.5 must be"),
        ({"share": -0.1}, r"task\.share=-0\.1 must be"),
        ({"kind": "soft", "temperature": 0.0}, r"task\.temperature=0\.0 must be a positive number"),
        ({"temperature": 3.0}, r"task\.temperature=3\.0 has no effect on task\.kind=hard"),
        ({"features": -1.0}, r"task\.features=-1\.0 must be"),
        ({"feature_stages": (0,)}, r"task\.feature_stages=\[0\] has no effect with task\.features=0"),
    ],
)
def test_values_without_sense_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        Distillation(**{"data": DataDescription(class_names=CLASSES), "teacher": "somewhere"} | changes)


@pytest.mark.parametrize("stages", [(2,), (1, 0), ()])
def test_stages_that_do_not_exist_in_both_networks_are_refused(stages):
    with pytest.raises(UserError, match=r"must be some of \[0, 1\], in increasing order"):
        built(features=1.0, feature_stages=stages)


def test_maps_of_other_networks_are_refused():
    task = Distillation(data=DataDescription(class_names=CLASSES), teacher="somewhere", features=1.0)
    with pytest.raises(UserError, match="the teacher is a Linear, the student a SwinTransformer"):
        task.with_features(torch.nn.Linear(2, 2), network_of(8, 0))


def test_a_teacher_of_grey_images_is_refused_for_colours():
    own = replace(SEEN, channels=1, mean=(0.5,), std=(0.25,))
    with pytest.raises(UserError, match="it reads images of 1 channels, and the student images of 3"):
        Teacher(torch.nn.Identity(), "a teacher", own, SEEN)
