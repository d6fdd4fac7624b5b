import pickle

import pytest

from flatten_dense.data.detection.packed_list import PackedList

ITEMS = ["a", {"b": [1, 2.5]}, None, (3, "c" * 1000)]


def test_items_come_back_in_order():
    assert list(PackedList(ITEMS)) == ITEMS
    assert len(PackedList(ITEMS)) == 4
    assert PackedList(ITEMS)[-1] == ITEMS[-1]
    assert PackedList(ITEMS)[1:3] == ITEMS[1:3]


def test_an_item_can_be_changed_without_changing_the_list():
    packed = PackedList(ITEMS)
    packed[1]["b"].append(3)
    assert packed[1] == ITEMS[1]


def test_an_index_beyond_the_end():
    with pytest.raises(IndexError):
        PackedList(ITEMS)[4]


def test_no_item():
    assert list(PackedList([])) == []


def test_a_copy_for_another_process_takes_the_bytes_alone():
    assert len(pickle.dumps(PackedList([[number] for number in range(10_000)]))) < 30 * 10_000
