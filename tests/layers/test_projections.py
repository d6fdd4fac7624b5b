import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from flatten_dense.layers import (
    POOLED_GRID,
    FocusedLinearAttention,
    FusedAttention,
    LocallyEnhancedAttention,
    SoftmaxAttention,
    SpatialReductionAttention,
    TokenGrid,
    WindowedAttention,
)
from flatten_dense.ops import attention_form
from flatten_dense.ops.native.build import library


def load_official(attention, weights):
    ours = {}
    for name, tensor in weights.items():
        in_core = name.split(".")[0] in ("scale", "positional_encoding", "dwc")
        ours[f"core.{name}" if in_core else name] = tensor
    attention.load_state_dict(ours)


@pytest.mark.parametrize(
    ("case", "size", "sr_ratio"),
    [("pvt_sr1_8x8", (8, 8), 1), ("pvt_sr2_4x16", (4, 16), 2), ("pvt_v2_sr1_4x16", (4, 16), 1)],
)
def test_linear_attention_equals_official(golden_op, case, size, sr_ratio):
    golden = golden_op(case)
    core = FocusedLinearAttention(64, 4, (size[0] // sr_ratio, size[1] // sr_ratio))
    attention = SpatialReductionAttention(64, core, sr_ratio).double()
    load_official(attention, golden.weights)
    torch.testing.assert_close(attention(golden.x, TokenGrid(size)), golden.y, rtol=0, atol=1e-10)


def test_pooled_attention_equals_official(golden_op):
    golden = golden_op("pvt_v2_linear_sr1_7x7")
    core = FocusedLinearAttention(64, 4, POOLED_GRID)
    attention = SpatialReductionAttention(64, core, pooled=True).double()
    load_official(attention, golden.weights)
    torch.testing.assert_close(attention(golden.x, TokenGrid((7, 7))), golden.y, rtol=0, atol=1e-10)


def test_softmax_attention_equals_official(golden_op):
    golden = golden_op("softmax_pvt_sr2_4x16")
    attention = SpatialReductionAttention(64, SoftmaxAttention(64, 4), sr_ratio=2).double()
    load_official(attention, golden.weights)
    torch.testing.assert_close(attention(golden.x, TokenGrid((4, 16))), golden.y, rtol=0, atol=1e-10)


class Recorder(nn.Module):
    def forward(self, q, k, v, q_size, kv_size, key_padding_mask=None, own_sizes=None):
        self.qkv = q, k, v
        self.call = (q.shape[1], k.shape[1], v.shape[1], q_size, kv_size)
        self.mask, self.own_sizes = key_padding_mask, own_sizes
        return q


def test_partial_cells_are_kept():
    core = Recorder()
    SpatialReductionAttention(8, core, sr_ratio=4)(torch.randn(2, 35, 8), TokenGrid((5, 7)))
    assert core.call == (35, 4, 4, (5, 7), (2, 2))


def test_pooled_keys_are_the_means_of_equal_parts_of_the_map():
    torch.manual_seed(0)
    core = Recorder()
    attention = SpatialReductionAttention(8, core, pooled=True)
    x = torch.randn(1, 14 * 21, 8)
    attention(x, TokenGrid((14, 21)))
    mean = x.view(14, 21, 8)[2:4, 3:6].mean(dim=(0, 1))  # row 1, column 1 of 7 x 7
    source = F.gelu(attention.norm(attention.sr.weight.flatten(1) @ mean + attention.sr.bias))
    torch.testing.assert_close(core.qkv[1][0, 8], attention.kv(source)[:8], rtol=1e-4, atol=1e-5)


def test_keys_of_a_padded_batch_come_from_each_image_alone():
    torch.manual_seed(0)
    core = Recorder()
    attention = SpatialReductionAttention(8, core, sr_ratio=2)
    maps = torch.randn(2, 8, 6, 6)
    grid = TokenGrid.of(maps, [(3, 5), (6, 6)])
    attention(TokenGrid.to_tokens(maps), grid)
    keys, mask = core.qkv[1][0].view(3, 3, 8), core.mask[0].view(3, 3)
    assert core.own_sizes == ((2, 3), (3, 3))
    assert mask.tolist() == [[False, False, False], [False, False, False], [True, True, True]]
    attention(TokenGrid.to_tokens(maps[:1, :, :3, :5]), TokenGrid((3, 5)))
    torch.testing.assert_close(keys[:2], core.qkv[1][0].view(2, 3, 8))


def test_fused_projection_is_in_the_order_queries_keys_values():
    core = Recorder()
    attention = FusedAttention(4, core)
    x = torch.randn(1, 6, 4)
    attention(x, TokenGrid((2, 3)))
    for part, tensor in enumerate(core.qkv):
        rows = slice(4 * part, 4 * part + 4)
        torch.testing.assert_close(tensor, F.linear(x, attention.qkv.weight[rows], attention.qkv.bias[rows]))


def linear_attention(kind=FusedAttention, dim=32, heads=2, grid=(4, 5), core=None):
    torch.manual_seed(0)
    attention = kind(dim, core or FocusedLinearAttention(dim, heads, grid)).eval()
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.3)
    return attention


@pytest.fixture
def as_one(monkeypatch):
    """Say whether an attention module ran its projections and its core as one."""

    def ran_as_one(attention, *args):
        called = []
        whole = attention._attend
        monkeypatch.setattr(attention, "_attend", lambda *args: called.append(True) or whole(*args))
        attention(*args)
        return not called

    return ran_as_one


@pytest.mark.parametrize("kind", [FusedAttention, SpatialReductionAttention])
@pytest.mark.parametrize(("size", "dim", "heads"), [((4, 5), 32, 2), ((7, 3), 96, 3), ((1, 1), 64, 1)])
def test_inference_gives_what_training_gives(kind, size, dim, heads):
    attention, norm = linear_attention(kind, dim, heads), nn.LayerNorm(dim)
    x, grid = torch.randn(2, size[0] * size[1], dim), TokenGrid(size)
    expected, expected_sum = attention(x, grid), x + attention(norm(x), grid)
    with torch.inference_mode():
        torch.testing.assert_close(attention(x, grid), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(attention.added_to(x, norm, grid), expected_sum, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(library() is None, reason="no C compiler")
@pytest.mark.parametrize("kind", [FusedAttention, SpatialReductionAttention])
def test_inference_runs_as_one(kind, as_one):
    with torch.no_grad():
        assert as_one(linear_attention(kind), torch.randn(1, 20, 32), TokenGrid((4, 5)))


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_inference_with_the_locally_enhanced_encoding_gives_what_training_gives(kernel_size):
    core = FocusedLinearAttention(32, 2, (4, 5), kernel_size=kernel_size)
    attention = linear_attention(core=LocallyEnhancedAttention(core, 32))
    x, grid = torch.randn(2, 20, 32), TokenGrid((4, 5))
    expected = attention(x, grid)
    with torch.inference_mode():
        torch.testing.assert_close(attention(x, grid), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(library() is None, reason="no C compiler")
def test_the_locally_enhanced_encoding_runs_with_the_rest_as_one(as_one):
    attention = linear_attention(core=LocallyEnhancedAttention(FocusedLinearAttention(32, 2, (4, 5)), 32))
    with torch.no_grad():
        assert as_one(attention, torch.randn(1, 20, 32), TokenGrid((4, 5)))


def test_training_does_not_run_as_one(as_one):
    assert not as_one(linear_attention(), torch.randn(1, 20, 32), TokenGrid((4, 5)))


def test_windows_do_not_run_as_one(as_one):
    core = WindowedAttention(FocusedLinearAttention(32, 2, (2, 2)), (2, 2))
    with torch.no_grad():
        assert not as_one(linear_attention(core=core), torch.randn(1, 20, 32), TokenGrid((4, 5)))


def test_padded_batches_do_not_run_as_one(as_one):
    grid = TokenGrid.of(torch.zeros(2, 32, 4, 5), [(4, 5), (3, 2)])
    with torch.no_grad():
        assert not as_one(linear_attention(), torch.randn(2, 20, 32), grid)


@pytest.mark.skipif(library() is None, reason="no C compiler")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bfloat16_products_run_as_one(as_one, dtype):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert as_one(linear_attention(), torch.randn(1, 20, 32, dtype=dtype), TokenGrid((4, 5)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bfloat16_products_keep_the_type_of_the_sum(dtype):
    attention, norm, x, grid = (
        linear_attention(),
        nn.LayerNorm(32),
        torch.randn(1, 20, 32, dtype=dtype),
        TokenGrid((4, 5)),
    )
    with torch.autocast("cpu", torch.bfloat16):
        expected, expected_sum = attention(x, grid), x + attention(norm(x), grid)
        with torch.no_grad():
            out, total = attention(x, grid), attention.added_to(x, norm, grid)
    for got, wanted in ((out, expected), (total, expected_sum)):
        torch.testing.assert_close(got, wanted, rtol=0, atol=0.03 * wanted.abs().max().item())


def test_float16_products_do_not_run_as_one(as_one):
    with torch.no_grad(), torch.autocast("cpu", torch.float16):
        assert not as_one(linear_attention(), torch.randn(1, 20, 32), TokenGrid((4, 5)))


def test_a_demanded_form_is_not_passed_by(as_one):
    with torch.no_grad(), attention_form("streaming"):
        assert not as_one(linear_attention(), torch.randn(1, 20, 32), TokenGrid((4, 5)))


def test_a_replaced_projection_is_called(as_one):
    attention = linear_attention()
    attention.proj = nn.Sequential(attention.proj)
    with torch.no_grad():
        assert not as_one(attention, torch.randn(1, 20, 32), TokenGrid((4, 5)))


def test_a_core_with_a_forward_of_its_own_is_called(as_one):
    class Own(FocusedLinearAttention):
        def forward(self, q, *args, **kwargs):
            return q

    with torch.no_grad():
        assert not as_one(linear_attention(core=Own(32, 2, (4, 5))), torch.randn(1, 20, 32), TokenGrid((4, 5)))


def test_a_table_in_another_order_of_memory_is_read_right():
    attention, x, grid = linear_attention(), torch.randn(1, 20, 32), TokenGrid((4, 5))
    table = torch.randn(1, 32, 20).transpose(1, 2)
    attention.core.load_state_dict(attention.core.state_dict() | {"positional_encoding": table}, assign=True)
    expected = attention(x, grid)
    with torch.no_grad():
        torch.testing.assert_close(attention(x, grid), expected, rtol=1e-4, atol=1e-5)


def test_counted_products_are_all_there():
    attention, x, grid = linear_attention(), torch.randn(1, 20, 32), TokenGrid((4, 5))
    counts = []
    for grad in (True, False):
        with torch.set_grad_enabled(grad), FlopCounterMode(display=False) as counter:
            attention(x, grid)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1]
    assert counts[0] > 2 * 20 * 4 * 32 * 32
