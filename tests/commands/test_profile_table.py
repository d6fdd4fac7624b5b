import pytest

from flatten_dense.commands.profile_table import ProfileTable, bytes_in_words, in_short, seconds_in_words
from flatten_dense.profiling.choices import Choice
from flatten_dense.profiling.sweep import Point

SIZES = [(224, 224), (512, 1024)]
L = Choice("flatten_pvt", "LLLL", 1, {SIZES[0]: 2_040_000_000, SIZES[1]: None})
S = Choice("flatten_pvt", "SSSS", 1, {})
TIMM = Choice("deit_tiny", None, 1, {SIZES[0]: 5_400_000})
TABLE = ProfileTable([L, S, TIMM], SIZES, batch_size=2)
SOFTMAX = Point(S, SIZES[0], (0.04,), 40 * 2**20, 1)


def test_a_row():
    row = TABLE.row(Point(L, SIZES[0], (0.05, 0.02, 0.01), 30 * 2**20, 1), SOFTMAX)
    assert row.split() == ["flatten_pvt", "LLLL", "224", "20.0", "ms", "100", "30.0", "MiB", "2.04G", "0.50", "0.75"]


def test_rows_stand_below_the_header():
    last = TABLE.header().splitlines()[-1]
    rows = [TABLE.row(point, SOFTMAX) for point in (SOFTMAX, Point(L, SIZES[1], (0.05,), 2**30, 1))]
    assert [len(row) for row in rows] == [len(last)] * 2


def test_softmax_is_not_compared_with_itself():
    assert TABLE.row(SOFTMAX, SOFTMAX).split()[-2:] == ["-", "-"]


def test_a_point_that_was_left_out_says_why():
    row = TABLE.row(Point(S, SIZES[1], skipped="out of memory"), None)
    assert row.split() == ["flatten_pvt", "SSSS", "512x1024", "out", "of", "memory"]


def test_what_is_not_known_is_a_dash():
    row = TABLE.row(Point(L, SIZES[1], (0.05,)), Point(S, SIZES[1], skipped="out of memory"))
    assert row.split()[5:] == ["40", "-", "-", "-", "-"]


def test_a_model_of_timm():
    assert TABLE.row(Point(TIMM, SIZES[0], (1.5,), 1), None).split()[:5] == ["deit_tiny", "timm's", "224", "1.50", "s"]


def test_growth_and_what_is_less_from_where_on():
    linear = [Point(L, (side, side), (float(side**2),), side**2) for side in (10, 100)]
    softmax = [Point(S, (side, side), (float(side**4) / 900,), side**4) for side in (10, 100)]
    text = "\n".join(TABLE.growth([linear, softmax]))
    assert [line.split() for line in text.splitlines()[1:]] == [
        ["flatten_pvt", "LLLL", "1.00", "1.00", "1.00", "1.00"],
        ["beside", "SSSS", "about", "30", "below", "10"],
        ["flatten_pvt", "SSSS", "2.00", "2.00", "2.00", "2.00"],
    ]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.00123, "1.2 ms"), (0.9, "900.0 ms"), (1.0, "1.00 s"), (75.4, "75.40 s")]
)
def test_seconds_in_words(seconds, words):
    assert seconds_in_words(seconds) == words


@pytest.mark.parametrize(("number", "words"), [(2**19, "0.5 MiB"), (2**30, "1.00 GiB")])
def test_bytes_in_words(number, words):
    assert bytes_in_words(number) == words


def test_sizes_in_short():
    assert [in_short(size) for size in SIZES] == ["224", "512x1024"]
