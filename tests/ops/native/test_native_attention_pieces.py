import pytest
import torch
from torch import nn

from flatten_dense.ops.naive import naive_feature_map, naive_linear_attention
from flatten_dense.ops.native import attention_pieces
from flatten_dense.ops.native.arguments import Affine, Encoding
from flatten_dense.ops.native.build import library
from flatten_dense.ops.table_resizing import resize_table

pytestmark = pytest.mark.skipif(library() is None, reason="no C compiler")
CHANNELS, HEADS = 32, 2


@pytest.fixture
def layers():
    torch.manual_seed(0)
    norm, qkv, proj = nn.LayerNorm(CHANNELS), nn.Linear(CHANNELS, 3 * CHANNELS), nn.Linear(CHANNELS, CHANNELS)
    conv = nn.Conv2d(CHANNELS // HEADS, CHANNELS // HEADS, 5, padding=2, groups=CHANNELS // HEADS)
    for layer in (norm, qkv, proj, conv):
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=0.3)
    return norm, qkv, proj, conv


def by_layers(x, layers, scale, table, table_size, size, residual):
    """In the type of ``x`` by the layers themselves and the N x N matrix."""
    norm, qkv, proj, conv = layers
    q, k, v = qkv(norm(x) if residual else x).chunk(3, dim=-1)
    k = k + resize_table(table, table_size, size)
    out = naive_linear_attention(naive_feature_map(q, scale), naive_feature_map(k, scale), v, HEADS)
    maps = v.transpose(1, 2).reshape(x.shape[0], -1, *size)
    convolved = torch.cat([conv(part) for part in maps.chunk(HEADS, dim=1)], dim=1).flatten(2).transpose(1, 2)
    return proj(out + convolved) + (x if residual else 0)


@pytest.mark.parametrize(
    ("size", "table_size"), [((6, 8), (6, 8)), ((9, 11), (5, 4)), ((1, 1), (2, 2)), ((1, 70), (3, 3))]
)
@pytest.mark.parametrize("rows", [1, 24, 10_000])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_attention_equals_its_layers(layers, size, table_size, rows, residual, dtype):
    norm, qkv, proj, conv = layers
    scale, table = torch.randn(1, 1, CHANNELS), torch.randn(1, table_size[0] * table_size[1], CHANNELS)
    x = torch.randn(2, size[0] * size[1], CHANNELS, dtype=dtype)
    before = x.clone()
    out = attention_pieces.attend(
        x,
        norm if residual else None,
        Affine.of(qkv, 3),
        *Affine.of(proj),
        Affine(conv.weight, conv.bias),
        scale,
        Encoding(table, table_size, size),
        HEADS,
        3,
        residual,
        rows,
    )
    assert out.dtype == (dtype if residual else torch.bfloat16)
    assert torch.equal(x, before)
    wide = [layer.double() for layer in layers]
    expected = by_layers(x.double(), wide, scale.double(), table.double(), table_size, size, residual)
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=0.03 * expected.abs().max().item())
    assert (out - expected).square().mean() < (0.006 * expected.abs().max()) ** 2
