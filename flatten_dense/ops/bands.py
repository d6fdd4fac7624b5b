"""Bands of rows of a map, for what follows a 3x3 convolution of rows that are only made on the way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Band(NamedTuple):
    """Rows that come in, and those that go out.

    A row needs the one below it: the last of a band waits for the next band, and takes the one above it along.

    Attributes:
        start: the first row to make.
        stop: the row after the last.
        above: rows before ``start`` that have to be at hand still, at most two.
        done: the first row of the result.
        ready: the row after its last; ``done`` if none is ready.
    """

    start: int
    stop: int
    above: int
    done: int
    ready: int

    @property
    def result(self) -> tuple[int, int]:
        """The rows of the result, counted from the first row at hand."""
        return self.done - self.start + self.above, self.ready - self.start + self.above


def bands(height: int, rows: int) -> Iterator[Band]:
    """Cut a map of ``height`` into bands of at most ``rows``."""
    done = 0
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        ready = stop if stop == height else stop - 1
        yield Band(start, stop, min(start, 2), done, ready)
        done = ready
