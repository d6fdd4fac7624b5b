import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign, roi_align

from flatten_dense.heads.detection.conventions import CONVENTIONS
from flatten_dense.heads.detection.roi_align import RegionFeatures, extend_edges

STRIDES = (4, 8, 16, 32, 64)
BOXES = [torch.tensor([[4.0, 4, 20, 24], [0, 0, 96, 128], [10, 10, 11, 12]]), torch.tensor([[3.5, 7.25, 99, 77]])]


def test_torchvisions_conventions_give_torchvisions_features(make_maps, images):
    maps = make_maps(clear=False)
    theirs = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    expected = theirs({str(i): feature for i, feature in enumerate(maps)}, BOXES, [(128, 128)] * 2)
    found = RegionFeatures(STRIDES, 7, CONVENTIONS["torchvision"])(maps, BOXES)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("side", "level"), [(20, 0), (55, 0), (111, 0), (113, 1), (223, 1), (225, 2), (460, 3), (2000, 3)]
)
def test_the_map_that_a_region_is_read_from(side, level):
    features = RegionFeatures(STRIDES, 7, CONVENTIONS["mmdet"])
    assert features._levels(torch.tensor([[0.0, 0, side, side]])).tolist() == [level]


def test_features_are_aligned_and_sampled_as_densely_as_needed(make_maps):
    maps = make_maps()
    found = RegionFeatures(STRIDES, 7, CONVENTIONS["mmdet"])(maps, BOXES)
    expected = roi_align(maps[0][1:], [BOXES[1]], 7, 1 / 4, sampling_ratio=-1, aligned=True)
    torch.testing.assert_close(found[3:], expected)


def test_regions_come_in_the_order_of_the_images(make_maps):
    maps = make_maps()
    features = RegionFeatures(STRIDES, 7, CONVENTIONS["mmdet"])
    alone = features([feature[1:] for feature in maps], BOXES[1:])
    torch.testing.assert_close(features(maps, BOXES)[3:], alone)


def test_regions_of_several_maps_come_in_their_own_order(make_maps):
    maps = make_maps()
    boxes = torch.tensor([[0.0, 0, 128, 128], [9, 9, 40, 60], [0, 0, 128, 110], [5, 5, 30, 20]])  # maps 1, 0, 1, 0
    features = RegionFeatures(STRIDES, 7, CONVENTIONS["mmdet"])
    each = [features(maps, [box[None], torch.zeros(0, 4)]) for box in boxes]
    torch.testing.assert_close(features(maps, [boxes, torch.zeros(0, 4)]), torch.cat(each))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_does_not_move_a_region(dtype):
    # Of 16-bit numbers near 1100 one is 1 or 8 pixels from the next.
    box = [torch.tensor([[1101.3, 3.7, 1121.9, 40.2]])]
    ramp = torch.arange(300.0).expand(1, 1, 16, 300) - 275  # small where the region lies
    features = RegionFeatures((4,), 7, CONVENTIONS["mmdet"])
    with torch.autocast("cpu", dtype):
        found = features([ramp.to(dtype)], box)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), features([ramp], box), rtol=0.01, atol=0.02)


def test_no_regions_give_no_features(make_maps):
    features = RegionFeatures(STRIDES, 7, CONVENTIONS["mmdet"])
    assert features(make_maps(), [torch.zeros(0, 4)] * 2).shape == (0, 16, 7, 7)


def test_maps_too_coarse_for_regions_are_refused():
    with pytest.raises(ValueError, match="stride 32 or less"):
        RegionFeatures((64, 128), 7, CONVENTIONS["mmdet"])


def test_the_edge_of_an_image_is_repeated_once_as_at_the_edge_of_a_map(make_maps, images):
    extended = extend_edges(make_maps(), STRIDES, images)[0]
    assert torch.equal(extended[0, :, :, 24], extended[0, :, :, 23])
    assert extended[0, :, :, 25:].count_nonzero() == 0
    assert torch.equal(extended[1, :, 25], extended[1, :, 24])
    assert extended[1, :, 26:].count_nonzero() == 0


def test_the_maps_themselves_stay(make_maps, images):
    maps = make_maps()
    before = [feature.clone() for feature in maps]
    extend_edges(maps, STRIDES, images)
    assert all(torch.equal(a, b) for a, b in zip(maps, before, strict=True))
