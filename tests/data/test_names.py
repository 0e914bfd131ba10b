"""Millions of names in little memory that processes share."""

import multiprocessing
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from swin_lab.data.names import Names, classes_by_folder

ROLLUP = Path("/proc/self/smaps_rollup")
MANY = 1_300_000
"""About as many as ImageNet has."""
ODD = ["", "a.jpg", "Käfer/Größe.png", "虫/虫.jpg", os.fsdecode(b"latin/\xe4\xff.jpg"), "two\nlines.jpg", "nul\0.jpg", " ", ""]


def many():
    return (f"n{i % 1000:08d}/n{i % 1000:08d}_{i}.JPEG" for i in range(MANY))


def private_bytes():
    """Memory that this process shares with no other."""
    fields = [line.split() for line in ROLLUP.read_text().splitlines()]
    return sum(int(field[1]) * 1024 for field in fields if field[0] in ("Private_Dirty:", "Private_Clean:"))


def growth_after_reading(names, sender):
    before = private_bytes()
    for i in range(MANY):
        names[i]
    sender.send(private_bytes() - before)


def growth_of_a_forked_process(names):
    """Bytes of its own that a forked process has taken after it looked at all names."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=growth_after_reading, args=(names, sender))
    child.start()
    grown = receiver.recv()
    child.join()
    return grown


def test_names_come_back_as_they_were():
    names = Names(ODD)
    assert [names[i] for i in range(len(names))] == ODD


def test_names_come_back_in_a_loop():
    assert list(Names(ODD)) == ODD


def test_names_may_come_from_a_generator():
    assert list(Names(name for name in ("b", "a"))) == ["b", "a"]


def test_a_file_whose_name_is_of_no_encoding_is_opened_by_its_name(tmp_path):
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe4.txt")).write_text("here")
    except OSError:
        pytest.skip("this file system has no such names")
    assert (tmp_path / Names(os.listdir(tmp_path))[0]).read_text() == "here"


def test_no_names_are_none():
    assert (len(Names([])), list(Names([]))) == (0, [])


@pytest.mark.parametrize("index", [-1, 3, 100])
def test_an_index_outside_is_refused(index):
    with pytest.raises(IndexError):
        Names("abc")[index]


def test_an_index_may_be_one_of_numpy():
    assert Names("abc")[np.int64(1)] == "b"


@pytest.mark.parametrize("indices", [[], [2, 0], [1, 1, 8], np.array([4, 3])], ids=str)
def test_a_part_has_the_names_at_its_places(indices):
    assert list(Names(ODD).part(indices)) == [ODD[i] for i in indices]


@pytest.fixture(scope="module")
def names():
    return Names(many())


def test_a_name_costs_less_than_a_hundred_bytes(names):
    assert len(names) == MANY
    assert sum(sys.getsizeof(part) if part.base is None else part.nbytes for part in (names.buffer, names.ends)) < 100 * MANY


@pytest.mark.skipif(not ROLLUP.exists(), reason="this system does not tell how much memory a process shares")
def test_a_forked_process_reads_all_names_in_memory_that_it_shares(names):
    assert growth_of_a_forked_process(names) < 30e6


@pytest.mark.skipif(not ROLLUP.exists(), reason="this system does not tell how much memory a process shares")
def test_a_forked_process_that_reads_a_list_of_strings_copies_them_which_is_why_there_are_names():
    assert growth_of_a_forked_process(list(many())) > 60e6


def test_classes_are_called_after_the_folder_of_their_first_image():
    names = Names(["val/bee/1.jpg", "val/ant/1.jpg", "val/moth/2.jpg"])
    assert classes_by_folder(names, np.array([1, 0, 1]), 2) == ["ant", "bee"]


def test_classes_without_a_folder_are_called_by_their_numbers():
    assert classes_by_folder(Names(["1.jpg", "ant/1.jpg"]), np.array([0, 1]), 3) == ["0", "ant", "2"]


def test_classes_are_called_by_their_numbers_where_two_share_a_folder():
    assert classes_by_folder(Names(["all/1.jpg", "all/2.jpg", "c/3.jpg"]), np.array([0, 1, 2]), 3) == ["0", "1", "2"]
