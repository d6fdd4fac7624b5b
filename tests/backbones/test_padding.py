"""An image in a padded batch gets what it gets alone: values and gradients, in float64, at sizes drawn at random."""

import random

import numpy as np
import pytest
import timm
import torch

from flatten_dense.backbones import TimmBackbone

TOLERANCE = {"rtol": 1e-9, "atol": 1e-9}
CASES = [
    ("deit", {}),
    ("deit", {"attention": "S"}),
    ("deit", {"attention": "M2", "window_size": 3, "linear_window_size": 2}),
    ("deit", {"attention": "hydra"}),
    ("deit", {"attention": "enhanced"}),
    ("pvt", {}),
    ("pvt", {"attention": "SSSS"}),
    ("pvt", {"attention": "LSLS", "depths": (2, 2, 2, 2), "window_size": 3, "linear_window_size": 3}),
    ("pvt", {"attention": "linear_angular-elu-relu-focused_no_dwc"}),
    ("pvt_v2", {}),
    ("pvt_v2", {"attention": "SSSS"}),
    ("pvt_v2", {"attention": "LMSL1", "depths": (2, 2, 2, 2), "window_size": 4, "linear_window_size": 5}),
    ("swin", {}),
    ("swin", {"attention": "SSSS"}),
    ("swin", {"attention": "LLLL", "linear_window_size": 4}),
    ("swin", {"attention": "MLSL1", "depths": (3, 2, 2, 2), "linear_window_size": 3}),
    ("swin", {"attention": "efficient-linear_angular-hydra-S", "linear_window_size": 4}),
    ("cswin", {}),
    ("cswin", {"attention": "SSSS"}),
    ("cswin", {"attention": "LLLL", "depths": (2, 2, 2, 2), "linear_window_size": 3}),
]


def padded_batch(seed, count=3):
    """Images of random sizes, the padding filled with noise that must not matter."""
    draw = random.Random(seed)
    sizes = [(draw.randint(32, 150), draw.randint(32, 150)) for _ in range(count)]
    height = max(h for h, _ in sizes) + draw.choice([0, 1, 7])
    width = max(w for _, w in sizes) + draw.choice([0, 3, 40])
    images = torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed)).double()
    return images.requires_grad_(), sizes


def own_part(out, i, alone):
    return out[i : i + 1, :, : alone.shape[2], : alone.shape[3]]


def compare(run_batch, run_alone, parameters, images, sizes):
    """Compare values, and the gradients of a random weighting of all values, with those of each image alone."""
    outs = run_batch(images)
    singles = [images[i : i + 1, :, :h, :w].detach().requires_grad_() for i, (h, w) in enumerate(sizes)]
    together, apart = torch.zeros(()).double(), torch.zeros(()).double()
    for i, single in enumerate(singles):
        for out, alone in zip(outs, run_alone(single), strict=True):
            own = own_part(out, i, alone)
            torch.testing.assert_close(own, alone, **TOLERANCE)
            assert out[i].count_nonzero() == own.count_nonzero()  # zero outside
            weight = torch.randn_like(alone)
            together, apart = together + (own * weight).sum(), apart + (alone * weight).sum()
    (of_batch, *of_parameters) = torch.autograd.grad(together, [images, *parameters])
    of_singles = torch.autograd.grad(apart, [*singles, *parameters])
    torch.testing.assert_close(tuple(of_parameters), of_singles[len(singles) :], **TOLERANCE)
    for i, (gradient, (h, w)) in enumerate(zip(of_singles, sizes, strict=False)):
        torch.testing.assert_close(of_batch[i : i + 1, :, :h, :w], gradient, **TOLERANCE)
        assert of_batch[i].count_nonzero() == of_batch[i, :, :h, :w].count_nonzero()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("family", "options"), CASES)
def test_intermediates_do_not_depend_on_the_batch(family, options, seed, randomise):
    model = timm.create_model(f"flatten_{family}_test", num_classes=0, **options)
    model = randomise(model).double()

    def run(images, image_sizes=None):
        final, raw = model.forward_intermediates(images, image_sizes=image_sizes)
        return [*raw, final]

    images, sizes = padded_batch(seed)
    compare(lambda x: run(x, sizes), run, list(model.parameters()), images, sizes)


@pytest.mark.parametrize(("family", "options"), [case for case in CASES if len(case[1]) < 2])
def test_maps_of_a_backbone_do_not_depend_on_the_batch(family, options, randomise):
    backbone = randomise(TimmBackbone(f"flatten_{family}_test", options=options)).double()
    images, sizes = padded_batch(2)
    compare(lambda x: backbone(x, sizes), backbone, list(backbone.parameters()), images, sizes)


def test_normed_intermediates_are_zero_outside(micro, randomise):
    model = randomise(timm.create_model(micro)).double()
    images, sizes = padded_batch(3)
    maps = model.forward_intermediates(images, norm=True, image_sizes=sizes, intermediates_only=True)
    for i, (h, w) in enumerate(sizes):
        alone = model.forward_intermediates(images[i : i + 1, :, :h, :w], norm=True, intermediates_only=True)
        for out, one in zip(maps, alone, strict=True):
            torch.testing.assert_close(own_part(out, i, one), one, **TOLERANCE)
            assert out[i].count_nonzero() == own_part(out, i, one).count_nonzero()


def test_padding_matters_when_the_sizes_are_not_given(micro, randomise):
    """Off by default: the padding is a part of the picture then."""
    model = randomise(timm.create_model(micro)).double().eval()
    images, sizes = padded_batch(0)
    assert not torch.allclose(model.forward_features(images), model.forward_intermediates(images, image_sizes=sizes)[0])


def test_full_sizes_change_nothing(micro, randomise):
    model = randomise(timm.create_model(micro)).double().eval()
    images = torch.randn(2, 3, 97, 65).double()
    got, _ = model.forward_intermediates(images, image_sizes=[(97, 65)] * 2)
    torch.testing.assert_close(got, model.forward_features(images), **TOLERANCE)


def test_what_is_not_finite_in_the_padding_stays_there(micro):
    model = timm.create_model(micro).eval()
    images = torch.randn(2, 3, 96, 96)
    images[0, :, 50:] = float("nan")
    maps = model.forward_intermediates(images, image_sizes=[(50, 96), (96, 96)], intermediates_only=True)
    assert all(out.isfinite().all() for out in maps)


def test_gradient_checkpointing_takes_padded_batches(micro):
    model = timm.create_model(micro).double()
    images, sizes = padded_batch(1)
    expected, _ = model.forward_intermediates(images, image_sizes=sizes)
    model.set_grad_checkpointing()
    got, _ = model.forward_intermediates(images, image_sizes=sizes)
    torch.testing.assert_close(got, expected)
    got.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_padded_batches_train_under_autocast(micro, attention, dtype):
    model = timm.create_model(micro, num_classes=0, **attention)
    images, sizes = padded_batch(1)
    with torch.autocast("cpu", dtype):
        final, _ = model.forward_intermediates(images.float(), image_sizes=sizes)
    final.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("form", [torch.tensor, np.array, list, iter], ids=["tensor", "array", "list", "iterator"])
def test_sizes_come_in_any_form(micro, form):
    backbone = TimmBackbone(micro).eval()
    images, sizes = torch.randn(2, 3, 96, 96), [(64, 96), (80, 70)]
    for got, expected in zip(backbone(images, form(sizes)), backbone(images, sizes), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize(
    "image_sizes",
    [
        [(64, 64)],
        [(64, 64), (64, 97)],
        [(64, 64), (97, 64)],
        [(64, 64), (31, 64)],
        [(64, 64), (64, 0)],
        [(64, 64), (64.0, 40.9)],
        [64, 96],
        [(64, 64, 3), (64, 64, 3)],
        {"a": 1},
    ],
    ids=["too_few", "too_wide", "too_high", "too_low", "nothing", "fractions", "numbers", "triples", "mapping"],
)
def test_sizes_that_do_not_fit_the_batch_are_refused(micro, image_sizes):
    model = timm.create_model(micro)
    with pytest.raises(ValueError, match="image_sizes must give"):
        model.forward_intermediates(torch.randn(2, 3, 96, 96), image_sizes=image_sizes)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("flatten_pvt_test", {"linear_sr_ratios": (2, 1, 1, 1)}),
        ("flatten_pvt_v2_test", {"linear_sr_ratios": (8, 4, 2, 1)}),
        ("flatten_pvt_v2_test", {"linear": True}),
    ],
)
def test_forms_that_mix_the_padded_grid_refuse_sizes(name, options):
    model = timm.create_model(name, **options)
    with pytest.raises(ValueError, match="cannot take image_sizes: linear"):
        model.forward_intermediates(torch.randn(2, 3, 64, 64), image_sizes=[(64, 64), (40, 40)])


def test_reduction_in_softmax_stages_alone_takes_sizes():
    model = timm.create_model("flatten_pvt_test", attention="SSSS", linear_sr_ratios=(8, 4, 2, 1))
    model.forward_intermediates(torch.randn(2, 3, 64, 64), image_sizes=[(64, 64), (40, 40)])


def test_models_of_timm_refuse_sizes():
    with pytest.raises(ValueError, match="only FLatten backbones"):
        TimmBackbone("resnet18")(torch.randn(1, 3, 64, 64), [(64, 64)])
