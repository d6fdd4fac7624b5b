import argparse
import math

import pytest
from benchmarks import growth

from flatten_dense.profiling import Pass


class Made:
    """Stands in for a process: time grows as the pixels to the power of 1.1, memory as the pixels."""

    loaded = 2**29

    def __init__(self, case):
        self.pixels = case.size[0] * case.size[1]
        self.passes = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def run(self):
        self.passes += 1
        return Pass(1e-6 * self.pixels**1.1 * (self.passes > 1), 100 * self.pixels)


@pytest.fixture
def options(monkeypatch):
    monkeypatch.setattr(growth, "FreshModel", Made)
    return argparse.Namespace(
        model="any", sizes=[512, 1024, 4096], dtype="float32", repetitions=3, seconds=9, threads=1, device="cpu"
    )


def test_exponents_are_of_the_pixels_and_the_first_pass_is_no_time(options, capsys):
    *_, exponents = growth.growth(options)
    assert exponents["exponent of time"] == pytest.approx(1.1)
    assert exponents["exponent of peak memory"] == pytest.approx(1.0)
    assert "time to the power of 1.100, peak memory 1.000" in capsys.readouterr().out


def test_memory_in_all_includes_what_was_loaded(options):
    row = growth.growth(options)[1]
    assert row["in all, GiB"] == pytest.approx(0.5 + row["peak, GiB"])


def test_a_slow_size_gets_one_timed_pass(options, monkeypatch):
    made = []
    monkeypatch.setattr(growth, "FreshModel", lambda case: made.append(Made(case)) or made[-1])
    options.seconds = 0
    growth.measure(512, options)
    assert made[0].passes == 2


def test_where_nothing_was_measured_nothing_is_said():
    assert math.isnan(growth.exponent([{"side": 32, "ms": 0}, {"side": 64, "ms": 1}], "ms"))
