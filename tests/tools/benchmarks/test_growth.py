import pytest
from benchmarks import growth


def test_the_exponent_is_of_the_pixels():
    rows = [{"side": side, "ms": 3 * side**2.2} for side in (512, 1024, 4096)]
    assert growth.exponent(rows, "ms") == pytest.approx(1.1)
