import torch

from flatten_dense.layers import LocallyEnhancedAttention, SoftmaxAttention


def test_adds_a_convolution_of_the_values_to_the_core():
    torch.manual_seed(0)
    core = SoftmaxAttention(8, 2)
    attention = LocallyEnhancedAttention(core, 8)
    q, k, v = torch.randn(3, 1, 6, 8)
    expected = core(q, k, v, (2, 3), (2, 3)) + attention.lepe(v.transpose(1, 2).view(1, 8, 2, 3)).flatten(2).mT
    torch.testing.assert_close(attention(q, k, v, (2, 3), (2, 3)), expected)


def test_convolution_does_not_read_masked_values():
    attention = LocallyEnhancedAttention(SoftmaxAttention(8, 2), 8)
    q, k, v = torch.randn(3, 1, 6, 8)
    mask = torch.tensor([[False, False, True, False, False, True]])
    other = v.clone()
    other[:, mask[0]] = 100
    got = attention(q, k, v, (2, 3), (2, 3), mask), attention(q, k, other, (2, 3), (2, 3), mask)
    torch.testing.assert_close(*got)
