import pytest
import timm
import torch
import torch.nn.functional as F

from flatten_dense.backbones.weights.tables import fit_table

ENCODING = "stages.0.blocks.0.attn.core.positional_encoding"
BIAS = "stages.2.blocks.0.attn.core.relative_position_bias_table"


def swin(**options):
    return timm.create_model("flatten_swin_test", **options)


def ramp(height, width, channels=2):
    """[1, h w, C]; every channel rises along both sides of the grid."""
    grid = torch.arange(float(height))[:, None] * 10 + torch.arange(float(width))[None]
    return torch.stack([grid.flatten() * (index + 1) for index in range(channels)], dim=1)[None]


def resized(table, height, width, size):
    maps = table.reshape(height, width, -1).permute(2, 0, 1)[None]
    return F.interpolate(maps, size=size, mode="bicubic", align_corners=False)[0].permute(1, 2, 0).reshape(1, -1, 2)


def test_a_table_of_the_models_grid_is_taken_as_it_is():
    table = ramp(16, 16)
    assert fit_table(swin(), ENCODING, table, None) == (table, "")


def test_an_unknown_grid_of_the_models_length_is_the_models():
    table = ramp(16, 32)
    assert fit_table(swin(img_size=(64, 128)), ENCODING, table, None) == (table, "")


def test_a_square_table_is_resized_bicubically():
    table, detail = fit_table(swin(img_size=(64, 96)), ENCODING, ramp(14, 14), None)
    torch.testing.assert_close(table, resized(ramp(14, 14), 14, 14, (16, 24)))
    assert detail == "(14, 14) -> (16, 24)"


def test_a_table_of_equal_length_but_another_grid_is_resized():
    table, detail = fit_table(swin(img_size=(128, 32)), ENCODING, ramp(8, 32), (32, 128))
    torch.testing.assert_close(table, resized(ramp(8, 32), 8, 32, (32, 8)))
    assert detail == "(8, 32) -> (32, 8)"


def test_a_table_of_an_image_that_is_not_square_is_resized():
    table, detail = fit_table(swin(), ENCODING, ramp(12, 20), (48, 80))
    torch.testing.assert_close(table, resized(ramp(12, 20), 12, 20, (16, 16)))
    assert detail == "(12, 20) -> (16, 16)"


@pytest.mark.parametrize(
    ("img_size", "message"), [(None, "nothing says their grid"), ((64, 64), r"not fit \(64, 64\)")]
)
def test_a_grid_that_nothing_tells_is_asked_for(img_size, message):
    with pytest.raises(ValueError, match=rf"{ENCODING} has 240 rows.*{message}.*source_img_size.*\(16, 16\)"):
        fit_table(swin(), ENCODING, ramp(12, 20), img_size)


def test_an_encoding_of_windows_is_clipped_to_the_image():
    model = swin(attention="LLLL", linear_window_size=4, img_size=128)
    name = "stages.3.blocks.0.attn.core.core.positional_encoding"
    assert fit_table(model, name, ramp(2, 4), (64, 128))[1] == "(2, 4) -> (4, 4)"


def test_the_kind_of_the_models_grid_decides_between_windows_and_cells():
    whole, windowed = swin(), swin(linear_window_size=4)
    inside = ENCODING.replace("attn.core", "attn.core.core")
    # 4 x 4 rows of an 8 x 32 grid: cells of 4 tokens would be (2, 8), windows are (4, 4).
    assert fit_table(whole, ENCODING, ramp(4, 4), (32, 128))[1] == "(2, 8) -> (16, 16)"
    assert fit_table(windowed, inside, ramp(4, 4), (32, 128))[1] == ""


def test_keys_from_coarser_cells():
    model = timm.create_model("flatten_pvt_test", linear_sr_ratios=(4, 2, 1, 1))
    assert fit_table(model, ENCODING, ramp(2, 8), (32, 128))[1] == "(2, 8) -> (4, 4)"


def test_pooled_keys_stay_square():
    model = timm.create_model("flatten_pvt_v2_test", linear=True)
    table = ramp(7, 7)
    assert fit_table(model, ENCODING, table, (64, 128)) == (table, "")


def test_an_absolute_table_lies_on_the_grid_of_its_image():
    model = timm.create_model("flatten_pvt_test")
    assert fit_table(model, "stages.1.pos_embed", ramp(4, 16), (32, 128))[1] == "(4, 16) -> (8, 8)"
    with pytest.raises(ValueError, match="source_img_size"):
        fit_table(model, "stages.1.pos_embed", ramp(7, 7), (32, 128))


def test_a_bias_table_is_resized_over_its_offsets():
    table, detail = fit_table(swin(window_size=5), BIAS, ramp(5, 5)[0], None)
    torch.testing.assert_close(table, resized(ramp(5, 5), 5, 5, (9, 9))[0])
    assert detail == "windows (3, 3) -> (5, 5)"


def test_a_bias_table_of_windows_clipped_to_a_flat_image():
    # Stage 2 of a 32 x 128 image is 2 x 8: windows of 7 become 2 x 7, offsets 3 x 13.
    table, detail = fit_table(swin(), BIAS, ramp(3, 13)[0], (32, 128))
    torch.testing.assert_close(table, resized(ramp(3, 13), 3, 13, (5, 5))[0])
    assert detail == "windows (2, 7) -> (3, 3)"


@pytest.mark.parametrize("length", [24, 16])
def test_a_bias_table_of_no_known_window_is_refused(length):
    with pytest.raises(ValueError, match=f"{length} rows"):
        fit_table(swin(), BIAS, torch.zeros(length, 2), None)


def test_half_precision_is_resized_in_full():
    table, _ = fit_table(swin(), ENCODING, ramp(14, 14).half(), None)
    torch.testing.assert_close(table, resized(ramp(14, 14), 14, 14, (16, 16)))
