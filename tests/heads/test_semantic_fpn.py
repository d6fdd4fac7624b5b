from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from jsonargparse import ArgumentParser
from torch import Tensor, nn

from flatten_dense.heads import SegmentationHead, SemanticFPNHead

STRIDES = (4, 8, 16, 32)


def pyramid(height: int, width: int, channels: int = 6, strides: Sequence[int] = STRIDES) -> list[Tensor]:
    """Maps of an image of ``height`` x ``width`` pixels."""
    torch.manual_seed(0)
    return [torch.randn(2, channels, -(-height // s), -(-width // s)) for s in strides]


def small_head(strides: Sequence[int] = STRIDES) -> SemanticFPNHead:
    torch.manual_seed(0)
    return SemanticFPNHead((6,) * len(strides), strides, num_classes=3, channels=4)


def test_parameter_count_of_the_paper() -> None:
    assert sum(p.numel() for p in SemanticFPNHead((256,) * 4, STRIDES, 150).parameters()) == 1_643_158


@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 97), (100, 33), (1, 1)])
def test_logits_have_the_finest_maps_size(height: int, width: int) -> None:
    features = pyramid(height, width)
    assert small_head()(features).shape == (2, 3, *features[0].shape[-2:])


def test_equals_doubling_every_level_up_and_summing() -> None:
    head = small_head().eval()
    features = pyramid(64, 96)
    convs = iter([module for module in head.modules() if isinstance(module, nn.Conv2d)])
    norms = iter([module for module in head.modules() if isinstance(module, nn.BatchNorm2d)])
    total = torch.zeros(2, 4, 16, 24)
    for level, x in enumerate(features):
        for _ in range(max(1, level)):
            x = F.conv2d(x, next(convs).weight, padding=1)
            x = torch.relu(x / (1 + next(norms).eps) ** 0.5)
            if level:
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        total = total + x
    classifier = next(convs)
    torch.testing.assert_close(head(features), F.conv2d(total, classifier.weight, classifier.bias))


def test_odd_maps_grow_through_the_sizes_of_the_finer_levels() -> None:
    seen = []
    head = small_head().eval()
    for module in head.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.register_forward_hook(lambda module, args, output: seen.append(tuple(output.shape[-2:])))
    features = pyramid(100, 33)
    head(features)
    sizes = [tuple(x.shape[-2:]) for x in features]
    assert sizes == [(25, 9), (13, 5), (7, 3), (4, 2)]
    assert seen == [sizes[0], sizes[1], sizes[2], sizes[1], sizes[3], sizes[2], sizes[1]]


def test_a_level_that_skips_a_stride_is_doubled_twice() -> None:
    features = pyramid(52, 52, strides=(4, 16))
    assert small_head(strides=(4, 16))(features).shape == (2, 3, 13, 13)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in small_head(strides=(4, 16)).modules()) == 3


def test_every_parameter_gets_a_gradient() -> None:
    head = small_head()
    head(pyramid(64, 64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())


def test_dropout_drops_whole_channels_only_in_training() -> None:
    head = SemanticFPNHead((6,), (4,), num_classes=3, channels=8, dropout=0.5)
    seen = []
    head.classifier.register_forward_hook(lambda module, args, output: seen.append(args[0] == 0))
    torch.manual_seed(0)
    head(pyramid(64, 64, strides=(4,)))
    head.eval()(pyramid(64, 64, strides=(4,)))
    trained, evaluated = (zeros.all(dim=(-1, -2)) if zeros.ndim == 4 else zeros for zeros in seen)
    assert 0 < trained.sum() < trained.numel()
    assert not evaluated.any()


def test_norms_become_synchronised_and_keep_their_activation() -> None:
    head = nn.SyncBatchNorm.convert_sync_batchnorm(SemanticFPNHead((6,) * 4, STRIDES, 3, channels=4))
    kinds = [type(module) for module in head.modules()]
    assert kinds.count(nn.SyncBatchNorm) == kinds.count(nn.ReLU) == 7


def test_a_recipe_gives_the_class_and_the_task_gives_channels_strides_and_classes() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--head", type=Callable[[Sequence[int], Sequence[int], int], SegmentationHead])
    config = {"head": {"class_path": "flatten_dense.heads.SemanticFPNHead", "init_args": {"channels": 4}}}
    head = parser.instantiate(parser.parse_object(config)).head([6, 6], [4, 8], 3)
    assert isinstance(head, SemanticFPNHead)
    assert (head.in_channels, head.strides, head.num_classes) == ((6, 6), (4, 8), 3)
    assert head.classifier.in_channels == 4


@pytest.mark.parametrize("strides", [(4, 12), (4, 6)])
def test_strides_that_doubling_cannot_bridge_are_refused(strides: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="powers of two"):
        small_head(strides)
