"""ImageNet in all its layouts: which one is found, that the classes are ImageNet's, and what is not as it should be."""

import json
from zipfile import ZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import jpeg, write_shards
from timm.data.imagenet_info import ImageNetInfo

from swin_lab.data import ImageNet
from swin_lab.errors import UserError

IDS = list(ImageNetInfo("imagenet-1k").label_names())
IMAGE = jpeg(0)
LISTS = ("ILSVRC2011fall_whole_map_train.txt", "ILSVRC2011fall_whole_map_val.txt")
LAYOUTS = ["folder", "zip", "list", "parquet", "shards"]
SPLITS = ("train", "val")


def plant_tree(tree, names):
    """A folder with one image for each class."""
    tree.mkdir(parents=True, exist_ok=True)
    for name in names:
        (tree / name).mkdir()
        (tree / name / "1.JPEG").write_bytes(IMAGE)


def plant_parquet(root, names):
    """One row per class, in the order of the names that the metadata has."""
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"image": pa.array([IMAGE] * len(names), pa.binary()), "label": np.arange(len(names))})
    for split in SPLITS:
        pq.write_table(table.replace_schema_metadata(metadata), root / f"{split}.parquet")


def plant(root, layout, names):
    """One training and one validation image of each class."""
    root.mkdir(exist_ok=True)
    lines = "".join(f"{name}/1.JPEG\t{label}\n" for label, name in enumerate(names))
    if layout == "folder":
        for split in SPLITS:
            plant_tree(root / split, names)
    elif layout == "zip":
        for split in SPLITS:
            with ZipFile(root / f"{split}.zip", "w") as archive:
                for name in names:
                    archive.writestr(f"{name}/1.JPEG", IMAGE)
            (root / f"{split}_map.txt").write_text(lines)
    elif layout == "list":
        for file in LISTS:
            (root / file).write_text(lines)
        plant_tree(root, names)
    elif layout == "parquet":
        plant_parquet(root, names)
    else:
        for split in SPLITS:
            write_shards(root, split, [(f"{label:09d}", label, IMAGE) for label in range(len(names))])
        (root / "classes.txt").write_text("\n".join(names))
    return root


def imagenet(root, variant="imagenet1k", **options):
    return ImageNet(variant, str(root), **options)


@pytest.fixture
def said(monkeypatch):
    """Warnings, one by one."""
    lines = []
    monkeypatch.setattr("swin_lab.data.sources.imagenet.log.warning", lambda text, *values: lines.append(text % values))
    return lines


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Every layout of the thousand classes, to look at and not to change."""
    top = tmp_path_factory.mktemp("imagenet")
    return {layout: plant(top / layout, layout, IDS) for layout in LAYOUTS}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_found_by_itself_and_read(planted, layout):
    source = imagenet(planted[layout])
    assert source.layout == layout
    assert source.class_names == IDS
    for images in (source.train, source.val):
        assert images.labels.tolist() == list(range(1000))
        assert images.image(0).size == images.image(999).size == (6, 4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_that_is_as_it_should_be_warns_of_nothing(planted, layout, said):
    imagenet(planted[layout], train_images=1000, val_images=1000)
    assert said == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_evaluation_alone_has_no_training_images_and_warns_of_none(planted, layout, said):
    source = imagenet(planted[layout], val_only=True, train_images=1_281_167, val_images=1000)
    assert (len(source.train.labels), len(source.val.labels), source.class_names) == (0, 1000, IDS)
    assert said == []


@pytest.mark.parametrize(
    ("layout", "needed"),
    [("folder", ["val"]), ("zip", ["val.zip", "val_map.txt"]), ("parquet", ["val.parquet"]), ("shards", ["val-00000.tar"])],
)
def test_a_layout_is_found_where_there_is_only_something_to_evaluate(planted, tmp_path, layout, needed):
    for name in needed:
        (tmp_path / name).symlink_to(planted[layout] / name)
    source = imagenet(tmp_path, val_only=True)
    assert (source.layout, source.class_names) == (layout, IDS)


def test_folders_win_over_the_files_that_they_were_unpacked_from(planted, tmp_path):
    for file in (*(planted["folder"] / split for split in SPLITS), *planted["shards"].iterdir()):
        (tmp_path / file.name).symlink_to(file)
    assert imagenet(tmp_path).layout == "folder"
    assert imagenet(tmp_path, layout="shards").layout == "shards"


def test_parquet_files_in_a_folder_called_data_are_found(planted, tmp_path):
    (tmp_path / "data").symlink_to(planted["parquet"])
    assert imagenet(tmp_path).layout == "parquet"


def test_a_data_set_of_the_hub_is_read_as_parquet(planted, monkeypatch):
    held = str(planted["parquet"])
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, *, repo_type, allow_patterns: held)
    assert imagenet("hf://datasets/ILSVRC/imagenet-1k").layout == "parquet"


def test_a_folder_without_any_layout_is_told_what_is_looked_for(tmp_path):
    told = r"train/ and val/ folders, train\.zip .*\n.*whole_map_train\.txt, \*\.parquet, or \*\.tar"
    with pytest.raises(UserError, match=told) as raised:
        imagenet(tmp_path)
    assert str(raised.value).startswith(f"{tmp_path} holds no ImageNet in a layout that is known")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=f"there is no folder {tmp_path / 'none'}"):
        imagenet(tmp_path / "none")


@pytest.mark.parametrize(("option", "value", "nearest"), [("layout", "zips", "zip"), ("variant", "imagenet", "imagenet1k")])
def test_an_unknown_choice_brings_the_nearest(tmp_path, option, value, nearest):
    options = {"variant": "imagenet1k", "layout": "auto"} | {option: value}
    with pytest.raises(UserError, match=rf"data\.{option}={value} is unknown; did you mean {nearest}"):
        imagenet(tmp_path, **options)


@pytest.mark.parametrize("part", ["training", "validation"])
def test_another_number_of_images_is_warned_of(planted, said, part):
    counts = {"training": {"train_images": 1_281_167}, "validation": {"val_images": 50_000}}[part]
    imagenet(planted["parquet"], **counts)
    right = f"{next(iter(counts.values())):,}"
    told = f"has 1,000 {part} images, the original {right}: accuracies cannot be compared with published ones"
    assert said == [f"{planted['parquet']} {told}"]


def test_names_in_words_become_wordnet_ids(tmp_path):
    plant_parquet(tmp_path, [f"kind of animal {i}" for i in range(1000)])
    assert imagenet(tmp_path).class_names == IDS


def test_bare_indices_become_wordnet_ids(planted, tmp_path):
    for file in planted["shards"].glob("*.tar"):
        (tmp_path / file.name).symlink_to(file)
    assert imagenet(tmp_path).class_names == IDS


def test_shards_in_another_order_are_refused_at_the_first_wrong_class(planted, tmp_path):
    for file in planted["shards"].glob("*.tar"):
        (tmp_path / file.name).symlink_to(file)
    swapped = [*IDS[:3], IDS[7], *IDS[4:7], IDS[3], *IDS[8:]]
    (tmp_path / "classes.txt").write_text("\n".join(swapped))
    with pytest.raises(UserError, match=f"class 3 is {IDS[7]}, in imagenet1k it is {IDS[3]}; .*sorted WordNet ids"):
        imagenet(tmp_path)


@pytest.mark.parametrize("val_only", [False, True])
@pytest.mark.parametrize("layout", ["zip", "list"])
def test_a_map_with_other_indices_is_refused_at_the_first_wrong_class(tmp_path, layout, val_only):
    plant(tmp_path, layout, [IDS[1], IDS[0], *IDS[2:]])
    with pytest.raises(UserError, match=f"class 0 is {IDS[1]}, in imagenet1k it is {IDS[0]}"):
        imagenet(tmp_path, val_only=val_only)


def test_a_class_that_is_none_of_imagenet_is_refused_by_name(tmp_path):
    plant_parquet(tmp_path, [*IDS[:999], "n99999999"])
    with pytest.raises(UserError, match=f"class 999 is n99999999, in imagenet1k it is {IDS[999]}"):
        imagenet(tmp_path)


@pytest.mark.parametrize("names", [["ant", "bee"], [*IDS, "n99999999"], [*IDS[:3], "n99999999"]], ids=len)
def test_another_number_of_classes_is_refused_with_what_to_choose(tmp_path, names):
    plant_parquet(tmp_path, names)
    with pytest.raises(UserError, match=rf"has {len(names)} classes, imagenet1k has 1000; for other data choose data=folder"):
        imagenet(tmp_path)


SUBSET = IDS[5:200:20]


@pytest.mark.parametrize("inside", ["val", "test", "."])
def test_a_subset_as_imagenet_a_is_evaluated_with_its_own_classes(tmp_path, inside):
    tree = tmp_path / "imagenet-a"
    plant_tree(tree / inside, SUBSET)
    (tree / "README.txt").write_text("natural adversarial examples")
    source = imagenet(tree, val_only=True)
    assert (source.layout, source.class_names) == ("folder", SUBSET)
    assert source.val.labels.tolist() == list(range(10))


def test_a_subset_is_told_with_the_number_of_its_classes(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr("swin_lab.data.sources.imagenet.log.info", lambda text, *values: told.append(text % values))
    plant_tree(tmp_path / "val", SUBSET)
    imagenet(tmp_path, val_only=True)
    assert [f"{tmp_path} has 10 of the 1000 classes" in line for line in told] == [True]


def test_lists_beside_class_folders_are_read_and_not_the_folders(planted):
    assert imagenet(planted["list"], val_only=True).layout == "list"


@pytest.mark.parametrize("val_only", [False, True])
def test_flat_validation_images_are_refused_with_the_command_that_sorts_them(tmp_path, val_only):
    plant_tree(tmp_path / "train", IDS[:3])
    (tmp_path / "val").mkdir()
    for number in (1, 2):
        (tmp_path / "val" / f"ILSVRC2012_val_{number:08d}.JPEG").write_bytes(IMAGE)
    with pytest.raises(UserError, match="val has 2 images and no class folders") as raised:
        imagenet(tmp_path, val_only=val_only)
    assert f"swin-lab data prepare-val {tmp_path / 'val'} --labels" in str(raised.value)


def test_hidden_folders_and_hidden_files_are_ignored(tmp_path):
    plant(tmp_path, "folder", IDS)
    for place in ("train", f"train/{IDS[0]}", "val", f"val/{IDS[-1]}"):
        copies = tmp_path / place / ".ipynb_checkpoints"
        copies.mkdir()
        (copies / "1-checkpoint.JPEG").write_bytes(IMAGE)
        (tmp_path / place / "._1.JPEG").write_bytes(IMAGE)
    source = imagenet(tmp_path)
    assert (len(source.train.labels), len(source.val.labels), source.class_names) == (1000, 1000, IDS)


def test_a_validation_class_that_train_has_not_is_named(tmp_path):
    plant(tmp_path, "folder", IDS[:5])
    plant_tree(tmp_path / "val" / "n99999999", ["inner"])
    with pytest.raises(UserError, match=f"{tmp_path / 'val'} has classes that train/ has not: n99999999"):
        imagenet(tmp_path)


def test_a_training_class_that_the_validation_lacks_is_named(tmp_path):
    plant_tree(tmp_path / "train", IDS[:5])
    plant_tree(tmp_path / "val", IDS[:4])
    with pytest.raises(UserError, match=f"{tmp_path / 'val'} lacks classes that train/ has: {IDS[4]}"):
        imagenet(tmp_path)


def test_labels_of_validation_images_are_indices_into_the_training_classes(planted):
    source = imagenet(planted["folder"])
    folders = [source.val.name(i).split("/")[-2] for i in range(1000)]
    assert [source.class_names[label] for label in source.val.labels] == folders


def test_a_class_without_training_images_is_named(tmp_path, said):
    for split, present in (("train", [0, 2]), ("val", [0, 1, 2])):
        write_shards(tmp_path, split, [(f"{label:09d}", label, IMAGE) for label in present])
    (tmp_path / "classes.txt").write_text("\n".join(IDS[:3]))
    imagenet(tmp_path)
    assert said == [f"class 1 ({IDS[1]}) has no training images"]


@pytest.fixture
def fall11(tmp_path):
    """The lists of imagenet22k, which has 21,841 classes."""
    names = [f"n{i:08d}" for i in range(21_841)]
    for file in LISTS:
        (tmp_path / file).write_text(json.dumps([[f"{name}/{name}_1.JPEG", label] for label, name in enumerate(names)]))
    return tmp_path


def test_imagenet22k_is_read_from_its_lists(fall11):
    source = imagenet(fall11, "imagenet22k")
    assert (source.layout, len(source.class_names), source.class_names[21_840]) == ("list", 21_841, "n00021840")
    assert source.train.name(5) == str(fall11 / "n00000005" / "n00000005_1.JPEG")


def test_imagenet1k_is_not_taken_for_imagenet22k(planted):
    with pytest.raises(UserError, match="has 1000 classes, imagenet22k has 21841"):
        imagenet(planted["list"], "imagenet22k")


def test_imagenet22k_is_not_taken_for_imagenet1k(fall11):
    with pytest.raises(UserError, match="has 21841 classes, imagenet1k has 1000"):
        imagenet(fall11)


def test_archives_as_downloaded_are_told_apart_from_shards(tmp_path):
    (tmp_path / "ILSVRC2012_img_val.tar").write_bytes(b"")
    with pytest.raises(UserError, match=r"unpack them first: docs/reproduce\.md, section 2"):
        ImageNet("imagenet1k", str(tmp_path))


def test_class_folders_of_22k_are_refused_because_they_sort_in_another_order(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match=r"not in the order of Swin's 22k heads"):
        ImageNet("imagenet22k", str(tmp_path))
