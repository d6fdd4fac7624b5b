import pytest
import torch

from flatten_dense.analysis import attention_weights, convolution_matrix


@pytest.fixture
def through_matrices():
    """What a core gives, computed per head and channel c as (A + B_c) v_c + b_c."""

    def compute(core, q, k, v, q_size, kv_size):
        weights, convolution = (
            attention_weights(core, q, k, v, q_size, kv_size),
            convolution_matrix(core, q_size, kv_size),
        )
        channels = []
        for c in range(v.shape[2]):
            matrix, bias = weights[:, c * weights.shape[1] // v.shape[2]], 0
            if convolution is not None:
                matrix, bias = matrix + convolution[0][c], convolution[1][c]
            channels.append(matrix @ v[..., c, None] + bias)
        return torch.cat(channels, -1)

    return compute


@pytest.fixture
def randomise():
    """Gives every parameter a value that matters, in float64: many start at zero or one."""

    def change(module):
        module.double()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.3)
        return module

    return change
