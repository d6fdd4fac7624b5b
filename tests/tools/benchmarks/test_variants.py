import timm
import torch
from benchmarks import variants  # noqa: F401 - registers them
from torch import nn

import flatten_dense.backbones  # noqa: F401 - registers ours


def test_the_reference_order_is_a_model_of_timm():
    model = timm.create_model("reference_order", of="flatten_swin_test", attention="LLLL", num_classes=7)
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


def test_linear_layers_are_all_there_with_inputs_as_in_the_model():
    model = timm.create_model("linear_layers", of="flatten_pvt_test").eval()
    images = torch.zeros(2, 3, 40, 72)
    seen = []
    for module in model.reference.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda _, args, out: seen.append((args[0].numel(), out.numel())))
    model.reference(images)
    in_model = list(seen)
    model(images)
    assert [(product.x.numel(), product.out.numel()) for product in model.products[images.shape]] == in_model


def test_products_are_in_half_precision_under_autocast():
    model = timm.create_model("linear_layers", of="flatten_pvt_test")
    images = torch.zeros(1, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        model(images)
    tensors = [tensor for product in model.products[images.shape] for tensor in product]
    assert {tensor.dtype for tensor in tensors} == {torch.bfloat16}
