"""Any height and width from 32 pixels, in every family, without rebuilding."""

import math

import pytest
import timm
import torch
import torch.nn.functional as F

SIZES = [(97, 65), (32, 32), (33, 128), (70, 45), (128, 256)]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_maps_have_the_size_of_their_stride(micro, attention, size, training):
    model = timm.create_model(micro, num_classes=5, **attention).train(training)
    images = torch.randn(2, 3, *size)
    maps = model.forward_intermediates(images, intermediates_only=True)
    for info, out in zip(model.feature_info, maps, strict=True):
        height, width = (math.ceil(side / info["reduction"]) for side in size)
        assert out.shape == (2, info["num_chs"], height, width)
        assert out.isfinite().all()
    assert model(images).isfinite().all()


@pytest.mark.parametrize("size", [(97, 65), (64, 64), (33, 128)])
def test_an_image_does_not_depend_on_others_of_its_size(micro, attention, randomise, size):
    model = randomise(timm.create_model(micro, num_classes=5, **attention)).double().eval()
    images = torch.randn(3, 3, *size).double()
    torch.testing.assert_close(model(images)[1:2], model(images[1:2]))


@pytest.mark.parametrize("training", [False, True])
def test_2048_pixels(micro, training):
    model = timm.create_model(micro, features_only=True).train(training)
    with torch.no_grad():
        maps = model(torch.randn(1, 3, 2048, 2048))
    assert [out.shape[2:] for out in maps] == [(2048 // s, 2048 // s) for s in model.feature_info.reduction()]
    assert all(out.isfinite().all() for out in maps)


def test_size_leaves_no_trace(micro, attention):
    """Running at one size changes nothing for another."""
    model = timm.create_model(micro, num_classes=5, **attention).eval()
    images = torch.randn(1, 3, 64, 64)
    before = model(images)
    model(torch.randn(1, 3, 97, 65))
    assert torch.equal(model(images), before)


@pytest.mark.parametrize("size", [(128, 128), (128, 32), (48, 80)])
def test_tables_are_resized_from_their_own_stage(micro, randomise, size):
    """A model built for the size, its tables resized beforehand, is the truth; at 128 stage 2 has stage 1's tokens."""
    model = randomise(timm.create_model(micro, num_classes=5)).double()
    built = timm.create_model(micro, num_classes=5, img_size=size).double()
    state, strides = model.state_dict(), [info["reduction"] for info in model.feature_info]
    for name, tensor in built.state_dict().items():
        if name.endswith(("pos_embed", "positional_encoding")):
            stride = strides[int(name.split(".")[1])]
            native, wanted = 64 // stride, [math.ceil(side / stride) for side in size]
            grid = state[name].view(1, native, native, -1).permute(0, 3, 1, 2)
            tensor.copy_(F.interpolate(grid, size=wanted, mode="bilinear").flatten(2).transpose(1, 2))
        else:
            tensor.copy_(state[name])
    images = torch.randn(1, 3, *size).double()
    torch.testing.assert_close(model(images), built(images))


def test_native_tables_need_not_be_square(micro):
    model = timm.create_model(micro, num_classes=5, img_size=(64, 128))
    assert model(torch.randn(1, 3, 64, 128)).shape == (1, 5)


@pytest.mark.parametrize("window", [2, 3, 50])
def test_linear_windows_take_any_size(micro, window):
    model = timm.create_model(micro, num_classes=5, linear_window_size=window)
    assert model(torch.randn(2, 3, 97, 65)).isfinite().all()


def test_a_linear_window_of_the_whole_map_is_the_whole_map(micro, randomise):
    model = randomise(timm.create_model(micro, num_classes=5)).double()
    windowed = timm.create_model(micro, num_classes=5, linear_window_size=64).double()
    windowed.load_state_dict(windowed.rename_checkpoint(model.state_dict()))
    images = torch.randn(2, 3, 64, 64).double()
    torch.testing.assert_close(windowed(images), model(images))
