import pytest

from flatten_dense.ops.bands import bands


@pytest.mark.parametrize("height", [1, 2, 5, 8, 9])
@pytest.mark.parametrize("rows", [1, 2, 3, 8])
def test_bands_make_each_row_of_the_result_once_with_its_neighbours_at_hand(height, rows):
    made = []
    for band in bands(height, rows):
        assert band.stop - band.start <= rows
        made += range(band.done, band.ready)
        at_hand = range(band.start - band.above, band.stop)
        first, last = band.result
        assert list(at_hand[first:last]) == list(range(band.done, band.ready))
        needed = range(max(band.done - 1, 0), min(band.ready + 1, height)) if band.ready > band.done else []
        assert set(needed) <= set(at_hand)
    assert made == list(range(height))
