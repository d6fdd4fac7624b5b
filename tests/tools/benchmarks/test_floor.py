import argparse

import pytest
from benchmarks import floor


@pytest.fixture
def options(monkeypatch):
    monkeypatch.setattr(floor, "copy_bandwidth", lambda device: 1e10)
    monkeypatch.setattr(floor, "device_seconds", lambda call, *_: call() or 1e-3)
    return argparse.Namespace(
        form="streaming", side=8, dims=[64], batch_size=2, repetitions=1, warm_up=0, threads=1, device="cpu"
    )


def test_the_share_is_of_the_time_that_reading_and_writing_once_takes(options):
    forward, training = floor.floor(options)
    values = 2 * 8 * 8 * 64
    assert forward["of the copied floor"] == pytest.approx(4 * values * 2 / 1e10 / 1e-3)
    assert training["of the copied floor"] == pytest.approx(11 * values * 2 / 1e10 / 1e-3)


def test_operations_are_those_of_the_products(options):
    forward, training = floor.floor(options)
    one_product = 2 * 2 * 64 * 64 * floor.HEAD_SIZE
    assert forward["GFLOP"] * 1e9 == pytest.approx(2 * one_product)
    assert training["GFLOP"] * 1e9 == pytest.approx(6 * one_product)


def test_a_copy_reads_and_writes(monkeypatch):
    monkeypatch.setattr(floor, "device_seconds", lambda call, **_: call().numel() and 0.5)
    assert floor.copy_bandwidth("cpu", 100) == 2 * 4 * 100 / 0.5
