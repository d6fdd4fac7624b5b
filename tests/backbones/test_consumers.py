"""Code that nobody here wrote, fed with our backbones through timm's interface."""

import segmentation_models_pytorch as smp
import timm
import torch
from timm.optim import create_optimizer_v2
from torchvision.ops import FeaturePyramidNetwork

IMAGES = torch.randn(1, 3, 64, 96)


def test_segmentation_models_pytorch(micro):
    if "deit" in micro:  # a plain transformer, for which that library has one architecture
        model = smp.DPT(f"tu-{micro}", encoder_weights=None, classes=4, decoder_readout="ignore")
    else:
        model = smp.Unet(f"tu-{micro}", encoder_weights=None, classes=4)
    logits = model(IMAGES)
    assert logits.shape == (1, 4, 64, 96)
    logits.sum().backward()
    encoder = model.encoder.model
    used = [p for name, p in encoder.named_parameters() if not name.startswith(("norm.", "head."))]
    assert used
    assert all(parameter.grad is not None for parameter in used)


def test_feature_pyramid_network_of_torchvision(micro):
    features = timm.create_model(micro, features_only=True)
    pyramid = FeaturePyramidNetwork(features.feature_info.channels(), 16)
    maps = features(IMAGES)
    out = pyramid({str(i): x for i, x in enumerate(maps)})
    assert [tuple(x.shape) for x in out.values()] == [(1, 16, *x.shape[2:]) for x in maps]


def test_hooks_of_timm_give_the_same_maps(micro):
    getter = timm.create_model(micro, features_only=True).eval()
    hooks = timm.create_model(micro, features_only=True, feature_cls="hook", out_indices=getter.out_indices).eval()
    hooks.body.load_state_dict(getter.model.state_dict(), strict=False)
    assert all(torch.equal(a, b) for a, b in zip(hooks(IMAGES), getter(IMAGES), strict=True))


def test_layer_decay_of_timm(micro):
    model = timm.create_model(micro, num_classes=5)
    optimizer = create_optimizer_v2(model, "adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.5)
    by_parameter = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert len(by_parameter) == len(list(model.parameters()))
    scale = {name: by_parameter[id(p)]["lr_scale"] for name, p in model.named_parameters()}
    assert scale["head.weight"] == 1
    assert scale["stages.0.patch_embed.proj.weight"] < scale["stages.1.blocks.0.norm1.weight"] < 1


def test_input_configuration_of_timm(micro):
    model = timm.create_model(micro)
    config = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**config)
    assert config["input_size"] == (3, 64, 64)
    assert transform is not None


def test_classifier_weights_of_another_channel_count_load_through_timm(micro, tmp_path):
    """timm's own loader, with our filter: a grey-scale model from a colour checkpoint, another number of classes."""
    file = tmp_path / "weights.pth"
    source = timm.create_model(micro)
    torch.save(source.state_dict(), file)
    overlay = {"file": str(file)}
    model = timm.create_model(micro, pretrained=True, pretrained_cfg_overlay=overlay, in_chans=1, num_classes=7)
    state = source.state_dict()
    assert torch.equal(model.stages[1].blocks[0].norm1.weight, state["stages.1.blocks.0.norm1.weight"])
    torch.testing.assert_close(
        model.stages[0].patch_embed.proj.weight, state["stages.0.patch_embed.proj.weight"].sum(1, keepdim=True)
    )
