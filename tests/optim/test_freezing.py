import pytest

from flatten_dense.optim import Freezing


def test_stages_unfreeze_at_their_shares_of_the_training() -> None:
    freezing = Freezing(3, (0.1, 0.5))
    assert [freezing.at(step, 10, num_stages=4) for step in range(10)] == [3, 2, 2, 2, 2, 1, 1, 1, 1, 1]


def test_minus_one_is_the_whole_backbone() -> None:
    assert Freezing(-1, (0.5,)).at(0, 10, num_stages=4) == 4
    assert Freezing(-1, (0.5,)).at_end(num_stages=4) == 3


def test_more_to_unfreeze_than_is_frozen_is_refused() -> None:
    with pytest.raises(ValueError, match=r"names 2 points .* only 1 stages"):
        Freezing(1, (0.1, 0.2)).begin(num_stages=4)


@pytest.mark.parametrize("unfreeze_at", [(0.5, 0.1), (5, 10), (0.0,)])
def test_points_must_be_ascending_shares(unfreeze_at: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="shares of the training"):
        Freezing(2, unfreeze_at)


def test_a_number_of_stages_below_all_is_refused() -> None:
    with pytest.raises(ValueError, match=r"freeze\.stages"):
        Freezing(-2)
