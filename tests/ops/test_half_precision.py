import torch

from flatten_dense.ops.half_precision import narrow, saturate, widen


def test_narrow_types_become_float32_and_wide_ones_stay():
    dtypes = [
        widen(torch.ones(2, dtype=t)).dtype for t in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    ]
    assert dtypes == [torch.float32, torch.float32, torch.float32, torch.float64]


def test_gradients_of_float16_saturate():
    x = torch.ones(3, dtype=torch.float16, requires_grad=True)
    (widen(x) * torch.tensor([1e6, -1e6, 2.0])).sum().backward()
    assert x.grad.tolist() == [65504, -65504, 2]


def test_narrowed_to_float16_large_numbers_saturate():
    x = torch.tensor([1e6, -1e6, 2.0])
    assert narrow(x, torch.float16).tolist() == [65504, -65504, 2]
    assert narrow(x, torch.bfloat16).dtype == torch.bfloat16
    assert narrow(x, torch.float32) is x


def test_a_float16_sum_saturates():
    x = torch.full((2,), 6e4, dtype=torch.float16)
    assert saturate(x + x).tolist() == [65504, 65504]
