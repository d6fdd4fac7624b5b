"""Every golden output of the official code, in float64."""

from pathlib import Path

import pytest
import timm
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

FOLDER = Path(__file__).parents[1] / "golden"
MODELS = {
    "flatten_pvt_t": ("flatten_pvt_tiny", {}),
    "extra_pvt_t_LLSS": ("flatten_pvt_tiny", {"attention": "LLSS"}),
    "flatten_pvt_v2_b0": ("flatten_pvt_v2_b0", {}),
    "flatten_pvt_v2_b2": ("flatten_pvt_v2_b2", {}),
    "extra_pvt_v2_b0_la8421": ("flatten_pvt_v2_b0", {"linear_sr_ratios": (8, 4, 2, 1)}),
    "flatten_swin_t": ("flatten_swin_tiny", {}),
    "extra_swin_t_w7_LLLL": ("flatten_swin_tiny", {"attention": "LLLL", "linear_window_size": 7}),
    "flatten_swin_b_384": ("flatten_swin_base_384", {}),
    "flatten_cswin_t": ("flatten_cswin_tiny", {}),
    "extra_cswin_t_LLMS2": ("flatten_cswin_tiny", {"attention": "LLMS2"}),
    "flatten_cswin_b_384": ("flatten_cswin_base_384", {}),
}
NEVER_CALLED = {"flatten_pvt_t": 1024, "extra_pvt_t_LLSS": 1024}  # parameters of the released PVT's final norm


@pytest.mark.parametrize("name", MODELS)
def test_equals_official(golden_io, name):
    variant, options = MODELS[name]
    golden = golden_io.load(FOLDER / f"{name}.json.gz")
    official = {key: torch.from_numpy(array) for key, array in golden_io.filled(golden["state_dict"]).items()}
    model = timm.create_model(variant, **options).eval()
    ours = model.rename_checkpoint(official)
    model.load_state_dict({key: tensor for key, tensor in ours.items() if model.why_useless(key) is None})
    model.double()
    images = torch.from_numpy(golden_io.model_input(golden)).double()
    # The fused softmax kernel of some processors is unknown to the counter.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        features, stages = model.forward_intermediates(images)
        logits = model.forward_head(features)
    golden_io.compare(golden, logits, stages, atol=1e-10)
    assert counter.get_total_flops() // 2 == golden["macs"]
    assert sum(p.numel() for p in model.parameters()) == golden["params"] - NEVER_CALLED.get(name, 0)


def test_all_goldens_are_compared():
    files = {path.name.removesuffix(".json.gz") for path in FOLDER.glob("*.json.gz")}
    assert files - {"ops"} == set(MODELS)
