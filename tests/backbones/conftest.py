import pytest
import timm
import torch

import flatten_dense.backbones  # noqa: F401  registers the models

FAMILIES = ("deit", "pvt", "pvt_v2", "swin", "cswin")


@pytest.fixture(params=FAMILIES)
def micro(request):
    """Name of the micro variant of each family."""
    return f"flatten_{request.param}_test"


@pytest.fixture
def model(micro):
    torch.manual_seed(0)
    return timm.create_model(micro, num_classes=5)


@pytest.fixture
def all_softmax(micro):
    """The `attention` that makes a family its softmax original."""
    return {"attention": "S" if "deit" in micro else "SSSS"}


@pytest.fixture(params=["linear", "softmax"])
def attention(request, all_softmax):
    """The options of a family's default attention, and of softmax in every block."""
    return {} if request.param == "linear" else all_softmax


@pytest.fixture
def randomise():
    """Gives every table, scale, bias and norm a value that matters: many start at zero or one."""

    def change(model):
        torch.manual_seed(1)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim in (1, 3) or name.endswith("table"):
                    parameter.add_(torch.randn_like(parameter) * 0.3)
        return model

    return change
