from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from flatten_dense.visualization.attention_sheet import draw_attention_sheet, token_at

PHOTO = torch.zeros(3, 40, 60, dtype=torch.uint8)


def head(core="own", weights=None, with_convolution=None, untrained=()):
    weights = torch.full((24, 6), 1 / 6) if weights is None else weights
    return SimpleNamespace(
        core=core,
        entropy=1.79,
        entropy_share=0.999,
        effective_keys=5.99,
        rank_attention=1,
        rank_with_dwc=None if with_convolution is None else SimpleNamespace(median=6.0),
        token_similarity=0.5,
        num_queries=24,
        num_keys=6,
        head_dim=2,
        q_size=(4, 6),
        kv_size=(2, 3),
        untrained=untrained,
        weights=weights,
        histogram=(torch.tensor([0.01, 0.1, 1.0, 10.0, 100.0]), torch.tensor([0, 0.25, 0.75, 0])),
        sorted_curve=weights.abs().sort(dim=1, descending=True)[0].mean(0),
        singular_values=torch.linalg.svdvals(weights),
        singular_values_with_dwc=with_convolution,
    )


@pytest.fixture(scope="module")
def plain():
    """The axes of a sheet with one head."""
    with pytest.MonkeyPatch.context() as patch:
        figures = []
        patch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
        draw_attention_sheet(PHOTO, [(5.0, 5.0)], [head()], "sheet.png")
    return np.array(figures[0].axes).reshape(-1, 2)


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch):
    """Draw without writing; returns the axes, row by row."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))

    def run(*heads, points=((5.0, 5.0),)):
        draw_attention_sheet(PHOTO, points, heads, "sheet.png")
        return np.array(figures[-1].axes).reshape(-1, 1 + len(heads))

    return run


def heat(axes):
    """What a heat map shows over the photo, and as which part of its scale."""
    return axes.images[1].get_array()


@pytest.mark.parametrize(
    ("point", "token"), [((0, 0), 0), ((9.9, 9.9), 0), ((10, 0), 6), ((0, 10), 1), ((39, 59), 23), ((39.9, 59.9), 23)]
)
def test_a_point_lies_in_the_token_over_it(point, token):
    assert token_at(point, (40, 60), (4, 6)) == token


def test_a_sheet_is_written(tmp_path):
    draw_attention_sheet(PHOTO, [(5, 5)], [head()], tmp_path / "sheet.png", "a model")
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.height > picture.width > 500


def test_there_is_a_column_for_each_core_and_a_row_for_each_point(draw):
    axes = draw(head("own"), head("softmax"), points=((5, 5), (20, 30), (39, 59)))
    assert axes.shape == (1 + 3 + 4, 1 + 2)
    assert [place.texts[0].get_text() for place in axes[0, 1:]] == ["own", "softmax"]


def test_the_numbers_stand_above(draw):
    plain, convolved = draw(head(), head(with_convolution=torch.ones(6), untrained=("dwc.weight",)))[0, 1:]
    assert plain.texts[1].get_text().splitlines() == [
        "entropy 1.79, 100% of log M",
        "effective keys 5.99 of 6",
        "rank 1",
        "token similarity 0.50",
    ]
    assert "rank 1, with convolution 6" in convolved.texts[1].get_text()
    assert convolved.texts[1].get_text().endswith("some parameters are not the model's")


def test_heat_maps_show_the_row_of_the_query_over_the_largest_weight_of_all_cores(draw):
    weights = torch.zeros(24, 6)
    weights[23] = torch.tensor([0.1, 0, 0, 0, 0.4, 0.2])
    axes = draw(head(weights=weights / 2), head("relu", weights), head("softmax"), points=((39, 59),))
    np.testing.assert_allclose(heat(axes[1, 1]), [[0.125, 0, 0], [0, 0.5, 0.25]], rtol=1e-6)
    np.testing.assert_allclose(heat(axes[1, 2]), [[0.25, 0, 0], [0, 1, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(heat(axes[1, 3]), np.full((2, 3), 1 / 2.4), rtol=1e-6)
    assert [place.get_title() for place in axes[1, 1:]] == ["maps: 0 to 2.4 x 1/M", "", ""]


def test_the_query_is_marked_on_the_photo_and_on_each_map(draw):
    for number, place in enumerate(draw(head("own"), head("softmax"), points=((5, 5), (20, 30)))[1:3].flat):
        for line in place.lines:
            assert (line.get_xdata(), line.get_ydata()) == ([30], [20]) if number > 2 else ([5], [5])
        assert place.lines


def test_a_heat_map_covers_the_photo(plain):
    shown = plain[1, 1]
    assert {tuple(image.get_extent()) for image in shown.images} == {(-0.5, 59.5, 39.5, -0.5)}


def test_a_map_of_few_tokens_shows_each_as_one_square(plain):
    assert plain[1, 1].images[1].get_interpolation() == "nearest"


def test_weights_below_zero_have_another_colour(draw):
    weights = torch.zeros(24, 6)
    weights[0, :2] = torch.tensor([0.5, -0.5])
    shown = draw(head(weights=weights))[1, 1].images[1]
    above, below = shown.cmap(shown.norm([1, -1]))
    assert above[0] > above[2]
    assert below[2] > below[0]


def test_the_matrix_is_drawn_whole_on_a_scale_that_one_large_weight_does_not_set(draw):
    weights = torch.full((24, 6), 0.1)
    weights[0, 0] = 50
    image = draw(head(weights=weights))[2, 1].images[0]
    np.testing.assert_array_equal(image.get_array(), weights)
    assert image.get_clim()[1] == pytest.approx(0.1)


def test_each_column_has_the_matrix_of_its_core_on_one_scale(draw):
    sharp = torch.zeros(24, 6)
    sharp[:, 2] = 1
    row = draw(head("own"), head("softmax", sharp))[2]
    np.testing.assert_allclose(row[1].images[0].get_array(), np.full((24, 6), 1 / 6), rtol=1e-6)
    np.testing.assert_array_equal(row[2].images[0].get_array(), sharp)
    assert [place.images[0].get_clim() for place in row[1:]] == [(-1, 1)] * 2
    assert "to 6 x 1/M, which" in " ".join(row[0].texts[0].get_text().split())


def test_ticks_of_the_matrix_are_whole_tokens(draw):
    place = draw(head(weights=torch.full((24, 6), 0.1)))[2, 1]
    assert all(tick == int(tick) for tick in (*place.get_xticks(), *place.get_yticks()))


def test_the_uniform_weight_is_marked(plain):
    assert [1, 1] in [list(line.get_xdata()) for line in plain[3, 1].lines]
    assert [1 / 6, 1 / 6] in [list(line.get_ydata()) for line in plain[4, 1].lines]


def test_the_histogram_is_drawn_where_there_are_weights(plain):
    histogram = plain[3, 1]
    assert histogram.get_xlim() == pytest.approx((0.1, 10))
    np.testing.assert_allclose(histogram.patches[0].get_data().values, [0, 0.25, 0.75, 0])


def test_each_plot_has_all_cores_and_its_own_in_colour(draw):
    sharp = torch.zeros(24, 6)
    sharp[:, 2] = 1
    axes = draw(head("own"), head("softmax", sharp))
    for number in (1, 2):
        lines = [line for line in axes[4, number].lines if len(line.get_xdata()) == 6]
        assert len(lines) == 2
        assert len({line.get_color() for line in lines}) == 2
    np.testing.assert_allclose(axes[4, 2].lines[1].get_ydata(), [1, 0, 0, 0, 0, 0])


def test_singular_values_with_the_convolution_stand_beside_those_without(draw):
    with_convolution = torch.linspace(4, 1, 6)
    lines = draw(head(with_convolution=with_convolution), head("relu"))[5]
    dotted = [line for axes in lines[1:] for line in axes.lines if line.get_linestyle() == ":"]
    assert len(dotted) == 1
    np.testing.assert_allclose(dotted[0].get_ydata(), with_convolution / 4)


def test_a_matrix_of_zeros_is_drawn(draw):
    assert heat(draw(head(weights=torch.zeros(24, 6)))[1, 1]).max() == 0
