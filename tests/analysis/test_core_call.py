import torch

from flatten_dense.analysis.core_call import CoreCall, call_within, scatter_windows
from flatten_dense.layers import SoftmaxAttention, WindowedAttention


def test_matrices_of_windows_lie_where_their_tokens_are():
    windows = WindowedAttention(SoftmaxAttention(4, 1), (1, 2))
    matrices = torch.arange(1.0, 17.0).view(4, 2, 2)  # of a 2 x 3 map: two windows a row, the second half padding
    whole = scatter_windows(windows, (2, 3), matrices)
    expected = torch.block_diag(matrices[0], matrices[1, :1, :1], matrices[2], matrices[3, :1, :1])
    assert torch.equal(whole, expected)


def test_the_core_within_windows_gets_their_tokens_and_which_are_padding():
    windows = WindowedAttention(SoftmaxAttention(4, 1), (1, 2))
    q, k, v = torch.randn(3, 1, 6, 4)
    call = call_within(windows, CoreCall(q, k, v, (2, 3), (2, 3)))
    assert (call.q_size, call.kv_size) == ((1, 2), (1, 2))
    assert torch.equal(call.v[0], v[0, :2])
    assert call.key_padding_mask.tolist() == [[False, False], [False, True]] * 2
    assert not windows.core._forward_pre_hooks
