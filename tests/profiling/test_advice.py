import pytest

from flatten_dense.profiling.advice import advise, compare, curves_beside, growth, in_words
from flatten_dense.profiling.choices import Choice
from flatten_dense.profiling.sweep import Point

SIDES = (224, 512, 1024)
TIMM = Choice("swin_tiny", None, 1)


def curve(attention, seconds, peaks=(10, 50, 200), model="flatten", skipped="out of memory"):
    choice = Choice(model, attention, 1)
    return [
        Point(choice, (side, side), (s,), p, 1) if s is not None else Point(choice, (side, side), skipped=skipped)
        for side, s, p in zip(SIDES, seconds, peaks, strict=True)
    ]


def test_growth_of_time_and_of_memory():
    found = growth(curve("L", [s**2 for s in SIDES], [s**4 for s in SIDES]))
    assert (found.time, found.memory) == (pytest.approx(1), pytest.approx(2))


def test_growth_at_last_is_that_between_the_two_largest_sizes():
    found = growth(curve("L", [1, 512**2, 1024**2], [1, 512**4, 1024**4]))
    assert (found.last_time, found.last_memory) == (pytest.approx(1), pytest.approx(2))


def test_growth_passes_over_what_was_left_out():
    assert growth(curve("L", [224**2, 512**2, None])).time == pytest.approx(1)


def test_time_and_memory_are_compared_apart():
    found = compare(curve("L", [1, 2, 3], [20, 30, 40]), curve("S", [2, 3, 4], [10, 20, 30]))
    assert (found.time.words, found.memory.words) == ("below 224", "beyond 1024")


def test_compared_with_the_own_softmax_and_models_of_timm():
    linear, mixed, own, other = (
        curve("LLLL", [1, 1, 1]),
        curve("LLSS", [1, 1, 1]),
        curve("SSSS", [1, 1, 1]),
        curve("SSSS", [1, 1, 1], model="other"),
    )
    timm = curve(None, [1, 1, 1], model="swin_tiny")
    curves = [linear, mixed, own, other, timm]
    assert curves_beside(mixed, curves) == [own, timm]
    assert curves_beside(own, curves) == curves_beside(timm, curves) == []


def test_linear_attention_that_is_always_faster():
    assert advise([curve("LLLL", [1, 2, 3]), curve("SSSS", [1.5, 4, 9], (20, 100, 800))]) == [
        "flatten: use linear attention (LLLL) at all these sizes: at 1024 it is 3 times "
        "as fast, with 0.25 times the memory"
    ]


def test_linear_attention_that_gets_ahead():
    assert advise([curve("LLSS", [2, 4, 6]), curve("SSSS", [1, 5, 12])]) == [
        "flatten: use mixed attention (LLSS) from 448 pixels on, softmax attention (SSSS) below: at 1024 it is 2 times "
        "as fast, with the same memory"
    ]


def test_softmax_that_stays_ahead():
    assert advise([curve("L", [2, 4, 6], (5, 25, 100)), curve("S", [1, 2, 4])]) == [
        "flatten: use softmax attention (S): linear attention (L) takes 1.5 times as long at 1024, "
        "and 0.5 times the memory"
    ]


def test_softmax_that_could_not_run_at_the_largest_size():
    assert advise([curve("L", [2, 4, 6]), curve("S", [1, 3, None])]) == [
        "flatten: use linear attention (L) from 1024 pixels on, softmax attention (S) below: at 512 it is 1.3 times "
        "as slow, with the same memory; softmax attention (S) at 1024: out of memory"
    ]


def test_linear_attention_that_could_not_run_at_the_largest_size():
    (advice,) = advise([curve("L", [2, 4, None]), curve("S", [3, 6, 9])])
    assert "use softmax attention (S)" in advice
    assert "linear attention (L) at 1024: out of memory" in advice


def test_a_difference_within_the_noise_is_no_reason():
    assert advise([curve("L", [2, 4, 6], (5, 25, 100)), curve("S", [2, 4, 6.1])]) == [
        "flatten: choose by accuracy: at 1024 linear attention (L) takes the time of softmax attention (S) to within "
        "3 %, and 0.5 times the memory"
    ]


def test_of_several_linear_choices_the_fastest_at_the_largest_size_is_taken():
    (advice,) = advise([curve("LLLL", [9, 9, 3]), curve("LLSS", [1, 1, 4]), curve("SSSS", [5, 10, 20])])
    assert "linear attention (LLLL)" in advice


def test_a_choice_that_ran_at_all_sizes_goes_before_one_that_did_not():
    (advice,) = advise([curve("LLLL", [9, 9, 9]), curve("LLSS", [1, 1, None]), curve("SSSS", [20, 20, 20])])
    assert "linear attention (LLLL)" in advice


@pytest.mark.parametrize(("seconds", "ratio"), [([2, 3, 6], "0.5"), ([0.5, 1, 1.5], "2")])
def test_a_model_of_timm_is_compared_with_but_never_advised(seconds, ratio):
    assert advise([curve("LLSS", [1, 2, 3]), curve(None, seconds, model="resnet18")]) == [
        f"flatten: beside resnet18, at 1024 mixed attention (LLSS) takes {ratio} times as long, with the same memory"
    ]


def test_a_line_for_each_model():
    curves = [curve(a, [s, s, s], model=m) for m in ("one", "two") for a, s in (("L", 1), ("S", 2))]
    assert [line.partition(":")[0] for line in advise(curves)] == ["one", "two"]


def test_nothing_to_choose_no_advice():
    assert advise([curve("S", [1, 2, 3]), curve(None, [1, 2, 3], model="resnet18")]) == []


def test_nothing_measured():
    (advice,) = advise([curve("L", [None] * 3), curve("S", [None] * 3)])
    assert "nothing to go by" in advice


def test_unknown_memory_is_said():
    assert "memory unknown" in advise([curve("L", [1, 2, 3], [None] * 3), curve("S", [2, 3, 6], [None] * 3)])[0]


@pytest.mark.parametrize(
    ("attention", "words"),
    [
        ("LLLL", "linear attention (LLLL)"),
        ("S", "softmax attention (S)"),
        ("LLMS2", "mixed attention (LLMS2)"),
        (None, "swin_tiny"),
    ],
)
def test_choices_in_words(attention, words):
    assert in_words(Choice("swin_tiny", attention, 1)) == words
