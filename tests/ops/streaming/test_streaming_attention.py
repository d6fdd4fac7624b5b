"""What only the form in chunks has; its results stand in the table of all forms."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from flatten_dense.ops.inputs import Inputs
from flatten_dense.ops.streaming import attention as streaming
from flatten_dense.ops.streaming import chunks

C = 8


def make_inputs(batch, size, table_size, tables=1):
    torch.manual_seed(0)
    tokens = size[0] * size[1]
    q, k, v = (torch.randn(batch, n, C).double() for n in (tokens - 3, tokens, tokens))
    scale, encoding = torch.randn(1, 1, C).double(), torch.randn(tables, table_size[0] * table_size[1], C).double()
    mask = torch.rand(batch, tokens) < 0.3
    return (q, k, v, scale, encoding, mask), (table_size, size, 2, 3.0)


@pytest.mark.parametrize("chunk", [1, C * 5, C * 40, C * 80])
@pytest.mark.parametrize(("table_size", "tables"), [((2, 2), 1), ((5, 7), 1), ((5, 7), 4)])
def test_the_size_of_a_chunk_changes_nothing(monkeypatch, chunk, table_size, tables):
    tensors, options = make_inputs(4, (5, 7), table_size, tables)
    out, context = streaming.forward(Inputs(*tensors, *options))
    grad = torch.randn_like(out)
    gradients = streaming.backward(grad, Inputs(*tensors, *options), context)
    monkeypatch.setattr(chunks, "NUMBERS", chunk)
    torch.testing.assert_close(streaming.forward(Inputs(*tensors, *options)), (out, context))
    torch.testing.assert_close(streaming.backward(grad, Inputs(*tensors, *options), context), gradients)


def test_context_is_the_mean_over_the_keys():
    tensors, options = make_inputs(2, (3, 4), (3, 4))
    _, k, v, scale, encoding, mask = tensors
    context = streaming.forward(Inputs(*tensors, *options))[1]
    y = ((k + encoding).relu() + 1e-6) / torch.nn.functional.softplus(scale)
    phi = y**3 * (y.norm(dim=-1, keepdim=True) / (y**3).norm(dim=-1, keepdim=True))
    for image in range(2):
        keep = ~mask[image]
        head, values = phi[image, keep][:, 4:], v[image, keep][:, 4:]
        expected = torch.cat([head.T @ values, head.sum(0).unsqueeze(1)], 1) / keep.sum()
        torch.testing.assert_close(context[image, 1], expected)


class LargestTensor(TorchDispatchMode):
    """Notes how many numbers the largest tensors hold that are made inside."""

    def __init__(self):
        super().__init__()
        self.made = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            storage = out.untyped_storage()
            self.made[storage.data_ptr()] = storage.nbytes() // out.element_size()
        return out


def test_no_whole_map_exists_beside_the_outputs(monkeypatch):
    monkeypatch.setattr(chunks, "NUMBERS", C * 40)
    (q, k, v, scale, encoding, mask), options = make_inputs(1, (20, 20), (7, 7))
    outer = {x.untyped_storage().data_ptr() for x in (q, k, v)}
    with LargestTensor() as forward:
        out, context = streaming.forward(Inputs(q, k, v, scale, encoding, mask, *options))
    with LargestTensor() as backward:
        gradients = streaming.backward(out, Inputs(q, k, v, scale, encoding, mask, *options), context)
    outer |= {x.untyped_storage().data_ptr() for x in (out, *gradients)}
    made = [size for mode in (forward, backward) for at, size in mode.made.items() if at not in outer]
    assert max(made) <= C * 60
