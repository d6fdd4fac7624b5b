import math

import numpy as np
import pytest

from flatten_dense.metrics.plain_numbers import number_or_none


@pytest.mark.parametrize(("value", "expected"), [(0.5, 0.5), (math.nan, None), (np.float64(2), 2.0)])
def test_only_nan_has_no_number(value, expected):
    assert number_or_none(value) == expected
    assert type(number_or_none(value)) in (float, type(None))
