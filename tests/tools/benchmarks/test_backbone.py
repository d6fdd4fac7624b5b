import argparse

import pytest
from benchmarks import backbone

from flatten_dense.profiling import Pass

SECONDS = {"flatten_pvt_test": 0.1, "reference_order": 0.3, "linear_layers": 0.05}
PEAKS = {"flatten_pvt_test": 2 * backbone.MIB, "reference_order": 8 * backbone.MIB, "linear_layers": 0}


@pytest.fixture
def options():
    return argparse.Namespace(
        model="flatten_pvt_test",
        sizes=[64],
        dtypes=["bfloat16"],
        batch_size=2,
        repetitions=3,
        warm_up=1,
        threads=1,
        device="cpu",
    )


def test_time_and_memory_are_over_those_of_the_reference(options, monkeypatch):
    def passes(cases, repetitions, warm_up):
        return [[Pass(SECONDS[case.name], PEAKS[case.name])] * repetitions for case in cases]

    monkeypatch.setattr(backbone, "alternating_passes", passes)
    (row,) = backbone.backbone(options)
    assert row["times as fast"] == pytest.approx(3)
    assert row["bound"] == pytest.approx(6)
    assert row["share of its peak"] == pytest.approx(0.25)


def test_all_get_the_same_model_and_images(options):
    ours, reference = (backbone.case(name, 64, "bfloat16", options) for name in (None, "reference_order"))
    assert (ours.name, reference.name, reference.options) == ("flatten_pvt_test", "reference_order", {"of": ours.name})
    for name in ("size", "batch_size", "dtype", "device", "threads", "train"):
        assert getattr(ours, name) == getattr(reference, name)


@pytest.mark.slow
def test_a_real_one_runs(options):
    (row,) = backbone.backbone(options)
    assert min(row["ms"], row["reference, ms"], row["Linear alone, ms"]) > 0
