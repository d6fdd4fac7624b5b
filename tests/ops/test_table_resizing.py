import pytest
import torch
import torch.nn.functional as F

from flatten_dense.ops.table_resizing import BandResizer, resize_table

C = 5
SIZES = [((2, 3), (5, 7)), ((4, 3), (4, 8)), ((4, 3), (9, 3)), ((7, 7), (3, 2)), ((1, 1), (3, 3)), ((5, 6), (1, 1))]


def make_table(size, tables=1):
    torch.manual_seed(0)
    return torch.randn(tables, size[0] * size[1], C).double()


def interpolate(table, from_size, to_size):
    grid = table.transpose(1, 2).unflatten(2, from_size)
    return F.interpolate(grid, to_size, mode="bilinear").flatten(2).transpose(1, 2)


@pytest.mark.parametrize(("from_size", "to_size"), SIZES)
def test_a_table_is_stretched_bilinearly(from_size, to_size):
    table = make_table(from_size, tables=2)
    assert torch.equal(resize_table(table, from_size, to_size), interpolate(table, from_size, to_size))


def test_a_table_of_that_size_is_itself():
    table = make_table((2, 3))
    assert resize_table(table, (2, 3), [2, 3]) is table


@pytest.mark.parametrize("rows", [1, 2, 100])
@pytest.mark.parametrize(("from_size", "to_size"), SIZES)
def test_bands_make_up_the_table(from_size, to_size, rows):
    table, resizer = make_table(from_size), BandResizer(from_size, to_size)
    bands = [resizer.band(table, at, min(at + rows, to_size[0])) for at in range(0, to_size[0], rows)]
    torch.testing.assert_close(torch.cat(bands), interpolate(table, from_size, to_size)[0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("from_size", "to_size"), SIZES)
def test_gradients_of_bands_make_up_that_of_the_table(from_size, to_size):
    table, resizer = make_table(from_size).requires_grad_(), BandResizer(from_size, to_size)
    weight = torch.randn(to_size[0], to_size[1] * C).double()
    (interpolate(table, from_size, to_size).reshape_as(weight) * weight).sum().backward()
    got = torch.zeros_like(table)
    for at in range(0, to_size[0], 2):
        stop = min(at + 2, to_size[0])
        resizer.add_band_gradient(weight[at:stop].view(-1, C), at, stop, got)
    torch.testing.assert_close(got, table.grad, rtol=1e-12, atol=1e-14)


def test_a_stretched_table_lies_in_one_piece():
    assert resize_table(torch.randn(1, 6, 4), (2, 3), (4, 6)).is_contiguous()
