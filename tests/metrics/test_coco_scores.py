import numpy as np
import pytest

from flatten_dense.metrics import STATS
from flatten_dense.metrics.coco_scores import class_scores, twelve_stats

K = 3


@pytest.fixture
def arrays():
    """Precision and recall with a place of its own in each number; the last class has no truth."""
    rng = np.random.default_rng(0)
    precision, recall = rng.uniform(size=(10, 101, K, 4, 3)), rng.uniform(size=(10, K, 4, 3))
    precision[:, :, -1] = recall[:, -1] = -1
    return precision, recall


def test_each_number_is_the_mean_that_its_name_says(arrays):
    precision, recall = (array.take([0, 1], axis=axis) for array, axis in zip(arrays, (2, 1), strict=True))
    expected = {
        "AP": precision[:, :, :, 0, 2],
        "AP50": precision[0, :, :, 0, 2],
        "AP75": precision[5, :, :, 0, 2],
        "APs": precision[:, :, :, 1, 2],
        "APm": precision[:, :, :, 2, 2],
        "APl": precision[:, :, :, 3, 2],
        "AR1": recall[:, :, 0, 0],
        "AR10": recall[:, :, 0, 1],
        "AR100": recall[:, :, 0, 2],
        "ARs": recall[:, :, 1, 2],
        "ARm": recall[:, :, 2, 2],
        "ARl": recall[:, :, 3, 2],
    }
    stats = twelve_stats(*arrays)
    assert tuple(stats) == STATS == tuple(expected)
    assert stats == pytest.approx({name: values.mean() for name, values in expected.items()})


def test_without_any_truth_there_is_no_number(arrays):
    stats = twelve_stats(*(np.full_like(array, -1) for array in arrays))
    assert np.isnan(list(stats.values())).all()


def test_a_class_without_truth_has_no_score_and_is_in_no_mean(arrays):
    precision, _ = arrays
    scores = class_scores(precision)
    assert np.isnan([scores.ap[-1], scores.ap50[-1]]).all()
    assert scores.ap[:-1] == pytest.approx(precision[:, :, :-1, 0, 2].mean((0, 1)))
    assert scores.mean_precision50 == pytest.approx(precision[0, :, :-1, 0, 2].mean(1))


def test_without_any_truth_there_is_no_curve(arrays):
    scores = class_scores(np.full_like(arrays[0], -1))
    assert np.isnan(scores.mean_precision).all()
    assert scores.mean_precision.shape == (101,)
