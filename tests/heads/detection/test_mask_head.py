import pytest
import torch
from torchvision.models.detection.roi_heads import project_masks_on_boxes

from flatten_dense.heads.detection.conventions import CONVENTIONS
from flatten_dense.heads.detection.mask_head import MaskHead, mask_probabilities, mask_targets
from flatten_dense.heads.detection.regions import SampledRegions

BOXES = torch.tensor([[0.0, 0, 56, 56], [10, 10, 38, 66], [30, 20, 58, 48]])


def a_disc(size=80):
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return ((x - 30) ** 2 + (y - 34) ** 2 < 20**2)[None]


def test_torchvisions_targets_are_soft_and_torchvisions():
    objects = torch.zeros(3, dtype=torch.int64)
    found = mask_targets(a_disc(), objects, BOXES, CONVENTIONS["torchvision"])
    torch.testing.assert_close(found, project_masks_on_boxes(a_disc(), BOXES, objects, 28))
    assert ((found > 0) & (found < 1)).any()


def test_mmdets_targets_are_the_pixels_of_a_region_of_whole_cells():
    found = mask_targets(a_disc(), torch.zeros(1, dtype=torch.int64), BOXES[2:], CONVENTIONS["mmdet"])
    assert torch.equal(found[0].bool(), a_disc()[0, 20:48, 30:58])


def test_mmdets_targets_average_the_pixels_of_a_cell():
    found = mask_targets(a_disc(), torch.zeros(1, dtype=torch.int64), BOXES[:1], CONVENTIONS["mmdet"])
    expected = torch.nn.functional.avg_pool2d(a_disc().float()[:, :56, :56], 2) >= 0.5
    assert (found.bool() == expected).float().mean() > 0.995


@pytest.mark.parametrize(("rows", "expected"), [(4, 0), (5, 1)])
def test_a_cell_belongs_to_mmdets_target_from_one_half_on(rows, expected):
    mask = torch.arange(280)[:, None].expand(280, 280) % 10 < rows  # so many rows of ten: every cell has ten
    box = torch.tensor([[0.0, 0, 280, 280]])
    found = mask_targets(mask[None], torch.zeros(1, dtype=torch.int64), box, CONVENTIONS["mmdet"])
    assert found.unique().tolist() == [expected]


def test_each_region_is_after_its_own_object():
    masks = torch.cat([a_disc(), ~a_disc()])
    found = mask_targets(masks, torch.tensor([1, 0, 1]), BOXES, CONVENTIONS["mmdet"])
    alone = mask_targets(masks[1:], torch.zeros(3, dtype=torch.int64), BOXES, CONVENTIONS["mmdet"])
    assert torch.equal(found[0], alone[0])
    assert not torch.equal(found[1], alone[1])


@pytest.mark.parametrize("conventions", CONVENTIONS)
def test_there_is_a_mask_of_every_class(make_maps, conventions):
    head = MaskHead(16, (4, 8, 16, 32), 5, CONVENTIONS[conventions])
    assert head(make_maps(), [BOXES, BOXES[:1]]).shape == (4, 5, 28, 28)


def test_the_loss_is_that_of_the_true_classes(make_maps, targets):
    torch.manual_seed(0)
    head = MaskHead(16, (4, 8, 16, 32), 3, CONVENTIONS["mmdet"])
    regions = []
    for target in targets:
        objects = torch.arange(len(target["boxes"]))
        nothing = torch.tensor([[0.0, 0, 9, 9]])
        boxes = torch.cat([target["boxes"] + 2, nothing])
        regions.append(SampledRegions(boxes, torch.cat([target["labels"], torch.tensor([3])]), objects, objects < 0))
    maps = make_maps()
    losses = []
    logits = head(maps, [own.positive for own in regions])
    row = 0
    for own, target in zip(regions, targets, strict=True):
        truth = mask_targets(target["masks"], own.objects, own.positive, CONVENTIONS["mmdet"])
        for number, label in enumerate(target["labels"].tolist()):
            probability = logits[row, label].sigmoid()
            losses.append(-torch.where(truth[number] > 0, probability, 1 - probability).log().mean())
            row += 1
    torch.testing.assert_close(head.loss(maps, regions, targets), torch.stack(losses).mean())


def test_without_objects_the_loss_is_zero_and_reaches_every_weight(make_maps, no_targets):
    head = MaskHead(16, (4, 8, 16, 32), 3, CONVENTIONS["mmdet"])
    empty = torch.zeros(0, dtype=torch.int64)
    regions = [SampledRegions(BOXES, torch.full((3,), 3), empty, torch.zeros(3, dtype=torch.bool))] * 2
    loss = head.loss(make_maps(), regions, no_targets)
    loss.backward()
    assert loss == 0
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_the_probabilities_are_those_of_the_classes_found():
    logits = torch.randn(3, 4, 28, 28)
    found = mask_probabilities(logits, torch.tensor([2, 0, 3]))
    torch.testing.assert_close(found[2], logits[2, 3].sigmoid())
