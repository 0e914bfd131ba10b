"""Several labels per image: losses against their formulas, mixing, and metrics against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve
from torch import nn

from swin_lab.errors import UserError
from swin_lab.tasks import Classification, Mixing, MultiLabelClassification
from swin_lab.tasks.multi_label_metrics import PER_CLASS, MultiLabelMetrics, best_thresholds
from swin_lab.training import DataDescription

CLASSES = ("ant", "bee", "cat", "dog")


def description(**changes):
    values = {"several_labels": True, "train_shares": (2 / 8, 4 / 8, 1 / 8, 6 / 8)}
    return DataDescription(**{"class_names": CLASSES} | values | changes)


def task_of(**changes):
    return MultiLabelClassification(**{"data": description()} | changes)


class Flat(nn.Module):
    """The first four pixels of an image are its logits."""

    def forward(self, images):
        return images.flatten(1)[:, : len(CLASSES)]


def batch_of(logits, targets):
    images = torch.zeros(len(logits), 3, 2, 2)
    images.view(len(logits), -1)[:, : logits.shape[1]] = logits
    return images, torch.tensor(targets, dtype=torch.uint8), torch.arange(len(logits))


@pytest.fixture
def random_batch():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(6, 4, generator=generator)
    return batch_of(logits, (torch.rand(6, 4, generator=generator) > 0.5).int().tolist())


def probabilities_and_targets(batch):
    return Flat()(batch[0]).double().sigmoid(), batch[1].double()


def test_the_loss_is_the_binary_cross_entropy_averaged_over_images_and_classes(random_batch):
    p, y = probabilities_and_targets(random_batch)
    expected = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
    assert float(task_of().training_loss(Flat(), random_batch, 0)) == pytest.approx(float(expected), rel=1e-6)


def test_label_smoothing_moves_both_targets_towards_one_half(random_batch):
    p, y = probabilities_and_targets(random_batch)
    y = y * 0.9 + 0.05
    expected = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
    loss = task_of(label_smoothing=0.1).training_loss(Flat(), random_batch, 0)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize(("given", "used"), [([1, 2, 3, 4], [1, 2, 3, 4]), ("balanced", [6 / 2, 4 / 4, 7 / 1, 2 / 6])])
@pytest.mark.parametrize("loss", ["bce", "asymmetric"])
def test_class_weights_multiply_the_loss_of_labels_that_an_image_has(random_batch, given, used, loss):
    p, y = probabilities_and_targets(random_batch)
    shifted = (p - (0.05 if loss == "asymmetric" else 0)).clamp(min=0)
    focus = shifted**4 if loss == "asymmetric" else 1
    expected = -(torch.tensor(used) * y * p.log() + (1 - y) * focus * (1 - shifted).log()).mean()
    found = task_of(loss=loss, class_weights=given).training_loss(Flat(), random_batch, 0)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(("gamma_negative", "gamma_positive", "margin"), [(4, 0, 0.05), (2, 1, 0.2), (1, 3, 0.0), (0, 0, 0.0)])
def test_the_asymmetric_loss_and_its_gradient_are_those_of_the_formula(random_batch, gamma_negative, gamma_positive, margin):
    """Equations 2, 5 and 7 of arXiv 2009.14119, in float64."""
    images, targets, indices = random_batch
    images = images.clone().requires_grad_()
    task = task_of(loss="asymmetric", gamma_negative=gamma_negative, gamma_positive=gamma_positive, margin=margin)
    loss = task.training_loss(Flat(), (images, targets, indices), 0)
    loss.backward()
    exact = Flat()(images).detach().double().requires_grad_()
    p, y = exact.sigmoid(), targets.double()
    p_m = (p - margin).clamp(min=0)
    terms = y * (1 - p) ** gamma_positive * p.log() + (1 - y) * p_m**gamma_negative * (1 - p_m).log()
    expected = -terms.mean()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert torch.allclose(Flat()(images.grad).double(), exact.grad, atol=1e-7)


def test_a_margin_that_disappears_in_float32_leaves_the_loss_finite():
    """1 - margin is 1 in float32, so that the logarithm of 1 - (p - margin) would be that of 0."""
    task = task_of(loss="asymmetric", margin=1e-9)
    loss = task.training_loss(Flat(), batch_of(torch.full((1, 4), 20.0), [[0, 0, 0, 0]]), 0)
    assert float(loss) == pytest.approx(-np.log(1 / (1 + np.exp(20.0)) + 1e-9), rel=1e-5)


@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_the_asymmetric_loss_has_finite_gradients_for_certain_mistakes(margin):
    images, targets, indices = batch_of(torch.tensor([[200.0, -200.0, 200.0, -200.0]]), [[0, 1, 1, 0]])
    images.requires_grad_()
    task = task_of(loss="asymmetric", gamma_positive=1.0, margin=margin)
    loss = task.training_loss(Flat(), (images, targets, indices), 0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(images.grad).all()


def test_mixup_mixes_the_labels_of_images_like_their_pixels():
    images = torch.zeros(4, 3, 2, 2)
    labels = torch.tensor([[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.uint8)
    images.view(4, -1)[:, :4] = labels.float()  # so that mixed pixels are mixed labels
    task = task_of(mixing=Mixing(mixup=1.0, cutmix=0.0))
    mixed, targets = task._mixed(images, labels, 3)
    assert not torch.equal(targets, labels.float())
    assert torch.allclose(Flat()(mixed), targets, atol=1e-6)


def test_cutmix_mixes_labels_by_the_share_of_pixels():
    """Image i has the value i everywhere, so that the pixels of a mixed image say how much of it is of which image."""
    labels = torch.tensor([[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.uint8)
    images = torch.arange(4.0)[:, None, None, None].expand(4, 3, 16, 16).clone()
    mixed, targets = task_of(mixing=Mixing(mixup=0.0, cutmix=1.0))._mixed(images, labels, 3)
    shares = torch.stack([(mixed == i).float().mean(dim=(1, 2, 3)) for i in range(4)], dim=1)
    assert torch.all((shares > 0).sum(dim=1) == 2)
    assert torch.allclose(targets, shares @ labels.float(), atol=1e-6)


def test_mixed_targets_keep_their_precision_in_mixed_precision():
    """Equal to those without autocast; bfloat16 would round them to 3 digits."""
    images, labels = torch.zeros(4, 3, 2, 2), torch.tensor([[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    task = task_of(mixing=Mixing(mixup=1.0, cutmix=0.0))
    _, expected = task._mixed(images.clone(), labels, 3)
    with torch.autocast("cpu", torch.bfloat16):
        _, targets = task._mixed(images.clone(), labels, 3)
    assert targets.dtype == torch.float32
    assert torch.equal(targets, expected)
    assert not torch.equal(expected, expected.bfloat16().float())


def test_the_images_that_the_network_sees_are_the_mixed_ones(random_batch):
    seen = []

    class Watching(Flat):
        def forward(self, images):
            seen.append(images.clone())
            return super().forward(images)

    task = task_of(mixing=Mixing(mixup=0.8, cutmix=1.0))
    before = random_batch[0].clone()
    expected = task.model_inputs(random_batch, 7)
    assert torch.equal(random_batch[0], before)
    task.training_loss(Watching(), random_batch, 7)
    assert torch.equal(seen[0], expected)


def computed(metrics, logits, targets, batch=16):
    for start in range(0, len(logits), batch):
        part = slice(start, start + batch)
        metrics.update(torch.from_numpy(logits[part]), (torch.zeros(1), torch.from_numpy(targets[part])))
    found = metrics.compute()
    return found | dict(zip(PER_CLASS, found["per_class"], strict=True))


@pytest.fixture(scope="module")
def random_set():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(200, 4)).astype(np.float32).round(1)  # with ties
    return logits, (generator.random((200, 4)) < [0.5, 0.1, 0.3, 0.9]).astype(np.uint8)


def test_average_precision_and_f1_are_those_of_scikit_learn(random_set):
    logits, targets = random_set
    found = computed(MultiLabelMetrics(4), logits, targets)
    probabilities = torch.from_numpy(logits).sigmoid().numpy()
    assert np.allclose(found["ap"], average_precision_score(targets, probabilities, average=None), atol=1e-6)
    assert float(found["map"]) == pytest.approx(average_precision_score(targets, probabilities, average="macro"), abs=1e-6)
    assert np.allclose(found["f1_half"], f1_score(targets, probabilities > 0.5, average=None), atol=1e-6)
    assert float(found["f1"]) == pytest.approx(f1_score(targets, probabilities > 0.5, average="macro"), abs=1e-6)
    assert int(found["images"]) == 200


def test_thresholds_have_the_best_f1_that_scikit_learn_finds(random_set):
    logits, targets = random_set
    found = computed(MultiLabelMetrics(4), logits, targets)
    probabilities = torch.from_numpy(logits).sigmoid().numpy()
    for c in range(4):
        precision, recall, _ = precision_recall_curve(targets[:, c], probabilities[:, c])
        best = (2 * precision * recall / np.maximum(precision + recall, 1e-9)).max()
        above = probabilities[:, c] > float(found["thresholds"][c])
        assert f1_score(targets[:, c], above) == pytest.approx(best, abs=1e-6)
        assert float(found["f1_at_threshold"][c]) == pytest.approx(best, abs=1e-6)


def test_a_threshold_lies_below_the_probability_that_it_separates_from_the_next_lower_one():
    """The mean of the two largest numbers up to 1 is rounded to 1, above which there is no probability."""
    highest, next_lower = torch.tensor(1.0), torch.nextafter(torch.tensor(1.0), torch.tensor(0.0))
    (threshold,) = best_thresholds(torch.stack([highest, next_lower])[:, None], torch.tensor([[1], [0]]))
    assert next_lower <= threshold < highest


def test_given_thresholds_are_used_instead(random_set):
    logits, targets = random_set
    found = computed(MultiLabelMetrics(4, (0.2, 0.4, 0.6, 0.8)), logits, targets)
    above = torch.from_numpy(logits).sigmoid().numpy() > np.float32([0.2, 0.4, 0.6, 0.8])
    assert np.allclose(found["thresholds"], [0.2, 0.4, 0.6, 0.8])
    assert np.allclose(found["f1_at_threshold"], f1_score(targets, above, average=None), atol=1e-6)


def test_classes_without_images_are_left_out_of_the_means_and_named(random_set):
    logits, targets = random_set
    targets = targets.copy()
    targets[:, 1] = 0
    found = computed(MultiLabelMetrics(4), logits, targets)
    others = [0, 2, 3]
    probabilities = torch.from_numpy(logits).sigmoid().numpy()
    expected = average_precision_score(targets[:, others], probabilities[:, others], average="macro")
    assert float(found["map"]) == pytest.approx(expected, abs=1e-6)
    assert float(found["thresholds"][1]) == 0.5
    shown = task_of().present({name: value.numpy() for name, value in found.items() if value.ndim})
    assert "left out, as no image has it: bee" in shown.tables[0].title
    assert shown.record["classes_without_images"] == ["bee"]
    assert [row["class"] for row in shown.record["per_class"]] != ["bee"]
    assert len(shown.record["per_class"]) == 3


def test_an_image_without_any_label_is_fine():
    batch = batch_of(torch.zeros(2, 4), [[0, 0, 0, 0], [0, 1, 0, 0]])
    assert float(task_of().training_loss(Flat(), batch, 0)) == pytest.approx(np.log(2), abs=1e-6)


def test_the_metadata_of_checkpoints_has_thresholds_before_and_after_an_evaluation():
    found = np.stack([np.full(4, 0.5), np.full(4, 0.5), np.full(4, 0.5), [0.25, 0.5, 0.5, 0.75], np.ones(4)])
    assert task_of().metadata_of({}) == {"thresholds": [0.5] * 4}
    assert task_of(thresholds=[0.1, 0.2, 0.3, 0.4]).metadata_of({}) == {"thresholds": [0.1, 0.2, 0.3, 0.4]}
    assert task_of().metadata_of({"per_class": found})["thresholds"] == [0.25, 0.5, 0.5, 0.75]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "asymmetric", "gamma_negative": 0.5}, "task.gamma_negative=0.5 must be 0, or 1 and more"),
        ({"gamma_negative": 2.0}, "task.gamma_negative=2.0 has no effect on task.loss=bce; add task.loss=asymmetric"),
        ({"margin": 0.2}, "task.margin=0.2 has no effect on task.loss=bce; add task.loss=asymmetric"),
        ({"class_weights": [1, 2]}, "task.class_weights has 2 numbers, and the data 4 classes"),
        ({"thresholds": [0.5]}, "task.thresholds has 1 numbers, and the data 4 classes"),
        ({"class_weights": "some"}, "task.class_weights='?some'? must be null, balanced, or a list"),
        (
            {"class_weights": "balanced", "data": description(train_shares=(0, 0.5, 0.5, 0.5))},
            "no training image has the label 'ant'",
        ),
        (
            {"class_weights": "balanced", "data": description(train_shares=(0.5, 1, 0.5, 0.5))},
            "every training image has the label 'bee'",
        ),
        ({"data": description(several_labels=False)}, "needs data with several labels per image"),
    ],
)
def test_values_without_sense_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        task_of(**changes)


def test_a_loss_with_balanced_weights_needs_training_images(random_batch):
    with pytest.raises(UserError, match=r"task\.class_weights=balanced needs training images"):
        task_of(class_weights="balanced", data=description(train_shares=None)).training_loss(Flat(), random_batch, 0)


def test_a_classification_refuses_data_with_several_labels():
    with pytest.raises(UserError, match="task=classification learns one; choose task=multilabel"):
        Classification(data=description())
