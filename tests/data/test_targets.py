"""Files of targets with several labels per image, and the images that they name: read, and refused with clear messages."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from swin_lab.data import MultiLabel, check_source
from swin_lab.data.targets import read_targets
from swin_lab.errors import UserError

IMAGES = ("a/one.png", "a/two.png", "b/one.png", "b/three.jpg")
HOT = [[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]]
COLUMNS = "file_name,cat,dog,wet\na/one.png,1,0,1\na/two.png,0,0,0\nb/one.png,0,1,0\nb/three.jpg,1,1,1\n"
WORDS = "image,tags\na/one.png,cat|wet\na/two.png,\nb/one.png,dog\nb/three.jpg,cat| dog |wet\n"


@pytest.fixture
def root(tmp_path):
    for shade, path in enumerate(IMAGES):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 2), (shade, 0, 0)).save(tmp_path / path)
    return tmp_path


def coco(images=IMAGES):
    names = {"images": [{"id": 10 + i, "file_name": name} for i, name in enumerate(images)]}
    categories = [{"id": 7, "name": "wet"}, {"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}]
    pairs = [(10 + i, c) for i, row in enumerate(HOT) for c, hot in zip((1, 3, 7), row, strict=True) if hot]
    annotations = [{"image_id": image, "category_id": c, "bbox": [0, 0, 1, 1]} for image, c in [*pairs, *pairs[:2]]]
    return names | {"categories": categories, "annotations": annotations}


def write(folder, kind):
    file = folder / {"words": "labels.csv", "tsv": "labels.tsv"}.get(kind, f"labels.{kind.partition('-')[0]}")
    lists = [[name for name, hot in zip(("cat", "dog", "wet"), row, strict=True) if hot] for row in HOT]
    if kind == "words":
        file.write_text(WORDS)
    elif kind in ("csv", "tsv"):
        file.write_text(COLUMNS.replace(",", "\t") if kind == "tsv" else "\ufeff" + COLUMNS.replace("\n", "\r\n"))
    elif kind == "json":
        file.write_text(json.dumps(coco()))
    elif kind == "parquet-lists":
        pq.write_table(pa.table({"labels": lists, "file_name": IMAGES}), file)
    else:
        columns = {name: pa.array(values) for name, values in zip(("cat", "dog", "wet"), np.array(HOT).T, strict=True)}
        pq.write_table(pa.table({"path": IMAGES} | columns), file)
    return file


@pytest.mark.parametrize("kind", ["csv", "tsv", "words", "json", "parquet-lists", "parquet-columns"])
def test_every_format_gives_the_same_labels(root, kind):
    found = read_targets(write(root, kind), "|" if kind == "words" else None)
    assert found.names == list(IMAGES)
    names = ["cat", "dog", "wet"]
    assert found.class_names == names
    assert found.labels.dtype == np.uint8
    assert found.labels.tolist() == HOT


def test_the_images_of_a_source_have_their_labels_in_the_order_of_their_paths(root):
    (root / "labels.csv").write_text(COLUMNS)
    source = check_source(MultiLabel(str(root), "labels.csv", val_only=True))
    assert [source.val.name(i).removeprefix(f"{root}/") for i in range(4)] == list(IMAGES)
    assert source.val.labels.tolist() == HOT
    assert len(source.train.labels) == 0


def test_a_part_of_the_images_is_the_validation_set(root):
    (root / "labels.csv").write_text(COLUMNS)
    source = check_source(MultiLabel(str(root), "labels.csv", val_fraction=0.5, split_seed=2))
    names = [images.name(i) for images in (source.train, source.val) for i in range(2)]
    assert sorted(names) == [str(root / path) for path in IMAGES]


def test_two_files_of_targets_share_the_classes_of_the_first(root):
    (root / "train.csv").write_text("image,tags\na/one.png,cat wet\nb/three.jpg,dog\n")
    (root / "val.csv").write_text("image,tags\na/two.png,wet\nb/one.png,\n")
    source = MultiLabel(str(root), "train.csv", "val.csv", separator=" ")
    assert source.class_names == ["cat", "dog", "wet"]
    assert source.val.labels.tolist() == [[0, 0, 1], [0, 0, 0]]


def test_columns_of_the_second_file_may_have_another_order(root):
    (root / "train.csv").write_text("image,cat,dog\na/one.png,1,0\nb/three.jpg,0,1\n")
    (root / "val.csv").write_text("image,dog,cat\na/two.png,1,0\nb/one.png,0,0\n")
    assert MultiLabel(str(root), "train.csv", "val.csv").val.labels.tolist() == [[0, 1], [0, 0]]


def test_a_name_without_folder_or_suffix_is_found_where_one_image_has_it(root):
    (root / "val.csv").write_text("image,cat\ntwo,1\nthree.jpg,0\na/one,1\nb/one.png,0\n")
    assert MultiLabel(str(root), "val.csv", val_only=True).val.labels.tolist() == [[1], [1], [0], [0]]


ERRORS = {
    "an unknown image": (COLUMNS.replace("a/two.png", "a/twoo.png"), r"names a/twoo.png, which is not an image under .*a/two"),
    "a name of two images": (
        COLUMNS.replace("b/one.png", "one.png"),
        r"names one.png, and a/one.png and b/one.png are called so",
    ),
    "an image that is missing": (COLUMNS.replace("a/two.png,0,0,0\n", ""), r"1 of 4 images under .* not named .*a/two.png"),
    "a duplicate row": (COLUMNS + "a/two.png,1,1,1\n", "names a/two.png twice, in rows 2 and 5"),
    "two names of an image": (COLUMNS + "two,1,1,1\n", "names a/two.png twice, with and without folder or suffix"),
    "another value": (COLUMNS.replace("a/two.png,0", "a/two.png,-1"), r"row 2 \(a/two.png\) has '-1' in column 'cat'; write 1"),
    "an empty value": (COLUMNS.replace("a/two.png,0", "a/two.png,"), r"row 2 \(a/two.png\) has '' in column 'cat'"),
    "class names": (WORDS, r"data.separator=\"\|\""),
    "a short row": (COLUMNS.replace("a/two.png,0,0,0", "a/two.png,0"), "cannot be read as csv"),
    "two equal columns": (COLUMNS.replace("dog", "cat"), "several columns named 'cat'"),
    "no classes": ("file_name\na/one.png\n", "has the column 'file_name' only"),
    "no images": ("file_name,cat\n", "names no images"),
    "no text": ("", "cannot be read as csv"),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_what_is_wrong_with_a_file_is_told_in_one_to_three_lines(root, kind):
    content, message = ERRORS[kind]
    (root / "labels.csv").write_text(content)
    with pytest.raises(UserError, match=message) as raised:
        MultiLabel(str(root), "labels.csv")
    assert len(str(raised.value).splitlines()) <= 3


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        (
            "image,tags\na/one.png,cat\n",
            "image,tags\na/two.png,cat dgo\n",
            "gives a/two.png the class 'dgo', which is not among",
        ),
        (
            "image,cat\na/one.png,1\n",
            "image,cat,dog\na/two.png,1,0\n",
            "has a column for 'dog', which is not among the classes",
        ),
        ("image,cat,dog\na/one.png,1,0\n", "image,cat\na/two.png,1\n", "has no column for the class 'dog'"),
        (COLUMNS, COLUMNS, "a/one.png is named in both train.csv and val.csv"),
    ],
    ids=["an unknown class", "an unknown column", "a missing column", "an image in both"],
)
def test_files_that_contradict_each_other_are_refused(root, train, val, message):
    (root / "train.csv").write_text(train)
    (root / "val.csv").write_text(val)
    with pytest.raises(UserError, match=message):
        MultiLabel(str(root), "train.csv", "val.csv", separator=" " if "tags" in train else None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"categories": None}, "it has no list 'categories'"),
        ({"images": [{"id": 1}]}, "entry 0 of 'images' has no id and file_name"),
        ({"images": [{"id": 1, "file_name": 5}]}, "entry 0 of 'images' has no id and file_name"),
        ({"annotations": [{"image_id": 99, "category_id": 1}]}, "an annotation has image_id 99"),
        ({"annotations": [{"image_id": 10, "category_id": 99}]}, "an annotation has category_id 99"),
        ({"categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "cat"}]}, "two categories the same id or name"),
    ],
)
def test_json_that_is_not_in_the_style_of_coco_is_refused(tmp_path, change, message):
    (tmp_path / "labels.json").write_text(json.dumps(coco() | change))
    with pytest.raises(UserError, match=message):
        read_targets(tmp_path / "labels.json")


def test_categories_with_numbers_and_text_as_ids_are_in_the_order_of_the_numbers_first(tmp_path):
    content = coco() | {"categories": [{"id": "x", "name": "wet"}, {"id": 2, "name": "dog"}, {"id": 1, "name": "cat"}]}
    pairs = [(10 + i, c) for i, row in enumerate(HOT) for c, hot in zip((1, 2, "x"), row, strict=True) if hot]
    content["annotations"] = [{"image_id": image, "category_id": category} for image, category in pairs]
    (tmp_path / "labels.json").write_text(json.dumps(content))
    found = read_targets(tmp_path / "labels.json")
    assert found.class_names == ["cat", "dog", "wet"]
    assert found.labels.tolist() == HOT


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"file_name": ["a", "b"], "cat": [2, 1]}, r"row 1 \(a\) has 2 in column 'cat'"),
        ({"file_name": ["a", "b"], "cat": [1, None]}, r"row 2 \(b\) has None in column 'cat'"),
        ({"file_name": ["a", "b"], "cat": [1.0, 0.5]}, r"row 2 \(b\) has 0.5 in column 'cat'"),
        ({}, "has no columns"),
        ({"file_name": ["a", "b"], "tags": pa.array([[], []], pa.list_(pa.string()))}, "column 'tags' names no classes"),
    ],
)
def test_parquet_files_with_other_values_are_refused(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "labels.parquet")
    with pytest.raises(UserError, match=message) as raised:
        read_targets(tmp_path / "labels.parquet")
    assert len(str(raised.value).splitlines()) <= 3


@pytest.mark.parametrize("kind", [pa.bool_(), pa.int8(), pa.float32()])
def test_columns_of_any_numbers_and_of_booleans_are_read(tmp_path, kind):
    column = pa.array([1, 0, 1]).cast(kind)
    pq.write_table(pa.table({"file_name": ["a", "b", "c"], "cat": column}), tmp_path / "labels.parquet")
    assert read_targets(tmp_path / "labels.parquet").labels.tolist() == [[1], [0], [1]]


def test_a_separator_for_columns_of_0_and_1_is_refused_with_the_way_out(root):
    (root / "labels.csv").write_text(COLUMNS)
    with pytest.raises(UserError, match=r"data.separator='\|' is for one column of names\n.*leave data.separator out"):
        read_targets(root / "labels.csv", "|")


def test_other_kinds_of_files_and_separators_without_effect_are_refused(tmp_path):
    with pytest.raises(UserError, match="targets are read from files that end in"):
        read_targets(tmp_path / "labels.xlsx")
    with pytest.raises(UserError, match=r"data.separator=.* has no effect on labels.json"):
        read_targets(tmp_path / "labels.json", "|")


def test_a_set_without_any_label_is_refused(root):
    (root / "labels.csv").write_text("image,cat\n" + "".join(f"{name},0\n" for name in IMAGES))
    with pytest.raises(UserError, match="no image of train has a label"):
        check_source(MultiLabel(str(root), "labels.csv"))
