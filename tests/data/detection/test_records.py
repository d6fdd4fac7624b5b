import dataclasses

import pytest

from flatten_dense.data.detection.coco_json import read_coco
from flatten_dense.data.detection.records import ObjectRecord, missing_photos, photo_records, trainable_records


@pytest.fixture
def annotations(coco):
    return read_coco(coco / "annotations/instances_train2017.json", coco / "train2017")


@pytest.fixture
def records(annotations):
    return photo_records(annotations, annotations.labels)


def test_photos_come_in_the_files_order_with_their_objects(records):
    assert [(photo.image_id, photo.size, len(photo.objects)) for photo in records] == [
        (10, (48, 64), 3), (20, (60, 40), 1), (30, (50, 50), 0), (40, (31, 40), 1)
    ]  # fmt: skip


def test_objects_are_tensors_of_corners_and_class_indices(records):
    instances = records[0].instances()
    assert instances.boxes.tolist() == [[8, 4, 28, 20], [40, 20, 60, 44], [0, 0, 10, 48]]
    assert instances.labels.tolist() == [1, 0, 0]  # zebra has the higher id
    assert instances.iscrowd.tolist() == [False, False, True]
    assert instances.area.tolist() == [320, 480, 480]


def test_a_photo_without_objects_has_empty_tensors(records):
    instances = records[2].instances()
    assert instances.boxes.shape == (0, 4)
    assert instances.labels.shape == (0,)


def test_training_leaves_out_crowds_empty_photos_and_tiny_ones(records):
    kept = trainable_records(records, with_masks=False, keep_empty=False)
    assert [(photo.image_id, len(photo.objects)) for photo in kept] == [(10, 2), (20, 1)]


def test_empty_photos_can_be_kept(records):
    kept = trainable_records(records, with_masks=False, keep_empty=True)
    assert [photo.image_id for photo in kept] == [10, 20, 30]


@pytest.mark.parametrize(
    ("box", "usable"),
    [
        ([10, 10, 1, 1], True),
        ([10, 10, 0.9, 5], False),
        ([10, 10, 5, 0], False),
        ([-5, -5, 5.5, 20], False),
        ([-5, -5, 6, 6], True),
        ([59.5, 10, 20, 20], False),
        ([100, 100, 5, 5], False),
    ],
)
def test_objects_need_a_pixel_inside_the_photo(box, usable):
    assert ObjectRecord(box, 0, 1, 0, None).is_trainable((40, 60), with_mask=False) is usable


def test_objects_need_a_mask_where_masks_are_learnt():
    assert not ObjectRecord([1, 1, 9, 9], 0, 1, 0, None).is_trainable((40, 60), with_mask=True)
    assert ObjectRecord([1, 1, 9, 9], 0, 1, 0, [[1, 1, 9, 9, 1, 9]]).is_trainable((40, 60), with_mask=True)


def test_missing_photos_are_found_in_any_folder(annotations):
    assert missing_photos(annotations) == []
    (annotations.image_folder / "2.png").unlink()
    nowhere = {"id": 9, "file_name": "deeper/9.png"}
    more = dataclasses.replace(annotations, images=[*annotations.images, nowhere])
    assert [path.relative_to(annotations.image_folder).as_posix() for path in missing_photos(more)] == [
        "2.png", "deeper/9.png"
    ]  # fmt: skip
