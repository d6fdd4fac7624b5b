import math

import pytest
import torch
import torch.nn.functional as F

from flatten_dense.layers import PatchEmbed, PatchMerging, TokenGrid
from flatten_dense.layers.patch_embed import pad_to_whole_cells

EMBEDS = {
    "cells": lambda: PatchEmbed(3, 8, 4),
    "overlapping": lambda: PatchEmbed(3, 8, 4, 7, 3),
    "overlapping_2": lambda: PatchEmbed(3, 8, 2, 3, 1),
    "cswin": lambda: PatchEmbed(3, 8, 4, 7, 2),
    "merging": lambda: PatchMerging(3, 8),
}


@pytest.fixture(params=EMBEDS)
def embed(request):
    torch.manual_seed(0)
    return EMBEDS[request.param]()


def test_tokens_are_normalised_projections_of_cells_in_row_major_order():
    embed = EMBEDS["cells"]()
    x = torch.randn(1, 3, 8, 12)
    tokens, grid = embed(x, TokenGrid.of(x))
    cell = x[0, :, 4:8, 8:12]  # row 1, column 2
    projected = embed.proj.weight.flatten(1) @ cell.flatten() + embed.proj.bias
    assert grid.size == (2, 3)
    torch.testing.assert_close(tokens[0, 5], F.layer_norm(projected, (8,), eps=1e-5), rtol=1e-4, atol=1e-5)


def test_merging_concatenates_the_rows_of_a_column_first():
    embed = EMBEDS["merging"]()
    x = torch.randn(1, 3, 4, 6)
    tokens, grid = embed(x, TokenGrid.of(x))
    cell = torch.cat([x[0, :, 2, 2], x[0, :, 3, 2], x[0, :, 2, 3], x[0, :, 3, 3]])  # row 1, column 1
    assert grid.size == (2, 3)
    torch.testing.assert_close(tokens[0, 4], embed.reduction.weight @ embed.norm(cell), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 8), (9, 5), (33, 34), (35, 36), (37, 1)])
def test_a_partial_cell_is_a_token(embed, size):
    x = torch.randn(2, 3, *size)
    tokens, grid = embed(x, TokenGrid.of(x))
    assert grid.size == tuple(math.ceil(side / embed.stride) for side in size)
    assert tokens.shape == (2, grid.size[0] * grid.size[1], 8)


def test_beyond_the_map_are_zeros(embed):
    x = torch.randn(2, 3, 9, 5)
    padded = F.pad(x, (0, 3, 0, 3))
    tokens, grid = embed(x, TokenGrid.of(x))
    got, size = embed(padded, TokenGrid.of(padded))[0], grid.size
    got = got.view(2, -(-12 // embed.stride), -(-8 // embed.stride), 8)[:, : size[0], : size[1]]
    torch.testing.assert_close(tokens, got.flatten(1, 2))


def test_an_image_of_a_padded_batch_is_cut_as_if_alone(embed):
    x = torch.randn(2, 3, 13, 11)
    tokens, grid = embed(x, TokenGrid.of(x, [(9, 5), (13, 11)]))
    alone, alone_grid = embed(x[:1, :, :9, :5], TokenGrid((9, 5)))
    assert grid.own_sizes[0] == alone_grid.size
    got = tokens.view(2, *grid.size, 8)[0, : alone_grid.size[0], : alone_grid.size[1]]
    torch.testing.assert_close(got.flatten(0, 1), alone[0])


def test_no_norm():
    embed = PatchEmbed(3, 8, 4, norm=False)
    x = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(embed(x, TokenGrid.of(x))[0], embed.proj(x).flatten(2).transpose(1, 2))


def test_whole_cells_are_not_padded():
    assert pad_to_whole_cells(torch.zeros(1, 1, 8, 4), 4).shape == (1, 1, 8, 4)


@pytest.mark.parametrize("size", [(8, 12), (9, 13)])
def test_tokens_of_images_lie_in_one_piece(size):
    x = torch.randn(1, 3, *size)
    embed = PatchEmbed(3, 8, 4, norm=False)
    assert embed(x, TokenGrid.of(x))[0].is_contiguous()
