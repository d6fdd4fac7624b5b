import pytest
import torch

from flatten_dense.layers import relative_position_bias, resize_token_table, streaming
from flatten_dense.layers.positional import add_table


def test_own_grid_is_the_identity():
    table = torch.randn(1, 12, 5)
    assert resize_token_table(table, (3, 4), (3, 4)) is table


def test_same_token_count_on_another_grid_is_resized():
    table = torch.arange(12.0).view(1, 12, 1)
    assert not torch.equal(resize_token_table(table, (3, 4), (4, 3)), table)


def test_bilinear_between_cell_centres_in_row_major_order():
    rows, columns = torch.meshgrid(torch.arange(2.0), torch.arange(3.0), indexing="ij")
    table = (10 * rows + columns).reshape(1, 6, 1)
    resized = resize_token_table(table, (2, 3), (4, 6)).view(4, 6)
    # Centres of the finer cells lie at (i + 0.5) / 2 - 0.5, clamped to the outer centres.
    y = torch.tensor([0.0, 0.25, 0.75, 1.0]).view(4, 1)
    x = torch.tensor([0.0, 0.25, 0.75, 1.25, 1.75, 2.0]).view(1, 6)
    torch.testing.assert_close(resized, 10 * y + x)


def test_channels_do_not_mix():
    table = torch.randn(1, 6, 2)
    both = resize_token_table(table, (2, 3), (5, 4))
    assert torch.equal(both[..., 1:], resize_token_table(table[..., 1:], (2, 3), (5, 4)))


def test_each_image_of_a_padded_batch_gets_the_table_at_its_own_size():
    table = torch.randn(1, 12, 5)
    own = [(3, 4), (2, 6), (3, 4)]
    resized = resize_token_table(table, (3, 4), (4, 6), own).view(3, 4, 6, 5)
    for got, (height, width) in zip(resized, own, strict=True):
        alone = resize_token_table(table, (3, 4), (height, width)).view(height, width, 5)
        assert torch.equal(got[:height, :width], alone)
        assert not got[height:].any()
        assert not got[:, width:].any()


def test_relative_bias_is_the_tables_row_for_the_offset():
    table = torch.randn(25, 2)  # windows of 3
    bias = relative_position_bias(table, 3, (2, 3))
    assert bias.shape == (2, 6, 6)
    for query in range(6):
        for key in range(6):
            row, column = query // 3 - key // 3 + 2, query % 3 - key % 3 + 2
            assert torch.equal(bias[:, query, key], table[row * 5 + column])


@pytest.mark.parametrize("piece", [1, 60, 10_000])
@pytest.mark.parametrize("to_size", [(3, 4), (7, 10), (2, 9)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@torch.no_grad()
def test_a_table_is_added_in_bands(piece, to_size, dtype, monkeypatch):
    monkeypatch.setattr(streaming, "PIECE_ON_CPU", piece)
    monkeypatch.setattr(streaming, "PIECE_PER_THREAD", 0)
    table, tokens = torch.randn(1, 12, 5, dtype=torch.float64), torch.randn(2, to_size[0] * to_size[1], 5, dtype=dtype)
    expected = tokens + resize_token_table(table, (3, 4), to_size)
    torch.testing.assert_close(add_table(tokens, table, (3, 4), to_size), expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_table_added_in_bands_keeps_its_precision_under_autocast(monkeypatch):
    monkeypatch.setattr(streaming, "PIECE_ON_CPU", 100)
    monkeypatch.setattr(streaming, "PIECE_PER_THREAD", 0)
    table, tokens = torch.randn(1, 12, 5), torch.randn(1, 70, 5)
    expected = tokens + resize_token_table(table, (3, 4), (7, 10))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(add_table(tokens, table, (3, 4), (7, 10)), expected, rtol=0, atol=1e-5)
