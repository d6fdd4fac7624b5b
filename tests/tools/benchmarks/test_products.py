import pytest
import torch
from benchmarks.products import Product
from torch import nn


@pytest.mark.parametrize("bias", [True, False])
def test_a_product_is_that_of_the_layer(bias):
    layer = nn.Linear(5, 3, bias=bias)
    x = torch.randn(7, 5)
    product = Product.of(layer, x)
    with torch.no_grad():
        product.run()
        torch.testing.assert_close(product.out, layer(x))


def test_a_product_is_in_the_type_of_its_input():
    product = Product.of(nn.Linear(5, 3), torch.randn(7, 5, dtype=torch.bfloat16))
    assert {tensor.dtype for tensor in product} == {torch.bfloat16}


def test_a_product_goes_where_it_is_told():
    out = torch.empty(7, 3)
    assert Product.of(nn.Linear(5, 3), torch.randn(7, 5), out).out is out
