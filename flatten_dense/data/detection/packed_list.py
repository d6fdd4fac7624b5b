"""A long list of small records in a form that worker processes share."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar, overload

import numpy as np

T = TypeVar("T")


class PackedList(Sequence[T], Generic[T]):
    """An unchangeable list whose items lie as bytes in one array; each access makes a new object.

    A forked process copies every page of memory that holds a Python object as soon as it looks at it, because looking
    changes the object's reference count. Of millions of annotations each worker would soon have a copy.

    Source: NumpySerializedList of detectron2, the idea alone.
    """

    def __init__(self, items: Iterable[T]) -> None:
        packed = [pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL) for item in items]
        self._ends = np.cumsum([len(item) for item in packed], dtype=np.int64)
        self._bytes = np.frombuffer(b"".join(packed), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        begin = int(self._ends[position - 1]) if position else 0
        item: T = pickle.loads(self._bytes[begin : int(self._ends[position])].data)
        return item
