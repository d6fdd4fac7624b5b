from itertools import pairwise

import pytest
import torch

from flatten_dense.ops.native import depthwise

pytestmark = pytest.mark.skipif(depthwise.library() is None, reason="no C compiler")
SIZE = (7, 10)


@pytest.fixture
def inputs():
    torch.manual_seed(0)
    return torch.randn(2, 70, 32), torch.randn(16, 1, 5, 5), torch.randn(16)


@pytest.mark.parametrize("bands", [[0, 7], [0, 1, 2, 7], [0, 3, 7], [2, 5], [4, 4]])
def test_bands_of_rows_equal_the_whole_map(inputs, bands):
    x, weight, bias = inputs
    whole = depthwise.forward(x, SIZE, weight, bias)
    for first, last in pairwise(bands):
        out = torch.full((2, (last - first) * 10, 40), torch.nan)[..., :32]  # tokens further apart than channels
        depthwise.forward_rows(x, SIZE, weight, bias, out, first, last)
        torch.testing.assert_close(out, whole[:, first * 10 : last * 10], rtol=0, atol=0)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_share_the_work(inputs, threads, monkeypatch):
    x, weight, bias = inputs
    expected = depthwise.forward(x, SIZE, weight, bias), *depthwise.weight_gradient(x, x, SIZE, weight)
    monkeypatch.setattr(depthwise, "_threads", lambda _: threads)
    got = depthwise.forward(x, SIZE, weight, bias), *depthwise.weight_gradient(x, x, SIZE, weight)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-4)


def test_supports_what_the_kernel_can_do(inputs, monkeypatch):
    x, weight, _ = inputs
    assert depthwise.supports(x, weight)
    assert depthwise.supports(x.bfloat16(), weight)
    assert not depthwise.supports(x.double(), weight)
    assert not depthwise.supports(x.half(), weight)
    assert not depthwise.supports(x.to("meta"), weight)
    assert not depthwise.supports(x[..., :24], weight)
    assert not depthwise.supports(x, torch.randn(16, 1, 7, 7))
    monkeypatch.setattr(depthwise, "library", lambda: None)
    assert not depthwise.supports(x, weight)


def test_refuses_tokens_that_do_not_fill_the_map(inputs):
    x, weight, bias = inputs
    with pytest.raises(ValueError, match=r"\(7, 11\), got \(2, 70, 32\)"):
        depthwise.forward(x, (7, 11), weight, bias)


def test_refuses_kernels_that_do_not_divide_the_channels(inputs):
    x, _, bias = inputs
    with pytest.raises(ValueError, match="divisor of the 32 channels"):
        depthwise.forward(x, SIZE, torch.randn(12, 1, 5, 5), bias)
