import torch
import torch.nn.functional as F

from flatten_dense.layers import PatchEmbed
from flatten_dense.layers.patch_embed import pad_to_whole_cells


def test_tokens_are_normalised_projections_of_cells_in_row_major_order():
    torch.manual_seed(0)
    embed = PatchEmbed(3, 8, 4)
    x = torch.randn(1, 3, 8, 12)
    tokens, size = embed(x)
    cell = x[0, :, 4:8, 8:12]  # row 1, column 2
    projected = embed.proj.weight.flatten(1) @ cell.flatten() + embed.proj.bias
    assert size == (2, 3)
    torch.testing.assert_close(tokens[0, 5], F.layer_norm(projected, (8,), eps=1e-5), rtol=1e-4, atol=1e-5)


def test_partial_cells_are_kept_as_if_padded_with_zeros():
    embed = PatchEmbed(3, 8, 4)
    x = torch.randn(2, 3, 9, 5)
    padded = torch.zeros(2, 3, 12, 8)
    padded[..., :9, :5] = x
    tokens, size = embed(x)
    assert size == (3, 2)
    assert torch.equal(tokens, embed(padded)[0])


def test_whole_cells_are_not_padded():
    assert pad_to_whole_cells(torch.zeros(1, 1, 8, 4), 4).shape == (1, 1, 8, 4)
