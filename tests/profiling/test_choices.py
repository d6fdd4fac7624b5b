import pytest
import timm

from flatten_dense.profiling.choices import Choice, choices_of, own_attention

SIZES = [(64, 64), (64, 96)]


def names(choices):
    return [choice.attention for choice in choices]


@pytest.mark.parametrize(
    ("model", "attentions"),
    [
        ("flatten_pvt_test", ["LLLL", "SSSS"]),
        ("flatten_swin_test", ["LLSS", "SSSS"]),
        ("flatten_deit_test", ["L", "S"]),
    ],
)
def test_a_model_is_measured_as_it_is_and_with_softmax(model, attentions):
    assert names(choices_of(model, [], SIZES)) == attentions


@pytest.mark.parametrize(
    ("model", "attention"),
    [
        ("flatten_swin_test", "LSLS"),
        ("flatten_deit_test", "M1"),
        ("flatten_pvt_test", "SSSS"),
        ("flatten_deit_test", "S"),
    ],
)
def test_the_attention_is_read_off_a_model(model, attention):
    assert own_attention(timm.create_model(model, attention=attention)) == attention


def test_a_mixed_stage_is_read_off_with_its_number():
    model = timm.create_model("flatten_swin_test", attention="LLMS1", depths=(1, 1, 3, 1))
    assert own_attention(model) == "LLMS1"


def test_attentions_that_are_asked_for_are_taken_instead():
    assert names(choices_of("flatten_pvt_test", ["LSSS", "SSSS", "LSSS"], SIZES)) == ["LSSS", "SSSS"]


def test_of_attentions_for_several_models_each_takes_what_fits():
    wanted = ["L", "LLSS", "S"]
    assert names(choices_of("flatten_deit_test", wanted, SIZES)) == ["L", "S"]
    assert names(choices_of("flatten_pvt_test", wanted, SIZES)) == ["LLSS"]


def test_attention_that_fits_no_stage_count_is_refused():
    with pytest.raises(
        ValueError, match=r"--attention: none of LL, XX fits flatten_pvt_test: attention must be 4 letters"
    ):
        choices_of("flatten_pvt_test", ["LL", "XX"], SIZES)


def test_a_model_of_timm_is_taken_as_it_is():
    (choice,) = choices_of("resnet10t", ["LLSS"], SIZES)
    assert (choice.attention, choice.options, choice.has_linear) == (None, {}, False)


def test_multiply_accumulates_are_those_of_the_attention_and_the_size():
    linear, softmax = choices_of("flatten_deit_test", [], SIZES)
    assert linear.macs[64, 96] < 1.6 * linear.macs[64, 64]
    assert softmax.macs[64, 64] != linear.macs[64, 64]


def test_a_model_that_does_not_exist():
    with pytest.raises(ValueError, match="unknown backbone name 'flatten_pvt_tost': did you mean flatten_pvt_test"):
        choices_of("flatten_pvt_tost", [], SIZES)


def test_one_linear_block_is_enough_to_be_linear():
    assert [Choice("m", attention, 1).has_linear for attention in ("SSSS", "LSSS", "MSSS1", "L")] == [
        False,
        *[True] * 3,
    ]
