import pytest
import torch
from torch import nn

from flatten_dense.layers import conv_bn_relu


def test_starts_kaiming_normal_by_fan_out() -> None:
    torch.manual_seed(0)
    conv = conv_bn_relu(256, 128)[0]
    assert conv.weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_equals_the_three_layers(kernel_size: int) -> None:
    block = conv_bn_relu(3, 4, kernel_size)
    x = torch.randn(2, 3, 5, 6)
    convolved = nn.functional.conv2d(x, block[0].weight, padding=kernel_size // 2)
    mean = convolved.mean(dim=(0, 2, 3), keepdim=True)
    variance = convolved.var(dim=(0, 2, 3), keepdim=True, unbiased=False)
    torch.testing.assert_close(block(x), ((convolved - mean) / (variance + 1e-5).sqrt()).relu())


def test_one_value_per_channel_trains_as_it_is_evaluated() -> None:
    block = conv_bn_relu(3, 4, 1)
    block(torch.randn(2, 3, 5, 5))
    x = torch.randn(1, 3, 1, 1)
    trained = block(x)
    trained.sum().backward()
    assert block[1].bias.grad is not None
    assert block[1].num_batches_tracked == 1, "one value says nothing of a variance"
    torch.testing.assert_close(trained, block.eval()(x))


def test_becomes_synchronised() -> None:
    block = nn.SyncBatchNorm.convert_sync_batchnorm(conv_bn_relu(3, 4))
    assert [type(module) for module in block] == [nn.Conv2d, nn.SyncBatchNorm, nn.ReLU]
