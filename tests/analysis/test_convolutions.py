import pytest
import torch

from flatten_dense.analysis import convolution_matrix
from flatten_dense.backbones.cswin import CrossShapedAttention
from flatten_dense.layers import LocallyEnhancedAttention, SoftmaxAttention, WindowedAttention, make_core

C, G, SIZE = 12, 3, (3, 4)


@pytest.mark.parametrize("name", ["softmax", "relu", "elu", "hydra", "efficient", "enhanced", "focused_no_dwc"])
def test_a_core_without_a_convolution_adds_nothing(name):
    core = make_core(name, C, G, SIZE)
    assert convolution_matrix(core, SIZE, SIZE) is None
    assert convolution_matrix(WindowedAttention(core, (2, 2)), SIZE, SIZE) is None


def cores():
    focused = make_core("focused", C, G, SIZE)
    return [
        focused,
        make_core("linear_angular", C, G, SIZE),
        LocallyEnhancedAttention(focused, C),
        WindowedAttention(LocallyEnhancedAttention(SoftmaxAttention(C, G), C), (2, 3)),
        CrossShapedAttention(C, 2, 2),
    ]


@pytest.mark.parametrize("core", cores(), ids=lambda core: type(core).__name__)
def test_matrices_of_some_channels_are_those_of_all(core):
    chosen = [1, 4, 7, 11]
    matrices, biases = convolution_matrix(core, SIZE, SIZE)
    some = convolution_matrix(core, SIZE, SIZE, chosen)
    assert matrices.shape == (C, 12, 12)
    assert torch.equal(some[0], matrices[chosen])
    assert torch.equal(some[1], biases[chosen])
    assert not matrices.requires_grad


def test_heads_share_the_kernels_of_the_focused_core():
    matrices, biases = convolution_matrix(make_core("focused", C, G, SIZE), SIZE, SIZE)
    assert torch.equal(matrices[:4], matrices[4:8])
    assert torch.equal(biases[:4], biases[8:])
    assert not torch.equal(matrices[0], matrices[1])


def test_channels_share_the_kernels_of_linear_angular_heads():
    matrices, _ = convolution_matrix(make_core("linear_angular", C, G, SIZE), SIZE, SIZE)
    assert torch.equal(matrices[0], matrices[3])
    assert not torch.equal(matrices[3], matrices[4])


def test_one_direction_alone_can_be_asked_for():
    matrices, biases = convolution_matrix(CrossShapedAttention(C, 2, 2), SIZE, SIZE, [8])
    assert (matrices.shape, biases.shape) == ((1, 12, 12), (1,))
