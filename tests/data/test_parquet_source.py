"""Parquet files of images: with and without the metadata of a Hugging Face export, complete and damaged."""

import json
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import decoded
from PIL import Image

from swin_lab.data import Parquet
from swin_lab.data.decoding import UNREADABLE
from swin_lab.errors import UserError

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(shade):
    buffer = BytesIO()
    Image.new("RGB", (4, 2), (shade, 0, 0)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": f"{shade}.png"}


def features(names):
    """Returns the schema metadata that Hugging Face's `datasets` writes."""
    columns = {"img": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    return {"huggingface": json.dumps({"info": {"features": columns}})}


def save(file, labels, names=None, images=None, **columns):
    """Writes a table of images, whose red value is their row, and labels."""
    images = [png(i) for i in range(len(labels))] if images is None else images
    data = {"img": pa.array(images, IMAGE), "label": pa.array(labels, pa.int64())}
    table = pa.table({**{name: pa.array(values) for name, values in columns.items()}, **data})
    pq.write_table(table.replace_schema_metadata(features(names)) if names else table, file)


def shades(images):
    return [decoded(images, i).getpixel((0, 0))[0] for i in range(len(images.labels))]


@pytest.fixture
def root(tmp_path):
    save(tmp_path / "train-00000-of-00002.parquet", [0, 1, 2], ["ant", "bee", "cat"])
    save(tmp_path / "train-00001-of-00002.parquet", [2, 1], ["ant", "bee", "cat"])
    save(tmp_path / "test-00000-of-00001.parquet", [1, 0], ["ant", "bee", "cat"])
    return tmp_path


def test_class_names_come_from_the_metadata(root):
    assert Parquet(str(root)).class_names == ["ant", "bee", "cat"]


def test_files_are_read_in_order_and_labels_kept(root):
    source = Parquet(str(root))
    assert source.train.labels.tolist() == [0, 1, 2, 2, 1]
    assert source.val.labels.tolist() == [1, 0]


def test_images_are_those_of_their_rows(root):
    assert shades(Parquet(str(root)).train) == [0, 1, 2, 0, 1]


def test_an_image_is_named_by_file_and_row(root):
    assert Parquet(str(root)).val.name(1) == f"{root / 'test-00000-of-00001.parquet'} row 1"


def test_an_image_of_a_second_file_is_named_by_the_second_file(root):
    assert "train-00001-of-00002" in Parquet(str(root)).train.name(4)


def test_val_files_take_precedence_over_test_files(root):
    save(root / "validation-00000-of-00001.parquet", [0], ["ant", "bee", "cat"])
    assert len(Parquet(str(root)).val.labels) == 1


def test_without_metadata_the_columns_are_found_by_type_and_classes_are_indices(tmp_path):
    save(tmp_path / "train.parquet", [0, 2], note=["a", "b"])
    save(tmp_path / "val.parquet", [1], note=["c"])
    source = Parquet(str(tmp_path))
    assert source.class_names == ["0", "1", "2"]
    assert shades(source.train) == [0, 1]


def test_images_may_be_plain_bytes(tmp_path):
    for name in ("train", "val"):
        columns = {"image": pa.array([png(7)["bytes"]], pa.binary()), "class": pa.array([0])}
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    assert shades(Parquet(str(tmp_path)).val) == [7]


def test_explicit_columns_take_precedence_over_detected_ones(tmp_path):
    for name in ("train", "val"):
        save(tmp_path / f"{name}.parquet", [0, 1], ["ant", "bee"], coarse=[3, 5])
    assert Parquet(str(tmp_path)).train.labels.tolist() == [0, 1]
    assert Parquet(str(tmp_path), label_column="coarse").train.labels.tolist() == [3, 5]


@pytest.mark.parametrize("option", ["image_column", "label_column"])
def test_a_wrong_column_name_is_rejected_with_the_existing_columns(root, option):
    with pytest.raises(UserError, match=rf"data\.{option}=image: .* has the columns img, label"):
        Parquet(str(root), **{option: "image"})


def test_files_without_a_label_column_ask_for_one(tmp_path):
    pq.write_table(pa.table({"img": pa.array([png(0)], IMAGE), "kind": ["a"]}), tmp_path / "train.parquet")
    with pytest.raises(UserError, match=r"data\.label_column=.* has the columns img, kind"):
        Parquet(str(tmp_path))


@pytest.mark.parametrize("name", ["train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"])
@pytest.mark.parametrize("kept", [0, 0.5, 0.95])
def test_a_truncated_file_is_rejected(root, name, kept):
    file = root / f"{name}.parquet"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * kept)])
    with pytest.raises(UserError, match="cannot be read as parquet") as raised:
        Parquet(str(root))
    assert len(str(raised.value).splitlines()) <= 3


@pytest.mark.parametrize("name", ["train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"])
def test_the_message_about_a_damaged_file_names_it(root, name):
    (root / f"{name}.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(UserError, match=name):
        Parquet(str(root))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=f"the folder {tmp_path / 'none'} does not exist"):
        Parquet(str(tmp_path / "none"))


def test_a_folder_without_parquet_files_is_named(tmp_path):
    with pytest.raises(UserError, match=rf"{tmp_path} contains no \*\.parquet files"):
        Parquet(str(tmp_path))


@pytest.mark.parametrize("label", [3, -1])
@pytest.mark.parametrize("part", ["train", "val"])
def test_labels_outside_the_classes_are_rejected(tmp_path, part, label):
    for name in ("train", "val"):
        save(tmp_path / f"{name}.parquet", [0, 1, label if name == part else 2], ["ant", "bee", "cat"])
    with pytest.raises(UserError, match="'label' has labels outside the 3 classes"):
        Parquet(str(tmp_path))


def test_rows_without_a_label_are_rejected(tmp_path):
    for name in ("train", "val"):
        save(tmp_path / f"{name}.parquet", [0, 1, None], ["ant", "bee"])
    with pytest.raises(UserError, match="label"):
        Parquet(str(tmp_path))


def test_files_without_rows_are_rejected(tmp_path):
    save(tmp_path / "train.parquet", [0, 1], ["ant", "bee"])
    save(tmp_path / "val.parquet", [], ["ant", "bee"])
    with pytest.raises(UserError):
        Parquet(str(tmp_path))


def test_validation_files_with_other_columns_are_rejected_in_three_lines(tmp_path):
    save(tmp_path / "train.parquet", [0, 1])
    pq.write_table(pa.table({"img": pa.array([png(0)], IMAGE)}), tmp_path / "val.parquet")
    with pytest.raises(UserError) as raised:
        Parquet(str(tmp_path))
    assert len(str(raised.value).splitlines()) <= 3


@pytest.mark.parametrize("value", [None, {"bytes": None, "path": "elsewhere.png"}], ids=["null", "only-a-path"])
def test_a_row_without_bytes_is_an_unreadable_image(tmp_path, value):
    save(tmp_path / "train.parquet", [0, 1], ["ant", "bee"])
    save(tmp_path / "val.parquet", [0, 1], ["ant", "bee"], images=[png(0), value])
    with pytest.raises(UNREADABLE):
        decoded(Parquet(str(tmp_path)).val, 1)


def test_one_file_alone_is_split_class_by_class(tmp_path):
    save(tmp_path / "data.parquet", [i % 2 for i in range(20)], ["ant", "bee"])
    source = Parquet(str(tmp_path), val_fraction=0.2)
    assert np.bincount(source.train.labels).tolist() == [8, 8]
    assert np.bincount(source.val.labels).tolist() == [2, 2]
    assert sorted(shades(source.train) + shades(source.val)) == list(range(20))


def test_labels_and_images_stay_together_in_a_split(tmp_path):
    save(tmp_path / "data.parquet", [i % 2 for i in range(20)], ["ant", "bee"])
    source = Parquet(str(tmp_path), val_fraction=0.2, split_seed=3)
    assert [shade % 2 for shade in shades(source.val)] == source.val.labels.tolist()


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("part", ["train", "val"])
@pytest.mark.parametrize("labels", [[0.5, 1.9], ["a", "b"], [[0.5], [1.0]], [True, False]], ids=str)
def test_labels_that_are_not_integers_are_refused_and_not_rounded(tmp_path, part, labels, in_memory):
    for name in ("train", "val"):
        columns = {"img": pa.array([png(0), png(1)], IMAGE), "label": labels if name == part else [0, 1]}
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    with pytest.raises(UserError, match=rf"{part}\.parquet: column 'label' is of type .*; a class index is an integer"):
        Parquet(str(tmp_path), label_column="label", in_memory=in_memory)


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_label_of_a_billion_is_refused_at_once(tmp_path, in_memory):
    for name in ("train", "val"):
        save(tmp_path / f"{name}.parquet", [0, 10**9])
    with pytest.raises(UserError, match="column 'label' has class index 1000000000, above the maximum"):
        Parquet(str(tmp_path), in_memory=in_memory)


def test_files_with_other_class_names_are_refused(root):
    save(root / "test-00000-of-00001.parquet", [1, 0], ["ant", "cat", "bee"])
    with pytest.raises(UserError, match=r"test-.* has other class names than train-"):
        Parquet(str(root))


def test_files_with_columns_of_different_types_are_refused(tmp_path):
    save(tmp_path / "train-0.parquet", [0, 1])
    pq.write_table(
        pa.table({"img": pa.array([png(0)["bytes"]], pa.large_binary()), "label": [0]}), tmp_path / "train-1.parquet"
    )
    save(tmp_path / "val.parquet", [0, 1])
    with pytest.raises(UserError, match=r"column 'img' is of type large_binary, in train-0\.parquet struct"):
        Parquet(str(tmp_path))


@pytest.mark.parametrize(
    "written", ["{", "[]", '{"info": 3}', '{"info": {"features": [1]}}', '{"info": {"features": {"label": 3}}}']
)
def test_metadata_of_another_kind_is_ignored(tmp_path, written):
    for name in ("train", "val"):
        save(tmp_path / f"{name}.parquet", [0, 1])
        table = pq.read_table(tmp_path / f"{name}.parquet").replace_schema_metadata({"huggingface": written})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    assert Parquet(str(tmp_path)).class_names == ["0", "1"]


def save_lists(file, lists, feature=None, kind=None):
    """Writes images with a list column `labels`, described as Hugging Face does if there is a feature."""
    table = pa.table({"img": pa.array([png(i) for i in range(len(lists))], IMAGE), "labels": pa.array(lists, kind)})
    described = {"huggingface": json.dumps({"info": {"features": {"img": {"_type": "Image"}, "labels": feature}}})}
    pq.write_table(table.replace_schema_metadata(described) if feature else table, file)


NAMED = {"_type": "ClassLabel", "names": ["ant", "bee", "cat"]}


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(
    "feature", [{"_type": "Sequence", "feature": NAMED}, {"_type": "List", "feature": NAMED}, [NAMED]], ids=str
)
def test_a_list_column_of_class_indices_gives_several_labels(tmp_path, feature, in_memory):
    save_lists(tmp_path / "train.parquet", [[0, 2], [], [1]], feature, pa.list_(pa.int64()))
    save_lists(tmp_path / "val.parquet", [[2]], feature, pa.list_(pa.int64()))
    source = Parquet(str(tmp_path), in_memory=in_memory)
    assert source.class_names == ["ant", "bee", "cat"]
    assert source.train.labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert source.val.labels.tolist() == [[0, 0, 1]]
    assert source.train.labels.dtype == np.uint8


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_list_column_of_names_has_the_classes_of_both_sets(tmp_path, in_memory):
    save_lists(tmp_path / "train.parquet", [["dog", "ant"], [], ["ant"]])
    save_lists(tmp_path / "val.parquet", [["cat"], ["dog"]])
    source = Parquet(str(tmp_path), in_memory=in_memory)
    assert source.class_names == ["ant", "cat", "dog"]
    assert source.train.labels.tolist() == [[1, 0, 1], [0, 0, 0], [1, 0, 0]]
    assert source.val.labels.tolist() == [[0, 1, 0], [0, 0, 1]]


def test_a_list_column_is_split_with_its_images(tmp_path):
    save_lists(tmp_path / "all.parquet", [[i % 3] for i in range(10)])
    for in_memory in (True, False):
        source = Parquet(str(tmp_path), val_fraction=0.3, in_memory=in_memory)
        for images in (source.train, source.val):
            assert [row.index(1) for row in images.labels.tolist()] == [shade % 3 for shade in shades(images)]


def test_lists_with_unknown_classes_or_none_at_all_are_refused(tmp_path):
    save_lists(tmp_path / "train.parquet", [[0], [3]], {"_type": "Sequence", "feature": NAMED})
    with pytest.raises(UserError, match=r"column 'labels' has \[3\] in row 1, and a list may have the 3 classes only"):
        Parquet(str(tmp_path))
    save_lists(tmp_path / "train.parquet", [[0], None], {"_type": "Sequence", "feature": NAMED})
    with pytest.raises(UserError, match="1 rows have no label in column 'labels'"):
        Parquet(str(tmp_path))
    save_lists(tmp_path / "train.parquet", [[], []], kind=pa.list_(pa.string()))
    with pytest.raises(UserError, match="column 'labels' has empty lists only"):
        Parquet(str(tmp_path))
