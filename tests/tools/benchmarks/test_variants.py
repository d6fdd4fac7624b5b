import timm
import torch
from benchmarks import variants  # noqa: F401 - registers them
from torch import nn

import flatten_dense.backbones  # noqa: F401 - registers ours


def test_the_reference_order_is_a_model_of_timm():
    model = timm.create_model("reference_order", of="flatten_swin_test", attention="LLLL", num_classes=7)
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


def test_linear_layers_get_inputs_as_in_the_model():
    model = timm.create_model("linear_layers", of="flatten_pvt_test")
    images = torch.zeros(2, 3, 40, 72)
    model(images)
    seen = {}
    for name, module in model.reference.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(lambda _, args, name=name: seen.setdefault(name, []).append(args[0].shape))
    model.reference(images)
    model(images)
    assert len(seen) == 4 * 5 + 1
    assert all(in_model == alone for in_model, alone in seen.values())


def test_linear_layers_alone_get_half_precision_under_autocast():
    model = timm.create_model("linear_layers", of="flatten_pvt_test")
    images = torch.zeros(1, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        model(images)
    assert {x.dtype for _, x in model.inputs[images.shape]} == {torch.bfloat16}
