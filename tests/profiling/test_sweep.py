import pytest
import torch

from flatten_dense.profiling import OutOfMemoryError, Pass, TooSlowError, sweep
from flatten_dense.profiling.choices import Choice
from flatten_dense.profiling.sweep import Point, Settings, repetitions, too_much

SIZES = [(64, 64), (128, 128), (256, 256)]
L, S = Choice("flatten", "L", 1), Choice("flatten", "S", 1)
GIBIBYTE = 2**30


class FakeModel:
    """Takes a second for a square of 64; keeps who ran."""

    ran: list[str]
    loaded = 100

    def __init__(self, case):
        self.case = case

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ran.append("close")

    def run(self, limit):
        self.ran.append(self.case.options["attention"])
        pixels = self.case.size[0] * self.case.size[1]
        return Pass(pixels / 64**2, pixels)


@pytest.fixture
def model(monkeypatch):
    FakeModel.ran = []
    monkeypatch.setattr(sweep, "FreshModel", FakeModel)
    monkeypatch.setattr(sweep, "available_memory", lambda device: 100 * GIBIBYTE)
    return FakeModel


@pytest.fixture
def refuse(model, monkeypatch):
    """Makes softmax fail at 128 pixels with an error."""

    def make(error):
        run = model.run

        def failing(self, limit):
            if (self.case.options["attention"], self.case.size) == ("S", (128, 128)):
                raise error
            return run(self, limit)

        monkeypatch.setattr(model, "run", failing)

    return make


def measure(*choices, **settings):
    found = [point for points in sweep.sweep(choices, Settings(SIZES, **settings)) for point in points]
    return {(point.choice.attention, point.size[0]): point for point in found}


def test_every_choice_is_measured_at_every_size(model):
    points = measure(L, S)
    assert [points["S", side].median for side in (64, 128, 256)] == [1, 4, 16]
    assert (points["L", 128].peak, points["L", 128].loaded, points["L", 128].skipped) == (128**2, 100, None)


def test_on_the_cpu_choices_take_turns_after_one_for_warm_up(model):
    points = measure(L, S, repetitions=2)
    assert model.ran[:8] == ["L", "S"] * 3 + ["close"] * 2
    assert len(points["L", 64].seconds) == 2


def test_on_a_gpu_each_has_its_own_turn(model):
    measure(L, S, repetitions=2, device="cuda")
    assert model.ran[:8] == [*"LLL", "close", *"SSS", "close"]


def test_cases_are_as_the_settings_say():
    case = Settings(SIZES, 2, True, "bfloat16", "cuda:1", 3).case(S, (64, 96))
    assert (case.name, case.size, case.options) == ("flatten", (64, 96), {"attention": "S"})
    assert (case.batch_size, case.train, case.dtype, case.device, case.threads) == (2, True, "bfloat16", "cuda:1", 3)


@pytest.mark.parametrize(
    ("wanted", "seconds", "number"), [(10, 0.1, 10), (10, 5, 6), (10, 60, 3), (2, 60, 2), (10, 0, 10)]
)
def test_long_passes_are_repeated_less(wanted, seconds, number):
    assert repetitions(wanted, seconds) == number


def test_a_size_that_would_take_too_long_is_left_out(model):
    points = measure(L, limit=10)
    assert points["L", 128].skipped is None
    assert points["L", 256].skipped == "would take about 16 s, over the limit of 10 s"
    assert points["L", 256].median is None


def test_multiply_accumulates_tell_of_a_quadratic_term_in_advance():
    quadratic = Choice("flatten", "S", 1, {SIZES[0]: 10, SIZES[1]: 1000})
    known = [Point(quadratic, SIZES[0], (1.0,))]
    assert (
        too_much(known, quadratic, SIZES[1], Settings(SIZES, limit=60))
        == "would take about 100 s, over the limit of 60 s"
    )


def test_a_size_that_would_take_too_much_memory_is_left_out(model, monkeypatch):
    monkeypatch.setattr(sweep, "available_memory", lambda device: 30 * GIBIBYTE)
    known = [Point(L, SIZES[0], (1.0,), 2 * GIBIBYTE), Point(L, SIZES[1], (1.0,), 7 * GIBIBYTE)]
    assert too_much(known[:1], L, SIZES[1], Settings(SIZES)) is None
    reason = "would need about 28.0 GiB, 30.0 GiB are free"
    assert too_much(known, L, SIZES[2], Settings(SIZES)) == reason


@pytest.mark.parametrize("error", [OutOfMemoryError("out of memory"), TooSlowError("took more than 60 s")])
def test_what_fails_is_told_in_its_row_and_the_others_go_on(refuse, error):
    refuse(error)
    points = measure(L, S)
    assert points["S", 128].skipped == str(error)
    assert points["L", 128].median == 4
    assert points["S", 256].skipped == "left out, since 128 x 128 was too much"


def test_other_failures_are_told_too(refuse):
    refuse(RuntimeError("the process ended:\n  ZeroDivisionError: division by zero"))
    assert measure(L, S)["S", 128].skipped == "failed: ZeroDivisionError: division by zero"


def test_images_that_a_model_does_not_take_are_an_error(refuse):
    refuse(ValueError("images must be at least 32 pixels"))
    with pytest.raises(ValueError, match="images must be"):
        measure(L, S)


def test_nothing_known_nothing_is_left_out():
    assert too_much([], L, (10**5, 10**5), Settings(SIZES, device=str(torch.device("cpu")))) is None
