import numpy as np
import pytest

from flatten_dense.data.shape_scenes import CLASS_NAMES, draw_scene

SIZE = (128, 128)


def draw(seed, size=SIZE):
    return draw_scene(np.random.default_rng(seed), size)


@pytest.fixture(scope="module")
def scenes():
    return [draw(seed) for seed in range(60)]


def extent(mask):
    """Height and width of the bounding box."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1


def touches_frame(mask):
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def whole_discs(scenes):
    """Visible masks of circles that the frame does not cut."""
    circle = CLASS_NAMES.index("circle")
    return [i.mask for s in scenes for i in s.instances if i.category == circle and not touches_frame(i.mask)]


def test_background_is_class_zero():
    assert CLASS_NAMES[0] == "background"
    assert len(set(CLASS_NAMES)) == len(CLASS_NAMES) >= 5


@pytest.mark.parametrize("size", [(128, 128), (49, 70), (100, 48)])
def test_every_array_has_the_requested_size(size):
    scene = draw(0, size)
    assert (scene.image.shape, scene.image.dtype) == ((*size, 3), np.uint8)
    assert (scene.semantic.shape, scene.semantic.dtype) == (size, np.uint8)
    assert all((i.mask.shape, i.mask.dtype) == (size, np.bool_) for i in scene.instances)


def test_equal_generators_draw_equal_scenes():
    first, second = draw(3), draw(3)
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.semantic, second.semantic)


def test_different_generators_draw_different_scenes():
    assert not np.array_equal(draw(3).image, draw(4).image)


def test_instance_masks_do_not_overlap(scenes):
    for scene in scenes:
        assert np.sum([i.mask for i in scene.instances], axis=0).max() == 1


def test_instances_make_up_the_semantic_mask(scenes):
    for scene in scenes:
        composed = np.zeros(SIZE, np.uint8)
        for category, mask in scene.instances:
            composed[mask] = category
        np.testing.assert_array_equal(composed, scene.semantic)


def test_every_class_is_drawn(scenes):
    assert {i.category for s in scenes for i in s.instances} == set(range(1, len(CLASS_NAMES)))


def test_label_edges_lie_on_image_edges(scenes):
    """The jump in colour from one pixel to the next is largest across the label's own edge, not one pixel beside it."""
    step = np.concatenate([np.linalg.norm(np.diff(s.image.astype(float), axis=1), axis=2) for s in scenes])
    edge = np.concatenate([np.diff(s.semantic.astype(int), axis=1) != 0 for s in scenes])
    at_edge = step[edge].mean()
    for shift in (-1, 1):
        beside = np.roll(edge, shift, axis=1) & ~edge
        assert at_edge > 2 * step[beside].mean()


def test_objects_stand_out_from_what_lies_around_them(scenes):
    """Along the edge of nearly every object the colour jumps by far more than the noise of the pixels."""
    jumps = []
    for scene in scenes:
        step = np.linalg.norm(np.diff(scene.image.astype(float), axis=1), axis=2)
        jumps += [step[np.diff(mask.astype(int), axis=1) != 0].mean() for _, mask in scene.instances]
    assert np.quantile(jumps, 0.05) > 50


def test_sizes_range_from_small_to_half_the_image(scenes):
    longer = np.array([max(extent(i.mask)) for s in scenes for i in s.instances if not touches_frame(i.mask)])
    assert 0.05 < (longer < 24).mean() < 0.5
    assert longer.max() > 48


def test_some_objects_are_partly_covered(scenes):
    fill = np.array([mask.sum() / np.prod(extent(mask)) for mask in whole_discs(scenes)])
    assert (fill < 0.65).sum() >= 3  # a whole disc fills pi / 4 of its box


def test_no_object_is_covered_beyond_recognition(scenes):
    smallest_disc = np.pi / 4 * 18**2
    assert min(i.mask.sum() for s in scenes for i in s.instances) >= 0.55 * smallest_disc


def tips(mask):
    """The strongest of the angular frequencies 3, 4, 5 in the distances to the centre; 0 if none is there."""
    y, x = np.nonzero(mask)
    arm = (x - x.mean()) + 1j * (y - y.mean())
    waves = [np.abs(np.sum(np.abs(arm) * np.exp(1j * n * np.angle(arm)))) / np.abs(arm).sum() for n in (3, 4, 5)]
    return 3 + int(np.argmax(waves)) if max(waves) > 0.05 else 0


@pytest.mark.parametrize(("name", "expected"), [("circle", 0), ("triangle", 3), ("square", 4), ("star", 5)])
def test_outlines_have_the_tips_of_their_class(scenes, name, expected):
    category = CLASS_NAMES.index(name)
    masks = [i.mask for s in scenes for i in s.instances if i.category == category and not touches_frame(i.mask)]
    found = np.array([tips(mask) for mask in masks if mask.sum() >= 150])
    assert len(found) >= 10
    assert (found == expected).mean() > 0.6  # others are partly covered


def test_too_small_a_scene_is_refused():
    with pytest.raises(ValueError, match=r"at least 48 x 48 pixels, got \(47, 64\)"):
        draw(0, (47, 64))
