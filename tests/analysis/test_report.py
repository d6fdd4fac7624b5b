import json
import math

import pytest
import torch

from flatten_dense.analysis import Analysis, HeadAnalysis, RankWithConvolution


def head(**values):
    defaults = {
        "core": "own",
        "block": "stages.0.blocks.0",
        "head": 0,
        "rank_attention": 64.0,
        "rank_with_dwc": None,
        "entropy": math.log(14),
        "effective_keys": 14.2,
        "token_similarity": 0.25,
        "num_queries": 196,
        "num_keys": 196,
        "head_dim": 64,
        "q_size": (14, 14),
        "kv_size": (14, 14),
        "windows": (),
        "untrained": (),
        **dict.fromkeys(("weights", "sorted_curve", "singular_values", "singular_values_with_dwc"), torch.ones(1)),
        "histogram": (torch.ones(2), torch.ones(1)),
    }
    return HeadAnalysis(**{**defaults, **values})


def lines(*heads):
    return Analysis(list(heads), {}).to_markdown().splitlines()


def test_json_holds_the_numbers_of_each_head_and_the_settings():
    ranks = RankWithConvolution(190.0, 196.0, 196.0, 64)
    content = Analysis([head(rank_with_dwc=ranks), head(head=1)], {"max_tokens": 7}).to_json()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content["settings"] == {"max_tokens": 7}
    first, second = content["heads"]
    assert first["rank_with_dwc"] == {"min": 190.0, "median": 196.0, "max": 196.0, "channels": 64}
    assert (first["entropy_share"], first["windows"], second["rank_with_dwc"]) == (pytest.approx(0.5), [], None)
    keys = {"core", "block", "head", "rank_attention", "entropy", "effective_keys", "token_similarity", "head_dim"}
    assert keys < set(first)
    assert "weights" not in first


def test_a_single_token_gives_null_in_json_and_a_dash_in_the_table():
    single = head(num_keys=1, entropy=0.0, token_similarity=math.nan)
    values = single.to_json()
    assert (values["entropy_share"], values["token_similarity"]) == (None, None)
    assert lines(single)[2].split(" | ")[4] == "-"
    assert lines(single)[2].endswith(" - |")


def test_the_table_has_a_line_for_each_block_and_core_over_heads():
    ranks = [RankWithConvolution(*values, 64) for values in ((150.0, 190.0, 196.0), (160.0, 194.0, 196.0))]
    table = lines(
        head(rank_with_dwc=ranks[0]),
        head(head=1, rank_attention=60.5, effective_keys=18.2, rank_with_dwc=ranks[1]),
        head(core="softmax"),
    )
    expected = "| stages.0.blocks.0 | 14x14 | own | 2.64 | 50% | 16.2 | 60.5 to 64 | 155 / 192 / 196 | 0.25 |"
    assert table[2] == expected
    assert table[3] == "| stages.0.blocks.0 | 14x14 | softmax | 2.64 | 50% | 14.2 | 64 | - | 0.25 |"
    assert table[4] == ""


def test_the_table_names_keys_windows_and_untrained_parameters():
    table = lines(head(kv_size=(7, 7), windows=((7, 2), (2, 7)), core="focused", untrained=("scale", "dwc.weight")))
    assert "| 14x14, keys 7x7, windows 7x2 and 2x7 |" in table[2]
    assert table[-3].startswith("Within windows no row reaches more keys")
    assert table[-1].endswith("start as in a new model: focused (scale, dwc.weight).")
