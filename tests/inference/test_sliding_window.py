import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatten_dense.inference import TensorImage
from flatten_dense.inference.sliding_window import sliding_rows, window_spans


def naive(model: nn.Module, image: Tensor, window: int, stride: int) -> Tensor:
    """Sum and count over full-size maps."""
    height, width = image.shape[-2:]
    total, count = 0, torch.zeros(height, width)
    for top in sorted({min(y, max(height - window, 0)) for y in range(0, height, stride)}):
        for left in sorted({min(x, max(width - window, 0)) for x in range(0, width, stride)}):
            part = image[None, :, top : top + window, left : left + window]
            logits = F.interpolate(model(part), size=part.shape[-2:], mode="bilinear")[0]
            right, bottom = width - left - part.shape[-1], height - top - part.shape[-2]
            total = total + F.pad(logits, (left, right, top, bottom))
            count[top : top + window, left : left + window] += 1
    return total / count


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (101, 150), (40, 150), (64, 107)])
@pytest.mark.parametrize("stride", [43, 64])
def test_logits_are_averaged_where_windows_overlap(size, stride):
    torch.manual_seed(0)
    model = nn.Conv2d(3, 4, 9, stride=4, padding=4)
    image = torch.randn(3, *size)
    rows = sliding_rows(model, TensorImage(image), 64, stride)
    logits = torch.cat(list(rows.strips)).transpose(0, 1)
    assert rows.size == size
    torch.testing.assert_close(logits, naive(model, image, 64, stride), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("length", "spans"),
    [
        (512, [(0, 512)]),
        (300, [(0, 300)]),
        (683, [(0, 512), (171, 683)]),
        (853, [(0, 512), (341, 853)]),
        (854, [(0, 512), (341, 853), (342, 854)]),
    ],
)
def test_windows_of_512_every_341_pixels(length, spans):
    assert window_spans(length, 512, 341) == spans
