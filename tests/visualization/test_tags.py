import numpy as np

from flatten_dense.visualization.tags import place_tags

SIZE = (400, 600)
TAG = [(60, 14)]


def rectangles(placed, forms):
    """(left, top, right, bottom) of the tags that have a place."""
    return [
        (place[1], place[2], place[1] + form[place[0]][0], place[2] + form[place[0]][1])
        for place, form in zip(placed, forms, strict=True)
        if place
    ]


def overlap(a, b) -> bool:
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


def test_a_lonely_tag_stands_on_the_left_end_of_its_box():
    assert place_tags(np.array([[100.0, 200, 300, 300]]), [TAG], SIZE) == [(0, 100, 186)]


def test_no_tag_leaves_the_picture():
    corners = np.array([[0.0, 0, 30, 10], [580, 0, 600, 30], [0, 390, 600, 400], [590, 390, 600, 400]])
    forms = [TAG] * 4
    for left, top, right, bottom in rectangles(place_tags(corners, forms, SIZE), forms):
        assert left >= 0
        assert top >= 0
        assert right <= SIZE[1]
        assert bottom <= SIZE[0]


def test_no_tag_covers_another_however_many_there_are():
    corners = np.random.default_rng(0).uniform(0, 300, (80, 2))
    boxes = np.hstack([corners, corners + 90])
    forms = [[(70, 14), (25, 14)]] * 80
    tags = rectangles(place_tags(boxes, forms, SIZE), forms)
    assert len(tags) > 40
    assert not any(overlap(a, b) for number, a in enumerate(tags) for b in tags[:number])


def test_a_tag_makes_way_for_a_small_object():
    large, small = [100.0, 200, 300, 300], [110.0, 185, 125, 199]
    (place, _) = place_tags(np.array([large, small]), [TAG, TAG], SIZE)
    assert not overlap((place[1], place[2], place[1] + 60, place[2] + 14), small)


def test_a_shorter_form_is_taken_where_the_longer_has_no_place():
    forms = [[(700, 14), (20, 14)]]
    assert place_tags(np.array([[0.0, 0, 600, 400]]), forms, (20, 30)) == [(1, 0, 0)]


def test_a_tag_without_a_place_is_left_out():
    same = np.array([[0.0, 0, 60, 14]] * 3)
    assert place_tags(same, [TAG] * 3, (14, 60))[1:] == [None, None]
