import math
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from flatten_dense.visualization.attention_depth import plot_depth
from flatten_dense.visualization.line_colours import LINE_COLOURS

BLOCKS = ("stages.1.blocks.0", "stages.1.blocks.1")


def head(core="own", block=BLOCKS[0], entropy=4.0, keys=54.0, rank=8, with_convolution=64.0, similarity=0.5):
    return SimpleNamespace(
        core=core,
        block=block,
        entropy=entropy,
        effective_keys=keys,
        rank_attention=rank,
        rank_with_dwc=with_convolution and SimpleNamespace(median=with_convolution),
        token_similarity=similarity,
        num_queries=80,
        num_keys=64,
        head_dim=8,
    )


OWN = [head(), head(block=BLOCKS[1], entropy=3.9, keys=49.0, with_convolution=60.0, similarity=0.4)]
SOFTMAX = [head("softmax", block, 3.0, 20.0, 64, None, 0.9) for block in BLOCKS]


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch):
    """Draw without writing; returns the values of the lines of each of the four plots, and the names in the legend."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))

    def run(heads):
        plot_depth(heads, "depth.png")
        values = [[list(line.get_ydata()) for line in axes.lines] for axes in figures[-1].axes]
        return values, [text.get_text() for text in figures[-1].legends[0].get_texts()]

    return run


def test_a_picture_is_written(tmp_path):
    plot_depth([*OWN, *SOFTMAX], tmp_path / "depth.png", "a model")
    with Image.open(tmp_path / "depth.png") as picture:
        assert picture.width > picture.height > 500


def test_each_quantity_has_a_plot_with_a_line_for_each_core(draw):
    entropy, keys, rank, similarity = draw([*OWN, *SOFTMAX])[0]
    assert [4.0, 3.9] in entropy
    assert [3.0, 3.0] in entropy
    assert [54.0, 49.0] in keys
    assert [8, 8] in rank
    assert [64, 64] in rank
    assert similarity == [[0.5, 0.4], [0.9, 0.9]]


def test_a_point_is_the_median_over_the_heads_of_a_block(draw):
    assert [2.0] in draw([head(entropy=entropy) for entropy in (1.0, 2.0, 9.0)])[0][0]


def test_uniform_attention_full_rank_and_the_width_of_a_head_are_drawn_for_comparison(draw):
    entropy, keys, rank, _ = draw(OWN)[0]
    assert entropy[0] == [math.log(64)] * 3
    assert keys[0] == [64] * 3
    assert rank[:2] == [[64] * 3, [8] * 3]


def test_the_rank_with_a_convolution_is_drawn_where_there_is_one(draw):
    assert [64.0, 60.0] in draw(OWN)[0][2]
    assert len(draw(SOFTMAX)[0][2]) == len(draw(OWN)[0][2]) - 1


def test_a_block_without_a_convolution_is_a_gap(draw):
    rank = draw([OWN[0], head(block=BLOCKS[1], with_convolution=None)])[0][2]
    assert any(values[0] == 64 and math.isnan(values[-1]) for values in rank if values)


def test_the_legend_names_every_core(draw):
    many = [head(f"core {number}") for number in range(10)]
    assert draw(many)[1][1:] == [one.core for one in many]


def test_ten_cores_have_ten_colours():
    assert len(set(LINE_COLOURS)) == 10


@pytest.mark.parametrize("block", ["stages.1.blocks.1", "stages.2.blocks.0"])
def test_neighbours_are_joined_also_across_stages(block, draw):
    similarity = draw([head(), head(block=block, similarity=0.4)])[0][3]
    assert similarity == [[0.5, 0.4]]


@pytest.mark.parametrize("block", ["stages.1.blocks.2", "stages.3.blocks.0", "stages.2.blocks.1"])
def test_blocks_that_are_not_neighbours_are_not_joined(block, draw):
    similarity = draw([head(), head(block=block, similarity=0.4)])[0][3]
    np.testing.assert_array_equal(similarity, [[0.5, math.nan, 0.4]])
