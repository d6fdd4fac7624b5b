from types import SimpleNamespace

import pytest
import torch
from torch import nn

from flatten_dense.ops.native import arguments
from flatten_dense.ops.native.arguments import Affine, Encoding, call, dense, inverse_scale


@torch.no_grad()
def test_a_layer_is_cut_into_parts_of_its_output():
    layer, x = nn.Linear(4, 6), torch.randn(3, 4)
    parts = Affine.of(layer, 3)
    assert len(parts) == 3
    torch.testing.assert_close(torch.cat([x @ part.weight.T + part.bias for part in parts], dim=1), layer(x))


def test_parts_of_a_layer_share_its_memory_and_are_dense():
    layer = nn.Linear(4, 6)
    first, second = Affine.of(layer, 2)
    assert first.weight.data_ptr() == layer.weight.data_ptr()
    assert second.weight.is_contiguous()


def library_that_returns(status, seen):
    def kernel(*passed):
        seen.extend(passed)
        return status

    return lambda: SimpleNamespace(some_kernel=kernel)


def test_a_kernel_that_got_no_memory_is_an_error(monkeypatch):
    monkeypatch.setattr(arguments, "library", library_that_returns(1, []))
    with pytest.raises(MemoryError, match="no memory left for the sums of the kernel some_kernel"):
        call("some_kernel", 1)


def test_whole_numbers_are_passed_in_64_bits(monkeypatch):
    seen = []
    monkeypatch.setattr(arguments, "library", library_that_returns(0, seen))
    call("some_kernel", 2**40)
    assert seen[0].value == 2**40


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_inverse_scale_is_that_of_the_softplus_in_float32(dtype):
    scale = torch.linspace(-20, 30, 48, dtype=dtype).view(1, 1, 48).requires_grad_()
    inverse = inverse_scale(scale)
    assert (inverse.shape, inverse.dtype, inverse.requires_grad) == ((48,), torch.float32, False)
    expected = 1 / torch.log1p(torch.exp(scale.detach().double())).flatten()
    torch.testing.assert_close(inverse.double(), expected, rtol=1e-5, atol=0)


def test_rows_keep_the_strides_of_a_view():
    x = torch.zeros(2, 3, 16, dtype=torch.bfloat16)
    found = arguments.rows(x[:, 1:])
    assert (found.data, found.batch, found.token) == (x.data_ptr() + 2 * 16, 3 * 16, 16)
    assert found.type == arguments.TYPES[torch.bfloat16]


@pytest.mark.parametrize(("images", "step"), [(1, 0), (3, 6 * 16)])
def test_one_table_serves_every_image(images, step):
    assert arguments.table(Encoding(torch.zeros(images, 6, 16), (2, 3), (4, 6))).batch == step


def test_only_a_last_dimension_with_gaps_is_copied():
    x = torch.randn(2, 4, 6)
    assert dense(x[:, ::2]).data_ptr() == x.data_ptr()
    assert torch.equal(dense(x.mT), x.mT)
    assert dense(x.mT).stride(-1) == 1
