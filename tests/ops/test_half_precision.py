import torch

from flatten_dense.ops.half_precision import widen


def test_narrow_types_become_float32_and_wide_ones_stay():
    dtypes = [
        widen(torch.ones(2, dtype=t)).dtype for t in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    ]
    assert dtypes == [torch.float32, torch.float32, torch.float32, torch.float64]


def test_gradients_of_float16_saturate():
    x = torch.ones(3, dtype=torch.float16, requires_grad=True)
    (widen(x) * torch.tensor([1e6, -1e6, 2.0])).sum().backward()
    assert x.grad.tolist() == [65504, -65504, 2]
