import copy
import json
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from flatten_dense.metrics import STATS, CocoDetection
from flatten_dense.structures import Detections

CATEGORY_IDS = [7, 2, 90]
BOTH = ("bbox", "segm")


def scored(split, image_ids=None, batch_size=1, iou_types=BOTH, **options):
    metric = CocoDetection(iou_types, **options)
    metric.begin(split.annotations, CATEGORY_IDS)
    image_ids = list(split.detections) if image_ids is None else image_ids
    for start in range(0, len(image_ids), batch_size):
        batch = image_ids[start : start + batch_size]
        metric.update([split.detections[image_id] for image_id in batch], batch)
    return metric


def numbers(scores, iou_type):
    return [scores.stats[iou_type][name] for name in STATS]


@pytest.mark.parametrize("iou_type", BOTH)
@pytest.mark.parametrize("seed", range(3))
def test_the_twelve_numbers_are_those_of_cocoeval_on_files_written_by_hand(splits, coco_eval, seed, iou_type):
    split = splits(seed)
    expected = coco_eval(split, iou_type).stats
    assert (expected > 0).all(), "the example is too easy"
    assert numbers(scored(split).compute(), iou_type) == pytest.approx(expected, abs=1e-12)


def test_the_batch_size_and_the_order_of_images_change_nothing(split):
    one = scored(split, batch_size=1).compute()
    three = scored(split, list(split.detections)[::-1], batch_size=3).compute()
    assert one.stats == three.stats


@pytest.mark.parametrize("iou_type", BOTH)
def test_only_images_that_were_seen_are_judged(split, coco_eval, iou_type):
    seen = list(split.detections)[1:6]
    few = split._replace(detections={image_id: split.detections[image_id] for image_id in seen})
    scores = scored(split, seen).compute()
    assert numbers(scores, iou_type) == pytest.approx(coco_eval(few, iou_type, seen).stats, abs=1e-12)
    assert scores.num_images == 5


def test_nothing_found_anywhere_scores_0(split):
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), [])
    scores = scored(split._replace(detections=dict.fromkeys(split.detections, nothing))).compute()
    assert all(numbers(scores, iou_type) == [0] * 12 for iou_type in BOTH)
    assert scores.main == 0


def test_no_image_at_all_has_no_score(split):
    metric = CocoDetection(BOTH)
    metric.begin(split.annotations, CATEGORY_IDS)
    with pytest.warns(UserWarning, match="before the ``update``"):
        scores = metric.compute()
    assert all(math.isnan(number) for number in numbers(scores, "bbox"))
    assert math.isnan(scores.main)


def test_each_class_scores_in_the_order_of_the_class_indices(split, coco_eval):
    evaluation = coco_eval(split, "bbox")
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    ours = scored(split).compute()
    for index, category_id in enumerate(CATEGORY_IDS):
        theirs = precision[:, :, sorted(CATEGORY_IDS).index(category_id)]
        assert ours.per_class["bbox"].ap[index] == pytest.approx(theirs.mean())
        assert ours.per_class["bbox"].ap50[index] == pytest.approx(theirs[0].mean())
        assert ours.per_class["bbox"].precision50[index] == pytest.approx(theirs[0])
        true = [a for a in split.annotations["annotations"] if a["category_id"] == category_id and not a["iscrowd"]]
        assert ours.truths[index] == len(true)
    assert ours.per_class["bbox"].mean_precision50.mean() == pytest.approx(evaluation.stats[1])


def test_an_annotation_numbered_0_can_be_found_like_any_other(split):
    first = copy.deepcopy(split.annotations)
    for number, annotation in enumerate(first["annotations"]):
        annotation["id"] = number
    assert scored(split._replace(annotations=first)).compute().stats == scored(split).compute().stats


def test_the_annotations_are_left_as_they_are(split):
    before = copy.deepcopy(split.annotations)
    scored(split).compute()
    assert split.annotations == before


def test_nothing_is_printed(split, capsys):
    scored(split).compute()
    assert capsys.readouterr().out == ""


def test_faster_coco_eval_gives_the_same_numbers(split):
    pytest.importorskip("faster_coco_eval")
    ours, fast = (scored(split, backend=backend).compute() for backend in ("pycocotools", "faster-coco-eval"))
    for iou_type in BOTH:
        assert numbers(fast, iou_type) == pytest.approx(numbers(ours, iou_type), abs=1e-12)
        np.testing.assert_allclose(fast.per_class[iou_type].precision, ours.per_class[iou_type].precision, atol=1e-12)


def test_results_leave_with_the_data_sets_own_ids_and_score_the_same(split, coco_eval, tmp_path):
    metric = scored(split, batch_size=3)
    results = metric.results()
    image_id = next(image_id for image_id, found in split.detections.items() if len(found.boxes))
    found = split.detections[image_id]
    first = next(row for row in results if row["image_id"] == image_id)
    assert first["category_id"] == CATEGORY_IDS[found.labels[0]]
    assert first["score"] == found.scores[0].item()
    left, top, right, bottom = found.boxes[0].tolist()
    assert first["bbox"] == [left, top, right - left, bottom - top]
    assert first["segmentation"] == found.masks[0]
    assert len(results) == sum(len(found.boxes) for found in split.detections.values())
    assert json.dumps([{**row, "segmentation": None} for row in results])


def test_boxes_alone_need_no_masks(split):
    without = {image_id: found._replace(masks=None) for image_id, found in split.detections.items()}
    metric = scored(split._replace(detections=without), iou_types=("bbox",))
    assert metric.compute().stats["bbox"] == scored(split).compute().stats["bbox"]
    assert "segmentation" not in metric.results()[0]


def test_reset_forgets_the_detections_and_keeps_the_truth(split):
    metric = scored(split)
    metric.reset()
    seen = list(split.detections)[3:]
    metric.update([split.detections[image_id] for image_id in seen], seen)
    assert metric.compute().stats == scored(split, seen).compute().stats


def test_half_precision_is_taken(split):
    half = {i: found._replace(scores=found.scores.half()) for i, found in split.detections.items()}
    assert scored(split._replace(detections=half)).compute().num_images == len(half)


ONE = Detections(torch.tensor([[1.0, 1, 9, 9]]), torch.tensor([0.5]), torch.tensor([0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": torch.tensor([[1, 1, math.nan, 9]])}, "not finite"),
        ({"boxes": torch.tensor([[5.0, 5, 4, 9]])}, "ends before it begins"),
        ({"scores": torch.tensor([math.inf])}, "not finite"),
        ({"labels": torch.tensor([3])}, r"classes 3\.\.3, expected 0\.\.2"),
        ({"masks": None}, "1 detections need as many masks, got none"),
        ({"masks": [{"size": [5, 5], "counts": b"0"}]}, "a mask of \\(5, 5\\)"),
    ],
)
def test_detections_that_cannot_be_are_refused_with_the_image(split, change, message):
    image_id = next(iter(split.detections))
    size = next([i["height"], i["width"]] for i in split.annotations["images"] if i["id"] == image_id)
    metric = CocoDetection(BOTH)
    metric.begin(split.annotations, CATEGORY_IDS)
    good = ONE._replace(masks=[{"size": size, "counts": b"0"}])
    with pytest.raises(ValueError, match=f"image {image_id}: .*{message}"):
        metric.update([good._replace(**change)], [image_id])


def test_an_image_of_another_split_is_refused(split):
    metric = CocoDetection()
    metric.begin(split.annotations, CATEGORY_IDS)
    with pytest.raises(ValueError, match=r"image 77 is not in the annotations .*\(9 images\)"):
        metric.update([ONE], [77])


def test_detections_before_the_truth_are_refused():
    with pytest.raises(ValueError, match="call begin"):
        CocoDetection().update([ONE], [0])


PROCESS = """
import pickle, sys
import torch.distributed as dist
from flatten_dense.metrics import CocoDetection

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
split = pickle.load(open(f"{folder}/split", "rb"))
ids = list(split[1])
metric = CocoDetection(("bbox", "segm"))
metric.begin(split[0], [7, 2, 90])
for image_id in (ids[0::2], ids[1::2] + ids[:1])[rank]:  # both see the first
    metric.update([split[1][image_id]], [image_id])
scores = metric.compute()
pickle.dump((scores.stats, metric.results(), scores.num_images), open(f"{folder}/{rank}", "wb"))
dist.destroy_process_group()
"""


def test_two_processes_score_as_one_does_and_count_each_image_once(split, tmp_path):
    (tmp_path / "split").write_bytes(pickle.dumps(tuple(split)))
    command = [sys.executable, "-c", PROCESS]
    running = [subprocess.Popen([*command, str(rank), str(tmp_path)]) for rank in range(2)]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    alone = scored(split)
    for rank in range(2):
        stats, results, num_images = pickle.loads((tmp_path / str(rank)).read_bytes())
        assert (stats, results, num_images) == (alone.compute().stats, alone.results(), len(split.detections))
