"""ImageNet in all layouts: detection, class names, warnings and errors."""

import json
from zipfile import ZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import decoded, jpeg, write_shards
from timm.data.imagenet_info import ImageNetInfo

from swin_lab.data import ImageNet
from swin_lab.errors import UserError
from swin_lab.imagenet import words

IDS = list(ImageNetInfo("imagenet-1k").label_names())
IMAGE = jpeg(0)
LISTS = ("ILSVRC2011fall_whole_map_train.txt", "ILSVRC2011fall_whole_map_val.txt")
LAYOUTS = ["folder", "zip", "list", "parquet", "shards"]
SPLITS = ("train", "val")


def write_class_folders(tree, names):
    """Writes a folder with one image for each class."""
    tree.mkdir(parents=True, exist_ok=True)
    for name in names:
        (tree / name).mkdir()
        (tree / name / "1.JPEG").write_bytes(IMAGE)


def write_parquet(root, names):
    """Writes one row per class, in the order of the class names in the metadata."""
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"image": pa.array([IMAGE] * len(names), pa.binary()), "label": np.arange(len(names))})
    for split in SPLITS:
        pq.write_table(table.replace_schema_metadata(metadata), root / f"{split}.parquet")


def write_layout(root, layout, names):
    """Writes one training and one validation image of each class."""
    root.mkdir(exist_ok=True)
    lines = "".join(f"{name}/1.JPEG\t{label}\n" for label, name in enumerate(names))
    if layout == "folder":
        for split in SPLITS:
            write_class_folders(root / split, names)
    elif layout == "zip":
        for split in SPLITS:
            with ZipFile(root / f"{split}.zip", "w") as archive:
                for name in names:
                    archive.writestr(f"{name}/1.JPEG", IMAGE)
            (root / f"{split}_map.txt").write_text(lines)
    elif layout == "list":
        for file in LISTS:
            (root / file).write_text(lines)
        write_class_folders(root, names)
    elif layout == "parquet":
        write_parquet(root, names)
    else:
        for split in SPLITS:
            write_shards(root, split, [(f"{label:09d}", label, IMAGE) for label in range(len(names))])
        (root / "classes.txt").write_text("\n".join(names))
    return root


def imagenet(root, variant="imagenet1k", **options):
    return ImageNet(variant, str(root), **options)


@pytest.fixture
def warnings(monkeypatch):
    """Collects the warnings."""
    lines = []
    monkeypatch.setattr("swin_lab.data.sources.imagenet.log.warning", lambda text, *values: lines.append(text % values))
    return lines


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Writes the thousand classes in every layout; tests must not change them."""
    top = tmp_path_factory.mktemp("imagenet")
    return {layout: write_layout(top / layout, layout, IDS) for layout in LAYOUTS}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_detected_and_read(roots, layout):
    source = imagenet(roots[layout])
    assert source.layout == layout
    assert source.class_names == IDS
    for images in (source.train, source.val):
        assert images.labels.tolist() == list(range(1000))
        assert decoded(images, 0).size == decoded(images, 999).size == (6, 4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_complete_data_set_gives_no_warning(roots, layout, warnings):
    imagenet(roots[layout], train_images=1000, val_images=1000)
    assert warnings == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_evaluation_only_has_no_training_images_and_gives_no_warning(roots, layout, warnings):
    source = imagenet(roots[layout], val_only=True, train_images=1_281_167, val_images=1000)
    assert (len(source.train.labels), len(source.val.labels), source.class_names) == (0, 1000, IDS)
    assert warnings == []


@pytest.mark.parametrize(
    ("layout", "needed"),
    [("folder", ["val"]), ("zip", ["val.zip", "val_map.txt"]), ("parquet", ["val.parquet"]), ("shards", ["val-00000.tar"])],
)
def test_a_layout_is_found_where_there_is_only_something_to_evaluate(roots, tmp_path, layout, needed):
    for name in needed:
        (tmp_path / name).symlink_to(roots[layout] / name)
    source = imagenet(tmp_path, val_only=True)
    assert (source.layout, source.class_names) == (layout, IDS)


def test_folders_take_precedence_over_the_files_that_they_were_unpacked_from(roots, tmp_path):
    for file in (*(roots["folder"] / split for split in SPLITS), *roots["shards"].iterdir()):
        (tmp_path / file.name).symlink_to(file)
    assert imagenet(tmp_path).layout == "folder"
    assert imagenet(tmp_path, layout="shards").layout == "shards"


def test_parquet_files_in_a_folder_named_data_are_found(roots, tmp_path):
    (tmp_path / "data").symlink_to(roots["parquet"])
    assert imagenet(tmp_path).layout == "parquet"


def test_a_data_set_of_the_hub_is_read_as_parquet(roots, monkeypatch):
    folder = str(roots["parquet"])
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, *, repo_type, allow_patterns: folder)
    assert imagenet("hf://datasets/ILSVRC/imagenet-1k").layout == "parquet"


def test_a_folder_without_any_layout_gives_an_error_with_the_known_layouts(tmp_path):
    pattern = r"train/ and val/ folders, train\.zip .*\n.*whole_map_train\.txt, \*\.parquet, or \*\.tar"
    with pytest.raises(UserError, match=pattern) as raised:
        imagenet(tmp_path)
    assert str(raised.value).startswith(f"{tmp_path} contains ImageNet in none of the known layouts")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=f"the folder {tmp_path / 'none'} does not exist"):
        imagenet(tmp_path / "none")


@pytest.mark.parametrize("part", ["training", "validation"])
def test_another_number_of_images_gives_a_warning(roots, warnings, part):
    counts = {"training": {"train_images": 1_281_167}, "validation": {"val_images": 50_000}}[part]
    imagenet(roots["parquet"], **counts)
    right = f"{next(iter(counts.values())):,}"
    warning = f"has 1,000 {part} images, the original {right}: accuracies cannot be compared with published ones"
    assert warnings == [f"{roots['parquet']} {warning}"]


WORDS = [words(wordnet_id) for wordnet_id in IDS]


def shuffled(names):
    return [names[i] for i in np.random.default_rng(0).permutation(len(names))]


def first_synonyms():
    """Returns the first word of each class, and "crane bird" for one of two cranes, as in torchvision's list."""
    first = [text.split(",")[0].capitalize() for text in WORDS]
    return [*first[:134], "crane bird", *first[135:]]


@pytest.mark.parametrize("names", [WORDS, first_synonyms()], ids=["timm", "first-synonym"])
def test_the_words_of_imagenet_in_order_become_wordnet_ids(tmp_path, names):
    write_parquet(tmp_path, names)
    assert imagenet(tmp_path).class_names == IDS


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(shuffled(WORDS), id="shuffled"),
        pytest.param(sorted(WORDS), id="sorted"),
        pytest.param(shuffled(first_synonyms()), id="first-synonyms-shuffled"),
        pytest.param([WORDS[1], WORDS[0], *WORDS[2:]], id="two-swapped"),
        pytest.param([*WORDS[:55], WORDS[57], WORDS[56], WORDS[55], *WORDS[58:]], id="two-swapped-that-share-a-word"),
        pytest.param(sorted(map(str, range(1000))), id="indices-sorted-as-text"),
        pytest.param([f"kind of animal {i}" for i in range(1000)], id="other-words"),
    ],
)
def test_words_that_are_not_those_of_imagenet_in_order_are_rejected_at_the_first_wrong_class(tmp_path, names):
    write_parquet(tmp_path, names)
    with pytest.raises(UserError, match=r"class \d+ is .*, in imagenet1k it is '.*'; ") as raised:
        imagenet(tmp_path)
    assert "WordNet ids" in str(raised.value)


def test_a_few_classes_may_have_another_word_with_a_warning(tmp_path, warnings):
    write_parquet(tmp_path, [*WORDS[:7], "rooster", *WORDS[8:]])
    assert imagenet(tmp_path).class_names == IDS
    assert warnings == ["1 class names are not those of ImageNet, such as class 7: 'rooster'"]


def test_indices_become_wordnet_ids(roots, tmp_path):
    for file in roots["shards"].glob("*.tar"):
        (tmp_path / file.name).symlink_to(file)
    assert imagenet(tmp_path).class_names == IDS


def test_shards_in_another_order_are_rejected_at_the_first_wrong_class(roots, tmp_path):
    for file in roots["shards"].glob("*.tar"):
        (tmp_path / file.name).symlink_to(file)
    swapped = [*IDS[:3], IDS[7], *IDS[4:7], IDS[3], *IDS[8:]]
    (tmp_path / "classes.txt").write_text("\n".join(swapped))
    with pytest.raises(UserError, match=f"class 3 is {IDS[7]}, in imagenet1k it is {IDS[3]}; .*sorted WordNet ids"):
        imagenet(tmp_path)


@pytest.mark.parametrize("val_only", [False, True])
@pytest.mark.parametrize("layout", ["zip", "list"])
def test_a_map_with_other_indices_is_rejected_at_the_first_wrong_class(tmp_path, layout, val_only):
    write_layout(tmp_path, layout, [IDS[1], IDS[0], *IDS[2:]])
    with pytest.raises(UserError, match=f"class 0 is {IDS[1]}, in imagenet1k it is {IDS[0]}"):
        imagenet(tmp_path, val_only=val_only)


def test_a_class_outside_imagenet_is_rejected_by_name(tmp_path):
    write_parquet(tmp_path, [*IDS[:999], "n99999999"])
    with pytest.raises(UserError, match=f"class 999 is n99999999, in imagenet1k it is {IDS[999]}"):
        imagenet(tmp_path)


@pytest.mark.parametrize("names", [["ant", "bee"], [*IDS, "n99999999"], [*IDS[:3], "n99999999"]], ids=len)
def test_another_number_of_classes_is_rejected_with_the_sources_to_choose(tmp_path, names):
    write_parquet(tmp_path, names)
    with pytest.raises(UserError, match=rf"has {len(names)} classes, imagenet1k has 1000; for other data choose data=folder"):
        imagenet(tmp_path)


SUBSET = IDS[5:200:20]


@pytest.mark.parametrize("inside", ["val", "test", "."])
def test_a_subset_as_imagenet_a_is_evaluated_with_its_own_classes(tmp_path, inside):
    tree = tmp_path / "imagenet-a"
    write_class_folders(tree / inside, SUBSET)
    (tree / "README.txt").write_text("natural adversarial examples")
    source = imagenet(tree, val_only=True)
    assert (source.layout, source.class_names) == ("folder", SUBSET)
    assert source.val.labels.tolist() == list(range(10))


def test_the_number_of_classes_of_a_subset_is_logged(tmp_path, monkeypatch):
    notes = []
    monkeypatch.setattr("swin_lab.data.sources.imagenet.log.info", lambda text, *values: notes.append(text % values))
    write_class_folders(tmp_path / "val", SUBSET)
    imagenet(tmp_path, val_only=True)
    assert [f"{tmp_path} has 10 of the 1000 classes" in line for line in notes] == [True]


def test_lists_next_to_class_folders_are_read_and_not_the_folders(roots):
    assert imagenet(roots["list"], val_only=True).layout == "list"


@pytest.mark.parametrize("val_only", [False, True])
def test_flat_validation_images_are_rejected_with_the_command_that_sorts_them(tmp_path, val_only):
    write_class_folders(tmp_path / "train", IDS[:3])
    (tmp_path / "val").mkdir()
    for number in (1, 2):
        (tmp_path / "val" / f"ILSVRC2012_val_{number:08d}.JPEG").write_bytes(IMAGE)
    with pytest.raises(UserError, match="val contains 2 images but no class folders") as raised:
        imagenet(tmp_path, val_only=val_only)
    assert f"swin-lab data prepare-val {tmp_path / 'val'} --labels" in str(raised.value)


def test_hidden_folders_and_hidden_files_are_ignored(tmp_path):
    write_layout(tmp_path, "folder", IDS)
    for place in ("train", f"train/{IDS[0]}", "val", f"val/{IDS[-1]}"):
        copies = tmp_path / place / ".ipynb_checkpoints"
        copies.mkdir()
        (copies / "1-checkpoint.JPEG").write_bytes(IMAGE)
        (tmp_path / place / "._1.JPEG").write_bytes(IMAGE)
    source = imagenet(tmp_path)
    assert (len(source.train.labels), len(source.val.labels), source.class_names) == (1000, 1000, IDS)


def test_a_validation_class_that_is_missing_in_train_is_named(tmp_path):
    write_layout(tmp_path, "folder", IDS[:5])
    write_class_folders(tmp_path / "val" / "n99999999", ["inner"])
    with pytest.raises(UserError, match=f"{tmp_path / 'val'} contains classes that train/ does not contain: n99999999"):
        imagenet(tmp_path)


def test_a_training_class_that_the_validation_lacks_is_named(tmp_path):
    write_class_folders(tmp_path / "train", IDS[:5])
    write_class_folders(tmp_path / "val", IDS[:4])
    with pytest.raises(UserError, match=f"{tmp_path / 'val'} lacks classes of train/: {IDS[4]}"):
        imagenet(tmp_path)


def test_labels_of_validation_images_are_indices_into_the_training_classes(roots):
    source = imagenet(roots["folder"])
    folders = [source.val.name(i).split("/")[-2] for i in range(1000)]
    assert [source.class_names[label] for label in source.val.labels] == folders


def test_a_class_without_training_images_is_named(tmp_path, warnings):
    for split, present in (("train", [0, 2]), ("val", [0, 1, 2])):
        write_shards(tmp_path, split, [(f"{label:09d}", label, IMAGE) for label in present])
    (tmp_path / "classes.txt").write_text("\n".join(IDS[:3]))
    imagenet(tmp_path)
    assert warnings == [f"class 1 ({IDS[1]}) has no training images"]


@pytest.fixture
def fall11(tmp_path):
    """Writes the lists of imagenet22k, which has 21,841 classes."""
    names = [f"n{i:08d}" for i in range(21_841)]
    for file in LISTS:
        (tmp_path / file).write_text(json.dumps([[f"{name}/{name}_1.JPEG", label] for label, name in enumerate(names)]))
    return tmp_path


def test_imagenet22k_is_read_from_its_lists(fall11):
    source = imagenet(fall11, "imagenet22k")
    assert (source.layout, len(source.class_names), source.class_names[21_840]) == ("list", 21_841, "n00021840")
    assert source.train.name(5) == str(fall11 / "n00000005" / "n00000005_1.JPEG")


def test_imagenet1k_is_not_accepted_as_imagenet22k(roots):
    with pytest.raises(UserError, match="has 1000 classes, imagenet22k has 21841"):
        imagenet(roots["list"], "imagenet22k")


def test_imagenet22k_is_not_accepted_as_imagenet1k(fall11):
    with pytest.raises(UserError, match="has 21841 classes, imagenet1k has 1000"):
        imagenet(fall11)


def test_downloaded_archives_are_distinguished_from_shards(tmp_path):
    (tmp_path / "ILSVRC2012_img_val.tar").write_bytes(b"")
    with pytest.raises(UserError, match=r"unpack them first: docs/reproduce\.md, section 2"):
        ImageNet("imagenet1k", str(tmp_path))


def test_class_folders_of_22k_are_rejected_because_they_sort_in_another_order(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match=r"not in the order of Swin's 22k heads"):
        ImageNet("imagenet22k", str(tmp_path))
