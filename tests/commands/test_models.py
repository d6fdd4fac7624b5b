import json
import subprocess
import sys

import pytest

from flatten_dense.cli import main
from flatten_dense.commands.models import cost_of, find_models, parse_size
from flatten_dense.commands.published import PUBLISHED, of_variant


def test_all_variants_without_the_micro_ones():
    names = find_models([])
    assert {"flatten_deit_tiny", "flatten_pvt_base", "flatten_pvt_v2_b5", "flatten_swin_base_384"} <= set(names)
    assert not [name for name in names if name.endswith("_test")]


def test_a_pattern_leaves_out_the_micro_ones():
    assert find_models(["*cswin*"]) == [f"flatten_cswin_{size}" for size in ("tiny", "small", "base", "base_384")]


def test_micro_variants_are_found_by_name():
    assert find_models(["flatten_pvt_test"]) == ["flatten_pvt_test"]


def test_a_name_given_twice_comes_once():
    assert find_models(["flatten_pvt_tiny", "flatten_pvt_t*"]) == ["flatten_pvt_tiny"]


def test_misspelt_name_suggests_the_nearest():
    with pytest.raises(ValueError, match="no model 'flaten_pvt_tini'; did you mean flatten_pvt_tiny"):
        find_models(["flaten_pvt_tini"])


def test_part_of_a_name_suggests_the_pattern():
    with pytest.raises(ValueError, match=r"no model 'swin'; '\*swin\*', with the quotes, lists .*flatten_swin_tiny"):
        find_models(["swin"])


@pytest.mark.parametrize(
    ("words", "size"), [(["96"], (96, 96)), (["64x96"], (64, 96)), (["64X96"], (64, 96)), (["64", "96"], (64, 96))]
)
def test_forms_of_a_size(words, size):
    assert parse_size(words) == size


@pytest.mark.parametrize("words", [["big"], ["64x"], ["64", "96", "128"], ["-64"], ["64.5"]])
def test_what_is_no_size_is_refused(words):
    with pytest.raises(ValueError, match="--size takes a side in pixels, or height and width"):
        parse_size(words)


@pytest.mark.parametrize("words", [["31"], ["512", "16"], ["1000000"]])
def test_size_out_of_range_is_refused(words):
    with pytest.raises(ValueError, match="--size must be 32 to 65536 pixels on each side, got"):
        parse_size(words)


def test_cost_is_counted_at_the_native_size():
    cost = cost_of("flatten_swin_test")
    assert cost.native_size == cost.input_size == (64, 64)
    assert cost == cost_of("flatten_swin_test", (64, 64))


def test_cost_at_another_size():
    assert cost_of("flatten_deit_test", (64, 128)).macs > 1.9 * (cost_of("flatten_deit_test").macs)
    assert cost_of("flatten_deit_test", (64, 128)).parameters == cost_of("flatten_deit_test").parameters


def test_json_holds_exact_integers_and_the_printed_figures(capsys):
    assert main(["models", "flatten_pvt_tiny", "--json"]) == 0
    (model,) = json.loads(capsys.readouterr().out)
    assert model == {
        "name": "flatten_pvt_tiny",
        "native_size": [224, 224],
        "input_size": [224, 224],
        "parameters": 12_149_480,
        "macs": 2_037_406_720,
        "paper": {"parameters": "12.2M", "flops": "2.0G", "top1": "77.8"},
    }


def test_json_of_a_model_that_is_not_of_the_paper(capsys):
    assert main(["models", "flatten_pvt_test", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["paper"] is None


def test_table_shows_counts_beside_the_paper(capsys):
    assert main(["models", "flatten_pvt_tiny", "--size", "64", "96"]) == 0
    header, row = capsys.readouterr().out.splitlines()[:2]
    assert header.split() == ["model", "native", "parameters", "MACs", "at", "paper:", "parameters", "FLOPs", "top-1"]
    assert row.split()[:3] == ["flatten_pvt_tiny", "224x224", "12.15M"]
    assert row.split()[4:] == ["64x96", "12.2M", "2.0G", "77.8"]


@pytest.mark.parametrize("size", [["64"], ["64", "64"], ["64x64"]])
def test_names_may_follow_the_size(size, capsys):
    assert main(["models", "--json", "--size", *size, "flatten_pvt_test"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["input_size"] == [64, 64]


def test_bad_name_is_told_in_one_message(capsys):
    assert main(["models", "flatten_pvt_huge"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "flatten-dense models: there is no model 'flatten_pvt_huge'" in captured.err


def test_does_not_wait_for_lightning():
    code = "import sys; from flatten_dense.cli import main; assert main(['models', 'flatten_pvt_test']) == 0\n"
    code += "assert 'lightning' not in sys.modules, 'lightning was imported'"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_every_published_row_names_a_variant():
    assert {row.name for row in PUBLISHED} <= set(find_models([]))


def test_a_variant_has_the_row_of_its_own_attention():
    row = of_variant("flatten_swin_base_384")
    assert (row.label, row.size) == ("FLatten-Swin-B 384", 384)
