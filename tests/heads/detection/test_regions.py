import torch

from flatten_dense.heads.detection.regions import sample_regions

TARGET = {"boxes": torch.tensor([[0.0, 0, 40, 40], [50, 50, 90, 90]]), "labels": torch.tensor([4, 1])}
PROPOSALS = torch.tensor([[0.0, 0, 40, 36], [52, 50, 90, 90], [0, 50, 30, 90], [0, 0, 40, 10]])
K = 5


def sampled(number=512, iou=0.5, **options):
    torch.manual_seed(0)
    return sample_regions([PROPOSALS], [TARGET], K, iou, number, **options)[0]


def test_the_objects_own_boxes_are_among_the_regions():
    regions = sampled()
    assert regions.boxes[regions.is_object].tolist() == TARGET["boxes"].tolist()


def test_regions_on_objects_come_first_with_their_labels():
    regions = sampled()
    assert regions.labels.tolist() == [4, 1, 4, 1, K, K]
    assert regions.objects.tolist() == [0, 1, 0, 1]
    assert torch.equal(regions.positive, regions.boxes[:4])


def test_a_quarter_stands_for_objects_at_most():
    assert (sampled(number=4).labels < K).sum() == 1
    assert (sampled(number=11).labels < K).sum() == 2


def test_a_higher_iou_leaves_fewer():
    assert len(sampled(iou=0.94).objects) == 3


def test_without_objects_all_is_background():
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    (regions,) = sample_regions([PROPOSALS], [empty], K, 0.5, 512)
    assert regions.labels.tolist() == [K] * 4
    assert len(regions.positive) == 0


def test_without_proposals_the_objects_are_left():
    (regions,) = sample_regions([torch.zeros(0, 4)], [TARGET], K, 0.5, 512)
    assert regions.labels.tolist() == [4, 1]


def test_low_quality_gives_an_object_its_best_region_from_another():
    # The second object lies within the first; the one region overlaps the first more.
    target = {"boxes": torch.tensor([[0.0, 0, 40, 40], [0, 0, 40, 24]]), "labels": torch.tensor([0, 1])}
    region = [torch.tensor([[0.0, 0, 40, 34]])]
    plain, taken = (sample_regions(region, [target], K, 0.5, 512, low_quality=low)[0] for low in (False, True))
    assert plain.labels[~plain.is_object].tolist() == [0]
    assert taken.labels[~taken.is_object].tolist() == [1]


def test_low_quality_gives_no_region_below_the_iou():
    region = [torch.tensor([[0.0, 0, 40, 10]])]
    plain, low = (sample_regions(region, [TARGET], K, 0.5, 512, low_quality=low)[0] for low in (False, True))
    assert plain.labels.tolist() == low.labels.tolist() == [4, 1, K]
