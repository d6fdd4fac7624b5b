from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatten_dense.heads import UPerHead

STRIDES = (4, 8, 16, 32)


def pyramid(height: int, width: int, strides: Sequence[int] = STRIDES, batch: int = 2) -> list[Tensor]:
    """Maps of images of ``height`` x ``width`` pixels; each has one channel more than the last."""
    torch.manual_seed(0)
    return [torch.randn(batch, 5 + i, -(-height // s), -(-width // s)) for i, s in enumerate(strides)]


def small_head(strides: Sequence[int] = STRIDES, **options) -> UPerHead:
    torch.manual_seed(0)
    return UPerHead([5 + i for i in range(len(strides))], strides, num_classes=3, channels=4, **options)


@pytest.mark.parametrize(("width", "count"), [(96, 31_497_366), (128, 33_315_990)])
def test_parameter_count_of_the_paper(width: int, count: int) -> None:
    with torch.device("meta"):
        head = UPerHead([width * 2**level for level in range(4)], STRIDES, 150)
    assert sum(p.numel() for p in head.parameters()) == count


def test_equals_the_published_steps() -> None:
    head = small_head().eval()
    features = pyramid(70, 100)

    def block(module: nn.Sequential, x: Tensor) -> Tensor:
        conv = module[0]
        return F.conv2d(x, conv.weight, padding=conv.weight.shape[-1] // 2).div((1 + 1e-5) ** 0.5).relu()

    def resize(x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)

    c2, c3, c4, c5 = features
    pooled = [
        resize(block(pool, F.adaptive_avg_pool2d(c5, n)), c5) for pool, n in zip(head.pools, (1, 2, 3, 6), strict=True)
    ]
    p5 = block(head.context, torch.cat([c5, *pooled], 1))
    p4 = block(head.laterals[2], c4) + resize(p5, c4)
    p3 = block(head.laterals[1], c3) + resize(p4, c3)
    p2 = block(head.laterals[0], c2) + resize(p3, c2)
    levels = [block(layer, x) for layer, x in zip(head.outputs, (p2, p3, p4), strict=True)] + [p5]
    fused = block(head.fusion, torch.cat([resize(x, p2) for x in levels], 1))
    expected = F.conv2d(fused, head.classifier.weight, head.classifier.bias)
    torch.testing.assert_close(head(features), expected)


@pytest.mark.parametrize("strides", [(4,), (8, 32), (4, 8, 16), STRIDES, (2, 4, 8, 16, 32)])
@pytest.mark.parametrize(("height", "width"), [(65, 97), (1, 1)])
def test_logits_have_the_finest_maps_size(height: int, width: int, strides: tuple[int, ...]) -> None:
    features = pyramid(height, width, strides)
    assert small_head(strides)(features).shape == (2, 3, *features[0].shape[-2:])


def test_every_parameter_gets_a_gradient() -> None:
    head = small_head(dropout=0)
    head(pyramid(96, 64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())


def test_a_batch_of_one_image_trains() -> None:
    # Averaged over the whole image a channel has one value, of which torch's BatchNorm can take no variance.
    head = small_head(dropout=0)
    for _ in range(3):
        logits = head(pyramid(96, 64, batch=1))
        logits.sum().backward()
    assert logits.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def test_does_not_change_the_maps_it_is_given() -> None:
    features = pyramid(64, 64)
    before = [x.clone() for x in features]
    small_head()(features)
    assert all(torch.equal(x, y) for x, y in zip(features, before, strict=True))


def test_dropout_drops_whole_channels_only_in_training() -> None:
    head = small_head(dropout=0.5)
    seen = []
    head.dropout.register_forward_hook(lambda module, args, output: seen.append((output == 0).all(dim=(-1, -2))))
    torch.manual_seed(0)
    head(pyramid(64, 64))
    head.eval()(pyramid(64, 64))
    assert seen[0].any()
    assert not seen[1].any()


def test_norms_become_synchronised() -> None:
    kinds = [type(module) for module in nn.SyncBatchNorm.convert_sync_batchnorm(small_head()).modules()]
    assert kinds.count(nn.SyncBatchNorm) == kinds.count(nn.ReLU) == 4 + 1 + 3 + 3 + 1


def test_a_pool_without_cells_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pool_sizes of at least 1 cell, got \(0, 2\)"):
        small_head(pool_sizes=(0, 2))
