import pytest
import torch
import torch.nn.functional as F

from flatten_dense.heads import FCNHead

STRIDES = (4, 8, 16, 32)


@pytest.mark.parametrize(("width", "count"), [(96, 923_798), (128, 1_218_710)])
def test_parameter_count_of_the_paper(width: int, count: int) -> None:
    head = FCNHead([width * 2**level for level in range(4)], STRIDES, 150)
    assert sum(p.numel() for p in head.parameters()) == count


@pytest.mark.parametrize(("level", "read"), [(-2, 2), (0, 0), (3, 3)])
def test_equals_a_convolution_and_a_classifier_on_one_level(level: int, read: int) -> None:
    torch.manual_seed(0)
    widths = (3, 4, 5, 6)
    head = FCNHead(widths, STRIDES, 2, channels=7, level=level).eval()
    features = [torch.randn(2, width, 9 - i, 11 - i) for i, width in enumerate(widths)]
    hidden = F.conv2d(features[read], head.conv[0].weight, padding=1) / (1 + 1e-5) ** 0.5
    expected = F.conv2d(hidden.relu(), head.classifier.weight, head.classifier.bias)
    torch.testing.assert_close(head(features), expected)


@pytest.mark.parametrize(("level", "strides"), [(-2, (4,)), (4, STRIDES), (-5, STRIDES)])
def test_a_level_that_is_not_there_is_refused(level: int, strides: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"level={level}, but gets {len(strides)} map"):
        FCNHead((6,) * len(strides), strides, 3, level=level)
