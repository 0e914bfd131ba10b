"""The classification head when classes change: five policies, the classes of ImageNet, and every refusal."""

import hashlib

import pytest
import torch
from parts import native
from timm.data import ImageNetInfo

from swin_lab import save_weights
from swin_lab.errors import UserError
from swin_lab.imagenet import rows_of_1k_in_22k, wordnet_ids, words
from swin_lab.weights import load, plan_head

IDS_1K, IDS_22K = wordnet_ids(1000), wordnet_ids(21841)


def test_the_22k_to_1k_map_is_the_published_one():
    text = "\n".join(map(str, rows_of_1k_in_22k()))
    assert hashlib.md5(text.encode()).hexdigest() == "15de4ae09bca0d5310c4a421b95dc723"


def test_the_map_has_a_different_row_for_every_class():
    rows = rows_of_1k_in_22k()
    assert (len(set(rows)), min(rows), max(rows), sum(rows)) == (1000, 359, 21817, 6_373_512)
    assert (rows[:3], rows[-3:]) == ((359, 368, 460), (21200, 21369, 21817))


def test_each_row_of_the_map_is_its_class_except_for_the_teddy_bear():
    other = [(i, row) for i, row in enumerate(rows_of_1k_in_22k()) if IDS_22K[row] != IDS_1K[i]]
    assert other == [(850, 5564)]
    assert (IDS_1K[850], words(IDS_1K[850]), IDS_22K[5564]) == ("n04399382", "teddy, teddy bear", "n03013580")


def test_the_22k_names_are_the_sorted_list_with_two_rows_replaced_by_the_last_two_synsets():
    full = ImageNetInfo("imagenet-21k-goog").label_names()
    assert len(set(IDS_22K)) == 21841
    assert (full[9205], full[15027]) == ("n03931044", "n09859684")
    assert (IDS_22K[9205], IDS_22K[15027]) == (full[21841], full[21842])
    assert all(IDS_22K[i] == full[i] for i in range(21841) if i not in (9205, 15027))


def test_lists_that_delete_the_two_empty_synsets_are_wrong_from_row_9205_and_by_two_from_15027():
    deleted = ImageNetInfo("imagenet-22k").label_names()
    assert list(IDS_22K[:9205]) == deleted[:9205]
    assert all(IDS_22K[i] != deleted[i] for i in range(9205, 21841))
    assert IDS_22K[9206] == deleted[9205]
    assert IDS_22K[15028] == deleted[15026]


@pytest.mark.parametrize(
    ("wanted", "row"),
    [
        ("n01440764", 0),
        ("tench", 0),
        ("Tinca tinca", 0),
        ("tench, Tinca tinca", 0),
        ("golden_retriever", 207),
        ("GOLDEN RETRIEVER", 207),
        ("maillot", 638),
        ("crane", None),
        ("unicorn", None),
        ("n00000000", None),
    ],
)
def test_a_class_is_found_by_id_or_words_unless_they_are_ambiguous(wanted, row):
    """`crane` is a bird and a machine; `maillot` is the whole name of one class and a word of another."""
    plan = plan_head("by_name", 1000, 2, None, [wanted, "daisy"])
    assert plan.rows == [row, 985]


def test_by_name_reports_how_many_were_found_and_which_were_not():
    plan = plan_head("by_name", 1000, 4, None, ["tench", "daisy", "unicorn", "yeti"])
    assert plan.description == "2 of 4 classes found by name among 1000, new: unicorn, yeti"


def test_names_in_the_file_take_precedence_over_those_of_imagenet():
    known = ["a", "b", "c"]
    assert plan_head("by_name", 3, 2, known, ["c", "a"]).rows == [2, 0]


def test_by_name_finds_classes_of_22k():
    wanted = [IDS_22K[i] for i in (3, 9205, 21000)]
    assert plan_head("by_name", 21841, 3, None, wanted).rows == [3, 9205, 21000]


@pytest.mark.parametrize(
    ("rows", "classes", "known", "wanted", "expected"),
    [
        pytest.param(5, 5, None, None, [0, 1, 2, 3, 4], id="as many: kept"),
        pytest.param(2, 2, ["a", "b"], ["a", "b"], [0, 1], id="the same names: kept"),
        pytest.param(2, 2, ["a", "b"], ["b", "a"], [1, 0], id="another order: by name"),
        pytest.param(2, 2, ["a", "b"], ["a", "c"], None, id="other names: new"),
        pytest.param(3, 2, ["a", "b", "c"], ["c", "b"], [2, 1], id="a part of the classes: by name"),
        pytest.param(5, 4, None, None, None, id="fewer and unnamed: new"),
        pytest.param(21841, 1000, None, None, list(rows_of_1k_in_22k()), id="22k to 1k: mapped"),
        pytest.param(21841, 1000, None, list(IDS_1K), list(rows_of_1k_in_22k()), id="22k to 1k by ids: mapped"),
        pytest.param(21841, 1000, None, [f"x{i}" for i in range(1000)], None, id="22k to other thousand: new"),
        pytest.param(1000, 1000, None, [words(i) for i in IDS_1K], list(range(1000)), id="1k by words: kept"),
        pytest.param(0, 4, None, None, None, id="no head in the file: new"),
    ],
)
def test_auto_chooses_the_policy_by_the_classes(rows, classes, known, wanted, expected):
    assert plan_head("auto", rows, classes, known, wanted).rows == expected


@pytest.mark.parametrize(
    ("policy", "rows", "classes", "known", "wanted", "part"),
    [
        ("kep", 5, 5, None, None, "did you mean keep"),
        ("keep", 5, 4, None, None, "5 rows and the model 4 classes"),
        ("keep", 0, 4, None, None, "no head; use head=reinit"),
        ("map22k", 21842, 1000, None, None, "the file has 21842"),
        ("map22k", 21841, 10, None, None, "the model 10"),
        ("by_name", 5, 4, None, ["a"] * 4, "does not name its 5 classes"),
        ("by_name", 1000, 4, None, None, "set class_names"),
        ("by_name", 1000, 4, None, ["daisy"], "1 class names are given for 4 classes"),
        ("by_name", 1000, 2, None, ["x", "y"], "none of the classes"),
    ],
)
def test_policies_that_cannot_be_followed_are_refused(policy, rows, classes, known, wanted, part):
    with pytest.raises(UserError, match=part):
        plan_head(policy, rows, classes, known, wanted)


@pytest.mark.parametrize("policy", ["auto", "keep", "reinit"])
def test_a_model_without_head_takes_no_rows(policy):
    assert plan_head(policy, 1000, 0, None, None).rows is None


# In models


@pytest.fixture(scope="module")
def imagenet_22k(tmp_path_factory):
    """Returns a file with a 22k head, and the head."""
    model = native(1, num_classes=21841)
    file = save_weights(model, tmp_path_factory.mktemp("22k") / "22k.pth", "official")
    return file, model.head


def test_a_22k_head_becomes_a_1k_head_by_the_map(imagenet_22k):
    file, head = imagenet_22k
    model, report = load(file, num_classes=1000)
    rows = list(rows_of_1k_in_22k())
    assert torch.equal(model.head.weight, head.weight[rows])
    assert torch.equal(model.head.bias, head.bias[rows])
    assert model.class_names == IDS_1K
    assert "the published 22k to 1k map" in str(report)


def test_a_22k_file_has_the_right_class_names(imagenet_22k):
    model, report = load(imagenet_22k[0])
    assert model.class_names == IDS_22K
    assert "taken for ImageNet-22k" in str(report)


def test_classes_that_are_found_keep_their_rows_and_the_others_are_initialised(imagenet_22k):
    file, head = imagenet_22k
    wanted = ["n02084071", "unicorn"]
    model, _ = load(file, class_names=wanted, head="by_name")
    assert torch.equal(model.head.weight[0], head.weight[IDS_22K.index("n02084071")])
    assert not (head.weight == model.head.weight[1]).all(dim=1).any()
    assert model.class_names == tuple(wanted)


def test_reinit_makes_a_new_head_for_the_same_classes(imagenet_22k):
    file, head = imagenet_22k
    model, report = load(file, head="reinit")
    assert not torch.equal(model.head.weight, head.weight)
    assert "new (21841 classes) as asked" in str(report)


def test_labels_of_a_transformers_folder_name_the_classes(tmp_path):
    model = native(1)
    model.class_names = ("ant", "bee", "cat", "dog", "elk")
    save_weights(model, tmp_path / "hf", "huggingface")
    assert load(tmp_path / "hf")[0].class_names == ("ant", "bee", "cat", "dog", "elk")


def test_placeholder_labels_are_not_class_names(tmp_path):
    save_weights(native(1), tmp_path / "hf", "huggingface")
    assert load(tmp_path / "hf")[0].class_names is None
