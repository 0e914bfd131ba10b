"""Parquet files that stay on the disk, and data sets of the Hugging Face hub: the same images as in memory."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from layouts import decoded, jpeg, loaded, pixels, same
from PIL import Image
from test_parquet_source import IMAGE, features

from swin_lab.data import Parquet
from swin_lab.data.decoding import UNREADABLE
from swin_lab.data.sources.row_groups import RowGroupImages
from swin_lab.errors import UserError


class ProxyError(Exception):
    """Represents errors of HTTP libraries."""


HUB = "hf://datasets/ants/and-bees"


def save(file, labels, first=0, row_group_size=2, images=None):
    """Writes images of noise, numbered from `first`."""
    cells = [{"bytes": jpeg(first + i), "path": f"{i}.jpg"} for i in range(len(labels))] if images is None else images
    table = pa.table({"img": pa.array(cells, IMAGE), "label": pa.array(labels, pa.int64())})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(features(["ant", "bee", "cat"])), file, row_group_size=row_group_size)


def save_all(top):
    save(top / "train-00000-of-00003.parquet", [0, 1, 2, 0, 1], first=0)  # row groups of 2, 2 and 1
    save(top / "train-00001-of-00003.parquet", [2], first=10)
    save(top / "train-00002-of-00003.parquet", [1, 0, 2, 2], first=20, row_group_size=3)
    save(top / "val-00000-of-00002.parquet", [2, 1, 0], first=30)
    save(top / "val-00001-of-00002.parquet", [0, 0], first=40)
    return str(top)


@pytest.fixture
def root(tmp_path):
    return save_all(tmp_path)


def names(images):
    return [images.name(i) for i in range(len(images.labels))]


def test_images_and_labels_on_the_disk_are_those_in_memory(root):
    lazy, eager = Parquet(root, in_memory=False), Parquet(root, in_memory=True)
    assert isinstance(lazy.train, RowGroupImages)
    assert not isinstance(eager.train, RowGroupImages)
    assert same(lazy.train, eager.train)
    assert same(lazy.val, eager.val)


def test_images_read_in_any_order_are_those_in_memory(root):
    lazy, eager = Parquet(root, in_memory=False).train, Parquet(root, in_memory=True).train
    for i in np.random.default_rng(0).permutation(np.repeat(np.arange(10), 3)):
        assert np.array_equal(np.asarray(decoded(lazy, int(i))), np.asarray(decoded(eager, int(i))))


def test_names_on_the_disk_are_those_in_memory(root):
    lazy, eager = Parquet(root, in_memory=False), Parquet(root, in_memory=True)
    assert names(lazy.train) == names(eager.train)
    assert names(lazy.val) == names(eager.val)


def test_a_row_is_counted_from_the_start_of_its_file(root):
    train = Parquet(root, in_memory=False).train
    assert [train.name(i) for i in (4, 5, 9)] == [
        f"{root}/train-0000{file}-of-00003.parquet row {row}" for file, row in ((0, 4), (1, 0), (2, 3))
    ]


def test_class_names_on_the_disk_are_those_in_memory(root):
    assert Parquet(root, in_memory=False).class_names == Parquet(root, in_memory=True).class_names == ["ant", "bee", "cat"]


def test_a_file_without_rows_between_others_is_skipped(root):
    save(Path(root) / "train-00001-of-00003.parquet", [])
    lazy, eager = Parquet(root, in_memory=False), Parquet(root, in_memory=True)
    assert same(lazy.train, eager.train)
    assert names(lazy.train) == names(eager.train)


@pytest.mark.parametrize("in_memory", [True, False])
def test_files_without_any_row_are_rejected_by_name(root, in_memory):
    for file in Path(root).glob("val*"):
        save(file, [])
    with pytest.raises(UserError, match=r"val-00000-of-00002\.parquet has no rows"):
        Parquet(root, in_memory=in_memory)


@pytest.fixture
def alone(tmp_path):
    """Writes two files without a validation set."""
    save(tmp_path / "a.parquet", [i % 3 for i in range(15)])
    save(tmp_path / "b.parquet", [i % 3 for i in range(15)], first=50, row_group_size=4)
    return str(tmp_path)


def test_a_split_on_the_disk_is_that_in_memory(alone):
    lazy, eager = (Parquet(alone, in_memory=in_memory, val_fraction=0.2, split_seed=1) for in_memory in (False, True))
    assert same(lazy.train, eager.train)
    assert same(lazy.val, eager.val)
    assert (names(lazy.train), names(lazy.val)) == (names(eager.train), names(eager.val))


def test_a_split_loses_no_image_and_repeats_none(alone):
    source = Parquet(alone, in_memory=False, val_fraction=0.2)
    assert len({*names(source.train), *names(source.val)}) == len(names(source.train)) + len(names(source.val)) == 30


@pytest.mark.parametrize("in_memory", [True, False])
def test_an_evaluation_only_reads_the_validation_files_only(root, in_memory):
    for file in Path(root).glob("train*"):
        file.unlink()
    source = Parquet(root, in_memory=in_memory, val_only=True)
    assert (len(source.train.labels), source.val.labels.tolist()) == (0, [2, 1, 0, 0, 0])


@pytest.mark.parametrize("in_memory", [True, False])
def test_an_evaluation_only_reads_all_files_where_none_is_for_validation(alone, in_memory):
    assert len(Parquet(alone, in_memory=in_memory, val_only=True).val.labels) == 30


@pytest.mark.parametrize("in_memory", [True, False])
def test_validation_files_alone_are_no_training_set(root, in_memory):
    for file in Path(root).glob("train*"):
        file.unlink()
    with pytest.raises(UserError, match=r"has no training files .*data\.val_only=true evaluates without them"):
        Parquet(root, in_memory=in_memory)


def test_files_above_the_limit_stay_on_the_disk_unless_configured(root, monkeypatch):
    monkeypatch.setattr("swin_lab.data.sources.parquet.MAX_IN_MEMORY", 1000)
    assert isinstance(Parquet(root).train, RowGroupImages)
    assert not isinstance(Parquet(root, in_memory=True).train, RowGroupImages)


def test_files_below_the_limit_are_read_into_memory(root):
    assert not isinstance(Parquet(root).train, RowGroupImages)


def test_row_groups_of_several_images_give_a_note_with_the_command_that_helps(root, monkeypatch):
    notes = []
    monkeypatch.setattr("swin_lab.data.sources.parquet.log.info", lambda text, *values: notes.append(text % values))
    Parquet(root, in_memory=False)
    assert ["2 images per row group" in line and "swin-lab data pack" in line for line in notes] == [True, True]


def test_row_groups_of_one_image_need_no_note(tmp_path, monkeypatch):
    notes = []
    monkeypatch.setattr("swin_lab.data.sources.parquet.log.info", lambda text, *values: notes.append(text % values))
    for name in ("train", "val"):
        save(tmp_path / f"{name}.parquet", [0, 1], row_group_size=1)
    Parquet(str(tmp_path), in_memory=False)
    assert notes == []


def test_two_workers_read_the_images_that_one_process_reads(root):
    train = Parquet(root, in_memory=False).train
    pixels(train)  # This process has read with Arrow's threads before it forks.
    assert torch.equal(loaded(train, workers=2), loaded(train, workers=0))


def test_labels_outside_the_classes_are_rejected(root):
    save(Path(root) / "val-00001-of-00002.parquet", [0, 3])
    with pytest.raises(UserError, match="'label' has labels outside the 3 classes"):
        Parquet(root, in_memory=False)


def test_rows_without_a_label_are_counted(root):
    save(Path(root) / "val-00001-of-00002.parquet", [0, None])
    with pytest.raises(UserError, match="1 rows have no label in column 'label'"):
        Parquet(root, in_memory=False)


def test_a_file_without_the_columns_of_the_first_is_named(root):
    file = Path(root) / "train-00002-of-00003.parquet"
    pq.write_table(pa.table({"img": pa.array([], IMAGE)}), file)
    with pytest.raises(UserError, match=f"{file} has no column 'label'"):
        Parquet(root, in_memory=False)


@pytest.mark.parametrize("kept", [0, 0.5, 0.95])
def test_a_truncated_file_is_named(root, kept):
    file = Path(root) / "train-00001-of-00003.parquet"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * kept)])
    with pytest.raises(UserError, match=f"{file} cannot be read as parquet"):
        Parquet(root, in_memory=False)


def overwrite(file, column):
    """Overwrites all pages of a column."""
    chunks = [pq.read_metadata(file).row_group(0).column(i) for i in range(3)]  # img.bytes, img.path, label
    chunk = next(chunk for chunk in chunks if chunk.path_in_schema == column)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content = bytearray(file.read_bytes())
    content[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    file.write_bytes(content)


@pytest.mark.parametrize("in_memory", [True, False])
def test_damaged_labels_are_rejected_by_the_name_of_the_file(root, in_memory):
    file = Path(root) / "train-00002-of-00003.parquet"
    overwrite(file, "label")
    with pytest.raises(UserError, match=f"{file} cannot be read as parquet"):
        Parquet(root, in_memory=in_memory)


def test_a_damaged_row_group_is_unreadable_images_and_the_others_are_read(root):
    file = Path(root) / "train-00000-of-00003.parquet"
    overwrite(file, "img.bytes")
    train = Parquet(root, in_memory=False).train
    with pytest.raises(UNREADABLE):
        decoded(train, 0)
    assert decoded(train, 2).size == (6, 4)


@pytest.mark.parametrize("value", [None, {"bytes": None, "path": "elsewhere.png"}], ids=["null", "only-a-path"])
def test_a_row_without_bytes_is_an_unreadable_image(root, value):
    save(Path(root) / "val-00001-of-00002.parquet", [0, 0], images=[value, {"bytes": jpeg(1), "path": None}])
    val = Parquet(root, in_memory=False).val
    with pytest.raises(UNREADABLE):
        decoded(val, 3)
    assert decoded(val, 4).size == (6, 4)


@pytest.mark.parametrize("in_memory", [True, False])
def test_files_in_a_folder_named_data_are_found(tmp_path, in_memory):
    folder = save_all(tmp_path / "data")
    source = Parquet(str(tmp_path), in_memory=in_memory)
    assert same(source.val, Parquet(folder).val)
    assert source.val.name(0).startswith(str(tmp_path / "data" / "val-00000"))


def test_files_in_the_root_win_over_a_folder_named_data(root):
    save(Path(root) / "data" / "val.parquet", [0])
    assert len(Parquet(root).val.labels) == 5


@pytest.fixture
def hub(monkeypatch):
    """Replaces the hub; returns the list of its requests."""
    requests = []

    def respond(response):
        def snapshot_download(repo_id, *, repo_type, allow_patterns):
            requests.append((repo_id, repo_type, allow_patterns))
            if isinstance(response, Exception):
                raise response
            return response

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
        return requests

    return respond


def test_a_data_set_of_the_hub_is_downloaded_and_read_from_its_cache(tmp_path, hub):
    folder = save_all(tmp_path / "snapshots" / "data")
    requests = hub(str(tmp_path / "snapshots"))
    assert same(Parquet(HUB).train, Parquet(folder).train)
    assert requests == [("ants/and-bees", "dataset", "*.parquet")]


@pytest.mark.parametrize(
    "error",
    [
        LocalEntryNotFoundError("no snapshot,\nand no network"),
        OfflineModeIsEnabled("HF_HUB_OFFLINE=1"),
        HFValidationError("no such name"),
        GatedRepoError.__new__(GatedRepoError),  # created without the server's response that its constructor needs
        ProxyError("no way through"),
        ConnectionError("refused"),
        ConnectionError(),
    ],
    ids=lambda error: f"{type(error).__name__}{len(str(error))}",
)
def test_a_data_set_that_cannot_be_downloaded_gives_an_error_with_what_helps(hub, error):
    hub(error)
    with pytest.raises(
        UserError, match=f"data.root={HUB} cannot be downloaded: .+\n.*hf auth login; or give a folder"
    ) as raised:
        Parquet(HUB)
    assert len(str(raised.value).splitlines()) == 2


def test_a_data_set_of_the_hub_without_parquet_files_is_rejected(tmp_path, hub):
    hub(str(tmp_path))
    with pytest.raises(UserError, match=r"contains no \*\.parquet files"):
        Parquet(HUB)


def test_an_image_of_the_hub_is_decoded_like_any_other(tmp_path, hub):
    buffer = BytesIO()
    Image.new("L", (3, 5), 200).save(buffer, "PNG")
    for name in ("train", "val"):
        save(tmp_path / f"{name}.parquet", [0], images=[{"bytes": buffer.getvalue(), "path": None}])
    hub(str(tmp_path))
    assert np.unique(np.asarray(decoded(Parquet(HUB, in_memory=False).val, 0))).tolist() == [200]
