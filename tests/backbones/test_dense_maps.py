import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from flatten_dense.backbones.dense_maps import DenseMaps

IMAGES = torch.randn(2, 3, 64, 96)


def make(family, randomise, **options):
    features = timm.create_model(f"flatten_{family}_test", features_only=True, dense_maps=True, **options)
    return randomise(features).eval()


def test_an_own_class_for_the_maps(micro):
    assert isinstance(timm.create_model(micro, features_only=True, dense_maps=True), DenseMaps)
    assert not isinstance(timm.create_model(micro, features_only=True), DenseMaps)


@pytest.mark.parametrize("family", ["pvt", "deit"])
def test_pvt_and_deit_give_raw_maps(family, randomise):
    features = make(family, randomise)
    raw = features.model.forward_intermediates(IMAGES, features.indices, intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(features(IMAGES), raw, strict=True))
    assert not any(name.startswith(("norm.", "model.norm")) for name, _ in features.named_parameters())


def test_pvt_v2_gives_maps_under_its_own_norms(randomise):
    features = make("pvt_v2", randomise)
    raw = features.model.forward_intermediates(IMAGES, intermediates_only=True)
    for stage, out, expected in zip(features.model.stages, features(IMAGES), raw, strict=True):
        assert torch.equal(out, stage.norm(expected.movedim(1, -1)).movedim(-1, 1))
    assert not list(features.norms.parameters())


@pytest.mark.parametrize("family", ["swin", "cswin"])
def test_swin_and_cswin_give_every_map_a_norm_the_last_its_pretrained_one(family, randomise):
    features = make(family, randomise)
    raw = features.model.forward_intermediates(IMAGES, intermediates_only=True)
    norms = [*features.norms[:3], features.model.norm]
    for norm, out, expected in zip(norms, features(IMAGES), raw, strict=True):
        channels = expected.shape[1]
        normed = F.layer_norm(expected.movedim(1, -1), (channels,), norm.weight, norm.bias, 1e-5)
        torch.testing.assert_close(out, normed.movedim(-1, 1))
    assert isinstance(features.norms[3], nn.Identity)


def test_a_swin_without_its_last_stage_has_no_pretrained_norm(randomise):
    features = make("swin", randomise, out_indices=(0, 2))
    assert [type(norm) for norm in features.norms] == [nn.LayerNorm, nn.LayerNorm]
    assert isinstance(features.model.norm, nn.Identity)


@pytest.mark.parametrize("out_indices", [None, (0, 1), (2,), (3,)])
def test_every_parameter_has_a_gradient(micro, out_indices):
    options = {} if out_indices is None else {"out_indices": out_indices}
    features = timm.create_model(micro, features_only=True, dense_maps=True, **options)
    sum(out.square().sum() for out in features(IMAGES)).backward()
    assert [name for name, p in features.named_parameters() if p.grad is None] == []
