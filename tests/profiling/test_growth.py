import math

import pytest

from flatten_dense.profiling.growth import crossover, forecast, growth_exponent

SIDES = [224, 512, 1024, 2048]
PIXELS = [side * side for side in SIDES]


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.7, 2.0])
def test_the_exponent_of_a_power_is_found(exponent):
    assert growth_exponent(PIXELS, [3e-9 * p**exponent for p in PIXELS]) == pytest.approx(exponent)


def test_the_exponent_is_that_of_least_squares():
    # log2 costs 0, 1, 5 over log2 pixels 0, 2, 4: slope (-2 * -2 + 0 * -1 + 2 * 3) / (4 + 4)
    assert growth_exponent([1, 4, 16], [1, 2, 32]) == pytest.approx(10 / 8)


def test_noise_of_a_few_percent_moves_the_exponent_little():
    costs = [p * noise for p, noise in zip(PIXELS, (1.03, 0.97, 1.02, 0.98), strict=True)]
    assert growth_exponent(PIXELS, costs) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("pixels", "costs"), [([], []), ([9], [1.0]), ([9, 9], [1.0, 2.0]), ([4, 9], [0.0, 2.0])])
def test_a_single_size_has_no_exponent(pixels, costs):
    assert growth_exponent(pixels, costs) is None


def test_costs_of_zero_are_left_out():
    assert growth_exponent([1, 2, 4], [0, 2, 4]) == pytest.approx(1)


def test_a_forecast_goes_on_as_the_last_two_sizes_did():
    assert forecast([1, 10, 20], [100, 1, 4], 40) == pytest.approx(16)


def test_a_forecast_grows_with_the_pixels_at_least():
    assert forecast([10, 20], [1.0, 1.0], 40) == pytest.approx(2)


def test_a_forecast_from_one_size_is_proportional():
    assert forecast([10], [3.0], 40) == pytest.approx(12)


def test_nothing_known_no_forecast():
    assert forecast([], [], 40) is None


def test_the_crossing_of_two_powers_is_found():
    linear, quadratic = [2.0 * p for p in PIXELS], [p**2 / 350_000 for p in PIXELS]
    found = crossover(SIDES, linear, quadratic)
    assert found.side == pytest.approx(math.sqrt(700_000))
    assert found.words == "about 837"
    assert found.latest == found.side


def test_cheaper_everywhere():
    assert crossover(SIDES, [1, 2, 3, 4], [2, 3, 4, 5]) == ("below 224", None, 224)


def test_dearer_everywhere():
    assert crossover(SIDES, [2, 3, 4, 5], [1, 2, 3, 4]) == ("beyond 2048", None, None)


def test_equal_is_not_cheaper():
    assert crossover(SIDES, [1, 2, 3, 4], [1, 2, 3, 4]).latest is None


def test_cheaper_only_at_small_sizes_is_no_crossing():
    assert crossover(SIDES, [1, 2, 3, 4], [2, 3, 3, 3]) == ("beyond 2048", None, None)


def test_of_several_crossings_the_last_counts():
    found = crossover([1, 10, 100, 1000], [1, 4, 4, 1], [2, 2, 2, 2])
    assert found.side == pytest.approx(math.sqrt(100 * 1000))


def test_what_cannot_be_had_is_dearer_than_all():
    assert crossover(SIDES, [2, 3, 4, 5], [1, 2, 3, None]) == ("between 1024 and 2048", None, 2048)
    assert crossover(SIDES, [1, 2, 3, None], [2, 3, 4, 5]) == ("beyond 2048", None, None)


def test_sizes_at_which_neither_is_known_say_nothing():
    assert crossover(SIDES, [1, 2, None, None], [2, 3, None, None]) == ("below 224", None, 224)
    assert crossover(SIDES, [2, 3, None, None], [1, 2, None, None]) == ("beyond 512", None, None)


def test_nothing_in_common():
    assert crossover([224], [None], [None]).words == "not measured"
