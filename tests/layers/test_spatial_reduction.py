import pytest
import torch
from torch import nn

from flatten_dense.layers import FocusedLinearAttention, SoftmaxAttention, SpatialReductionAttention


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
    torch.testing.assert_close(attention(golden.x, size), golden.y, rtol=0, atol=1e-10)


def test_softmax_attention_equals_official(golden_op):
    golden = golden_op("softmax_pvt_sr2_4x16")
    attention = SpatialReductionAttention(64, SoftmaxAttention(64, 4), sr_ratio=2).double()
    load_official(attention, golden.weights)
    torch.testing.assert_close(attention(golden.x, (4, 16)), golden.y, rtol=0, atol=1e-10)


class Recorder(nn.Module):
    def forward(self, q, k, v, q_size, kv_size):
        self.call = (q.shape[1], k.shape[1], v.shape[1], q_size, kv_size)
        return q


def test_partial_cells_are_kept():
    core = Recorder()
    SpatialReductionAttention(8, core, sr_ratio=4)(torch.randn(2, 35, 8), (5, 7))
    assert core.call == (35, 4, 4, (5, 7), (2, 2))


def test_projections_without_bias():
    names = dict(SpatialReductionAttention(8, Recorder(), qkv_bias=False).named_parameters())
    assert set(names) == {"q.weight", "kv.weight", "proj.weight", "proj.bias"}
