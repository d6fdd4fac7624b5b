import math

import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from flatten_dense.heads.detection.anchors import Anchors
from flatten_dense.heads.detection.conventions import CONVENTIONS
from flatten_dense.structures import ImageBatch

MAPS = [torch.zeros(2, 1, 16, 20), torch.zeros(2, 1, 8, 10)]
IMAGES = ImageBatch(torch.zeros(2, 3, 64, 80), [(64, 80), (33, 50)])


def test_torchvisions_anchors_are_torchvisions():
    anchors = Anchors((4, 8), [(32,), (64,)], CONVENTIONS["torchvision"])(MAPS, IMAGES)
    generator = AnchorGenerator(((32,), (64,)), ((0.5, 1.0, 2.0),) * 2)
    expected = generator(ImageList(IMAGES.tensor, IMAGES.sizes), MAPS)[0]
    assert torch.equal(torch.cat(anchors), expected)


def test_mmdets_anchors_are_not_rounded():
    first = Anchors((4,), [(32,)], CONVENTIONS["mmdet"])(MAPS[:1], IMAGES)[0][0]
    width, height = 32 * math.sqrt(2), 32 / math.sqrt(2)
    torch.testing.assert_close(first, torch.tensor([-width, -height, width, height]) / 2)


def test_a_cell_lies_at_its_row_and_column():
    own = Anchors((4,), [(32,)], CONVENTIONS["mmdet"])(MAPS[:1], IMAGES)[0].view(16, 20, 3, 4)
    torch.testing.assert_close(own[5, 7] - own[0, 0], torch.tensor([28.0, 20, 28, 20]).expand(3, 4))


def test_all_shapes_of_a_cell_have_one_area():
    own = Anchors((8,), [(32, 40)], CONVENTIONS["mmdet"])(MAPS[1:], IMAGES)[0][:6]
    areas = (own[:, 2:] - own[:, :2]).prod(1)
    torch.testing.assert_close(areas, torch.tensor([1024.0, 1600] * 3))


def test_a_cell_that_an_image_reaches_into_is_inside():
    inside = Anchors((4, 8), [(32,), (64,)], CONVENTIONS["mmdet"]).inside(MAPS, (33, 50))
    rows = inside[1].view(8, 10, 3)
    assert rows[:5, :7].all()
    assert rows.sum() == 5 * 7 * 3


def test_what_is_said_of_an_anchor_stands_in_its_row():
    anchors = Anchors((4,), [(32,)], CONVENTIONS["mmdet"])
    outputs = torch.randn(2, 3 * 4, 5, 6)
    rows = anchors.rows(outputs).view(2, 5, 6, 3, 4)
    assert torch.equal(rows[1, 2, 3, 1], outputs[1, 4:8, 2, 3])
