import importlib.util
from pathlib import Path

import torch
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

TOOL = Path(__file__).parents[2] / "tools" / "lraspp_baseline.py"


def test_the_network_is_torchvisions_own():
    spec = importlib.util.spec_from_file_location("lraspp_baseline", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    theirs = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=11).eval()
    backbone = tool.MobileNetV3().eval()
    head = tool.LRASPP(backbone.channels, backbone.strides, 11).eval()
    backbone.body.load_state_dict(theirs.backbone.state_dict())
    head.body.load_state_dict(theirs.classifier.state_dict())
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = torch.nn.functional.interpolate(head(backbone(image)), size=(64, 96), mode="bilinear")
        assert torch.equal(logits, theirs(image)["out"])
