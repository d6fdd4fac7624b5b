import pytest

from flatten_dense.profiling import Case, FreshModel, Pass, alternating_passes, measurements, peak_memory


def test_peak_memory_holds_the_map_that_a_pass_makes():
    side = 512
    map_of_patches = 32 * (side // 4) ** 2 * 4  # bytes of stage 1, which several tensors of the pass have
    assert peak_memory(Case("flatten_pvt_test", (side, side), threads=1)) > map_of_patches


def test_cases_take_turns(monkeypatch):
    turns = []

    class FakeModel(FreshModel):
        def __init__(self, case):
            self.case = case

        def run(self, limit=None):
            turns.append(self.case.name)
            return Pass(float(len(turns)), 0)

        def close(self):
            turns.append(f"close {self.case.name}")

    monkeypatch.setattr(measurements, "FreshModel", FakeModel)
    a, b = alternating_passes([Case("a", (1, 1)), Case("b", (1, 1))], repetitions=2, warm_up=1)
    assert turns == ["a", "b"] * 3 + ["close b", "close a"]
    assert ([p.seconds for p in a], [p.seconds for p in b]) == ([3, 5], [4, 6])


def test_a_system_that_does_not_tell_memory(monkeypatch):
    monkeypatch.setattr(measurements.FreshModel, "__init__", lambda self, case: None)
    monkeypatch.setattr(measurements.FreshModel, "run", lambda self: Pass(1.0, None))
    monkeypatch.setattr(measurements.FreshModel, "close", lambda self: None)
    with pytest.raises(ValueError, match="does not tell the memory"):
        peak_memory(Case("a", (1, 1)))
