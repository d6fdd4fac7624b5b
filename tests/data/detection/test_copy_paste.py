import pytest
import torch

from flatten_dense.data.detection.copy_paste import paste_objects


def sample(size, colour, *boxes):
    """An image of one colour with rectangles for objects; labels count from 10 times the colour."""
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    target = {
        "boxes": torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        "labels": torch.arange(len(boxes)) + 10 * colour,
        "area": masks.flatten(1).sum(1).float(),
        "iscrowd": torch.zeros(len(boxes), dtype=torch.bool),
        "masks": masks,
    }
    return torch.full((3, *size), colour, dtype=torch.uint8), target


@pytest.fixture
def all_of_them(monkeypatch):
    """The subset that is drawn is the whole."""
    monkeypatch.setattr(torch, "randint", lambda high, size: torch.tensor(high - 1))


@pytest.mark.usefixtures("all_of_them")
def test_pasted_objects_cover_what_is_below():
    image, target = paste_objects(*sample((20, 30), 1, (0, 0, 10, 10)), sample((20, 30), 2, (5, 0, 15, 10)))
    assert image[0].eq(2).nonzero().amin(0).tolist() == [0, 5]
    assert image[0].eq(2).sum() == 100
    assert target["labels"].tolist() == [10, 20]
    assert target["boxes"].tolist() == [[0, 0, 5, 10], [5, 0, 15, 10]]
    assert target["area"].tolist() == [50, 100]
    assert not target["masks"].all(0).any()


@pytest.mark.usefixtures("all_of_them")
def test_objects_wholly_covered_are_left_out():
    _, target = paste_objects(*sample((20, 30), 1, (2, 2, 8, 8), (20, 0, 30, 9)), sample((20, 30), 2, (0, 0, 9, 9)))
    assert target["labels"].tolist() == [11, 20]
    assert {len(values) for values in target.values()} == {2}


@pytest.mark.usefixtures("all_of_them")
@pytest.mark.parametrize("size", [(12, 12), (40, 40)])
def test_images_may_differ_in_size(size):
    image, target = paste_objects(*sample((20, 30), 1), sample(size, 2, (4, 4, size[1], size[0])))
    bottom, right = min(20, size[0]), min(30, size[1])
    assert image.shape == (3, 20, 30)
    assert target["boxes"].tolist() == [[4, 4, right, bottom]]
    assert target["area"].tolist() == [(right - 4) * (bottom - 4)]
    assert image[:, :bottom, :right].eq(2).sum() == 3 * (right - 4) * (bottom - 4)


@pytest.mark.usefixtures("all_of_them")
def test_objects_beyond_the_border_are_left_out():
    _, target = paste_objects(*sample((20, 30), 1, (0, 0, 9, 9)), sample((50, 50), 2, (31, 0, 40, 10)))
    assert target["labels"].tolist() == [10]


@pytest.mark.usefixtures("all_of_them")
def test_untouched_objects_keep_their_annotated_boxes():
    image, target = sample((20, 30), 1, (0, 0, 9, 9))
    target["boxes"] += 0.3
    _, after = paste_objects(image, target, sample((20, 30), 2, (15, 15, 20, 20)))
    torch.testing.assert_close(after["boxes"][0], torch.tensor([0.3, 0.3, 9.3, 9.3]))


def test_the_samples_are_not_changed():
    samples = [sample((20, 30), 1, (0, 0, 9, 9)), sample((20, 30), 2, (0, 0, 9, 8))]
    before = [(image.clone(), {k: v.clone() for k, v in target.items()}) for image, target in samples]
    paste_objects(*samples[0], samples[1])
    torch.testing.assert_close(samples, before)


def test_every_subset_can_be_drawn():
    torch.manual_seed(0)
    source = sample((20, 30), 2, (0, 0, 5, 5), (6, 0, 10, 5), (11, 0, 15, 5))
    drawn = {tuple(paste_objects(*sample((20, 30), 1), source)[1]["labels"].tolist()) for _ in range(200)}
    assert len(drawn) == 2**3


def test_nothing_to_paste():
    image, target = sample((20, 30), 1, (0, 0, 9, 9))
    pasted, after = paste_objects(image, target, sample((20, 30), 2))
    torch.testing.assert_close((pasted, after), (image, target))
