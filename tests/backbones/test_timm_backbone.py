import pytest
import timm
import torch

from flatten_dense.backbones import TimmBackbone

SMALL_SWIN = {"img_size": (64, 96), "window_size": 2, "depths": (1, 1, 1, 1)}


@pytest.mark.parametrize(
    ("name", "options", "strides"),
    [
        ("flatten_pvt_test", {"attention": "LLSS"}, (4, 8, 16, 32)),
        ("resnet18", {}, (4, 8, 16, 32)),
        ("convnext_atto", {}, (4, 8, 16, 32)),
        ("swin_tiny_patch4_window7_224", SMALL_SWIN, (4, 8, 16, 32)),
        ("mobilenetv3_small_050", {}, (4, 8, 16, 32)),
    ],
)
def test_gives_nchw_maps_of_the_stated_channels_and_strides(name, options, strides):
    backbone = TimmBackbone(name, options=options)
    features = backbone(torch.randn(2, 3, 64, 96))
    assert backbone.strides == strides
    assert [tuple(f.shape) for f in features] == [
        (2, c, 64 // s, 96 // s) for c, s in zip(backbone.channels, strides, strict=True)
    ]


def test_finer_maps_come_when_asked_for():
    assert TimmBackbone("resnet18", out_indices=(0, 1)).strides == (2, 4)


def test_channels_last_features_are_transposed_not_reinterpreted():
    backbone = TimmBackbone("swin_tiny_patch4_window7_224", out_indices=(0,), options=SMALL_SWIN).eval()
    images = torch.randn(1, 3, 64, 96)
    assert torch.equal(backbone(images)[0], backbone.body(images)[0].permute(0, 3, 1, 2))


def test_chosen_stages():
    backbone = TimmBackbone("flatten_pvt_test", out_indices=(1, 3))
    assert (backbone.channels, backbone.strides) == ((16, 32), (8, 32))
    assert len(backbone(torch.randn(1, 3, 64, 64))) == 2


@pytest.mark.parametrize("out_indices", [(3, 0), (0, 0), (-1, 0), (0, -1)])
@pytest.mark.parametrize("name", ["flatten_pvt_test", "flatten_swin_test", "resnet18"])
def test_stages_out_of_order_are_refused(name, out_indices):
    with pytest.raises(ValueError, match=r"out_indices must rise"):
        TimmBackbone(name, out_indices=out_indices)


@pytest.mark.parametrize("out_indices", [(0, 2), (-3, -1), (1,), (-2,)])
def test_channels_and_strides_are_those_of_the_maps(micro, out_indices):
    backbone = TimmBackbone(micro, out_indices=out_indices)
    maps = backbone(torch.randn(1, 3, 64, 128))
    assert [(x.shape[1], 64 // x.shape[2], 128 // x.shape[3]) for x in maps] == [
        (c, s, s) for c, s in zip(backbone.channels, backbone.strides, strict=True)
    ]


@pytest.mark.parametrize(
    ("name", "options", "sizes"),
    [
        ("vit_tiny_patch16_224", {"depth": 1}, [(5, 7)]),
        ("vit_small_patch14_dinov2", {"depth": 1}, [(6, 8)]),
        ("swin_tiny_patch4_window7_224", {"depths": (1, 1, 1, 1)}, [(3, 4)]),
        ("swinv2_tiny_window8_256", {"depths": (1, 1, 1, 1)}, [(3, 4)]),
    ],
)
def test_transformers_of_one_size_take_any(name, options, sizes):
    backbone = TimmBackbone(name, out_indices=(-1,), options=options)
    assert [tuple(x.shape[-2:]) for x in backbone(torch.randn(1, 3, 75, 101))] == sizes


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_taking_any_size_changes_nothing_at_the_own_size(name):
    arguments = {"features_only": True, "out_indices": (-1,)}
    backbone, plain = TimmBackbone(name, out_indices=(-1,)).eval(), timm.create_model(name, **arguments).eval()
    plain.load_state_dict(backbone.body.state_dict())
    images = torch.randn(1, 3, 224, 224)
    theirs = plain(images)[0]
    torch.testing.assert_close(backbone.body(images)[0], theirs)


def test_a_size_that_a_model_cannot_take_is_a_value_error():
    backbone = TimmBackbone("cait_xxs24_224", out_indices=(-1,))
    with pytest.raises(ValueError, match=r"'cait_xxs24_224' cannot take images of 101x75 pixels \(Input height"):
        backbone(torch.randn(1, 3, 75, 101))


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        ("The size of tensor a (49) must match the size of tensor b (50)", ValueError),
        ("shape '[1, 7, 7]' is invalid for input of size 50", ValueError),
        ("CUDA error: an illegal memory access was encountered", RuntimeError),
    ],
)
def test_of_runtime_errors_those_about_sizes_are_value_errors(raised, seen, monkeypatch):
    def fail(_):
        raise RuntimeError(raised)

    backbone = TimmBackbone("resnet18")
    monkeypatch.setattr(backbone.body, "forward", fail)
    with pytest.raises(seen) as caught:
        backbone(torch.randn(1, 3, 75, 101))
    assert raised in str(caught.value)
    assert type(caught.value) is seen


def test_same_weights_as_the_plain_model():
    backbone = TimmBackbone("flatten_pvt_test").eval()
    model = timm.create_model("flatten_pvt_test", num_classes=0).eval()
    model.load_state_dict(backbone.body.model.state_dict())
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(backbone(images)[-1], model.forward_features(images))


def test_passes_stochastic_depth_and_options_on():
    backbone = TimmBackbone("flatten_pvt_test", drop_path_rate=0.3, options={"kernel_size": 3})
    block = backbone.body.model.stages[-1].blocks[-1]
    assert block.drop_path1.drop_prob == pytest.approx(0.3)
    assert block.attn.core.dwc.kernel_size == (3, 3)


def test_no_stochastic_depth_works_with_models_that_know_none():
    assert TimmBackbone("dla46_c", out_indices=(1,)).channels == (32,)


def test_unknown_name_lists_close_ones():
    with pytest.raises(ValueError, match=r"flaten_pvt_tiny.*did you mean flatten_pvt_tiny"):
        TimmBackbone("flaten_pvt_tiny")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "dla46_c", "drop_path_rate": 0.1}, "drop_path_rate"),
        ({"name": "flatten_pvt_test", "options": {"window": 7}}, "window"),
        ({"name": "resnet18", "out_indices": (9,)}, r"\(9,\)"),
        ({"name": "flatten_pvt_test", "pretrained": True}, "pretrained=True"),
    ],
)
def test_what_timm_cannot_build_is_a_value_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        TimmBackbone(**arguments)


@pytest.mark.parametrize("name", ["resnet18", "flatten_pvt_test"])
def test_a_frozen_backbone_learns_nothing_and_keeps_its_statistics(name):
    backbone = TimmBackbone(name)
    backbone.freeze()
    backbone.train()
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not any(isinstance(m, torch.nn.BatchNorm2d | torch.nn.Dropout) and m.training for m in backbone.modules())


def test_freezing_leaves_the_norms_that_dense_heads_add():
    backbone = TimmBackbone("flatten_swin_test")
    backbone.freeze()
    learning = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert learning == {f"body.norms.{i}.{kind}" for i in range(3) for kind in ("weight", "bias")}


def test_of_maps_left_out_the_added_norms_learn_nothing():
    backbone = TimmBackbone("flatten_swin_test")
    backbone.leave_out(1)
    fixed = {name for name, parameter in backbone.named_parameters() if not parameter.requires_grad}
    assert fixed == {"body.norms.0.weight", "body.norms.0.bias"}


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("flatten_pvt_v2_test", {}, True),
        ("flatten_pvt_v2_test", {"linear": True}, False),
        ("resnet18", {}, False),
    ],
)
def test_which_backbones_keep_images_apart(name, options, expected):
    assert TimmBackbone(name, options=options).keeps_images_apart is expected


def test_a_frozen_backbone_has_the_same_weights_under_the_same_names():
    backbone = TimmBackbone("flatten_pvt_test")
    names = list(backbone.state_dict())
    backbone.freeze()
    assert list(backbone.state_dict()) == names
