"""Millions of file names in little memory that processes share."""

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from swin_lab.data.names import FileNames, classes_by_folder

ROLLUP = Path("/proc/self/smaps_rollup")
MANY = 1_300_000
"""About as many as in ImageNet."""
ODD = ["", "a.jpg", "Käfer/Größe.png", "虫/虫.jpg", os.fsdecode(b"latin/\xe4\xff.jpg"), "two\nlines.jpg", "nul\0.jpg", " ", ""]


def many():
    return (f"n{i % 1000:08d}/n{i % 1000:08d}_{i}.JPEG" for i in range(MANY))


def private_bytes():
    """Returns the memory that this process shares with no other process."""
    fields = [line.split() for line in ROLLUP.read_text().splitlines()]
    return sum(int(field[1]) * 1024 for field in fields if field[0] in ("Private_Dirty:", "Private_Clean:"))


def growth_after_reading(names, sender):
    before = private_bytes()
    for i in range(MANY):
        names[i]
    sender.send(private_bytes() - before)


def growth_of_a_forked_process(names):
    """Returns by how many private bytes a forked process grows when it reads all names."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=growth_after_reading, args=(names, sender))
    child.start()
    grown = receiver.recv()
    child.join()
    return grown


def test_names_are_returned_unchanged():
    names = FileNames(ODD)
    assert [names[i] for i in range(len(names))] == ODD


def test_names_can_be_iterated():
    assert list(FileNames(ODD)) == ODD


def test_names_may_come_from_a_generator():
    assert list(FileNames(name for name in ("b", "a"))) == ["b", "a"]


def test_a_file_whose_name_is_not_utf_8_is_opened_by_its_name(tmp_path):
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe4.txt")).write_text("here")
    except OSError:
        pytest.skip("this file system has no such names")
    assert (tmp_path / FileNames(os.listdir(tmp_path))[0]).read_text() == "here"


def test_an_empty_list_of_names_is_empty():
    assert (len(FileNames([])), list(FileNames([]))) == (0, [])


@pytest.mark.parametrize("index", [-4, 3, 100])
def test_an_index_outside_is_rejected(index):
    with pytest.raises(IndexError):
        FileNames("abc")[index]


def test_an_index_may_be_a_numpy_integer():
    assert FileNames("abc")[np.int64(1)] == "b"


@pytest.mark.parametrize("indices", [[], [2, 0], [1, 1, 8], np.array([4, 3])], ids=str)
def test_a_selection_has_the_names_at_its_indices(indices):
    assert list(FileNames(ODD).select(indices)) == [ODD[i] for i in indices]


@pytest.fixture(scope="module")
def names():
    return FileNames(many())


def test_a_name_costs_less_than_a_hundred_bytes(names):
    assert len(names) == MANY
    assert names.array.nbytes < 100 * MANY


@pytest.mark.skipif(not ROLLUP.exists(), reason="this system does not report how much memory a process shares")
def test_a_forked_process_reads_all_names_from_shared_memory(names):
    """The smaller of two counts: pyarrow 17 returns freed memory in the background, which looks like growth once."""
    assert min(growth_of_a_forked_process(names) for _ in range(2)) < 30e6


@pytest.mark.skipif(not ROLLUP.exists(), reason="this system does not report how much memory a process shares")
def test_a_forked_process_that_reads_a_list_of_strings_copies_them_which_is_the_reason_for_the_array():
    assert growth_of_a_forked_process(list(many())) > 60e6


def test_classes_are_named_after_the_folder_of_their_first_image():
    names = FileNames(["val/bee/1.jpg", "val/ant/1.jpg", "val/moth/2.jpg"])
    assert classes_by_folder(names, np.array([1, 0, 1]), 2) == ["ant", "bee"]


def test_classes_without_a_folder_are_named_by_their_indices():
    assert classes_by_folder(FileNames(["1.jpg", "ant/1.jpg"]), np.array([0, 1]), 3) == ["0", "ant", "2"]


def test_classes_are_named_by_their_indices_where_two_share_a_folder():
    assert classes_by_folder(FileNames(["all/1.jpg", "all/2.jpg", "c/3.jpg"]), np.array([0, 1, 2]), 3) == ["0", "1", "2"]
