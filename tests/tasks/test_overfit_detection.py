"""Every head can learn four photos by heart: their boxes, and their masks where it has masks."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR

from flatten_dense.backbones import TimmBackbone
from flatten_dense.data.detection.annotations import DetectionAnnotations
from flatten_dense.data.detection.coco_json import read_coco
from flatten_dense.data.detection.dataset import DetectionDataset
from flatten_dense.data.detection.transforms import DetectionTrainTransform
from flatten_dense.data.transforms import EvalTransform
from flatten_dense.heads import CascadeMaskRCNNHead, MaskRCNNHead, RetinaNetHead
from flatten_dense.necks import FPN
from flatten_dense.structures import InputFormat
from flatten_dense.tasks.detection import DetectionTask

COCO = Path(__file__).parents[3] / "shared/data/coco_mini"
SCALE = (320, 320)
LEAST_SIDE = 64  # pixels of an object's sides in the photo, so 32 or more where the photo is halved
STEPS, LEARNING_RATE, BATCH = 500, 1e-3, 2

TWO_STAGE = {"fc_channels": 256, "rpn_samples": 128, "roi_samples": 64, "train_proposals": 300, "test_proposals": 300}
REGIONS = partial(FPN, out_channels=64, extra_levels=1)
HEADS = {
    "RetinaNet": (
        partial(FPN, out_channels=64, start_level=1, extra_levels=2, extra="conv_input"),
        RetinaNetHead,
    ),
    "Faster R-CNN": (REGIONS, partial(MaskRCNNHead, masks=False, **TWO_STAGE)),
    "Mask R-CNN": (REGIONS, partial(MaskRCNNHead, **TWO_STAGE)),
    "Cascade R-CNN": (REGIONS, partial(CascadeMaskRCNNHead, masks=False, num_convs=1, **TWO_STAGE)),
    "Cascade Mask R-CNN": (REGIONS, partial(CascadeMaskRCNNHead, num_convs=1, **TWO_STAGE)),
}


def four_photos() -> DetectionAnnotations:
    """The first photos of one to five large objects, and the classes they hold."""
    whole = read_coco(COCO / "annotations/instances_train2017.json", COCO / "train2017")
    chosen = []
    for image in sorted(whole.images, key=lambda image: image["id"]):
        own = [annotation for annotation in whole.annotations if annotation["image_id"] == image["id"]]
        large = all(min(annotation["bbox"][2:]) >= LEAST_SIDE and not annotation["iscrowd"] for annotation in own)
        if large and 2 <= len(own) <= 5:
            chosen.append(image)
    images = chosen[:4]
    ids = {image["id"] for image in images}
    annotations = [annotation for annotation in whole.annotations if annotation["image_id"] in ids]
    used = {annotation["category_id"] for annotation in annotations}
    categories = [category for category in whole.categories if category["id"] in used]
    return DetectionAnnotations(whole.source, whole.image_folder, images, annotations, categories)


@pytest.mark.slow
@pytest.mark.skipif(not COCO.is_dir(), reason="needs the COCO photos")
@pytest.mark.parametrize("name", HEADS)
def test_a_head_learns_four_photos_by_heart(name):
    torch.manual_seed(0)
    annotations = four_photos()
    neck, head = HEADS[name]
    task = DetectionTask(TimmBackbone("flatten_pvt_v2_b0"), head, neck, annotations.labels)
    masks = "segm" in task.head.iou_types
    train = DetectionDataset(annotations, task.labels, DetectionTrainTransform(SCALE), with_masks=masks)
    optimizer = torch.optim.AdamW(task.parameters(), lr=LEARNING_RATE)
    schedule = OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS, pct_start=0.1)
    for _ in range(STEPS):
        samples = [train[index] for index in torch.randperm(len(train))[:BATCH].tolist()]
        with torch.autocast("cpu", torch.bfloat16):
            loss = task.losses([sample["image"] for sample in samples], [sample["target"] for sample in samples])
        optimizer.zero_grad()
        loss["loss"].backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    evaluation = DetectionDataset(annotations, task.labels, EvalTransform(InputFormat(SCALE)), with_masks=masks)
    task.eval().coco.begin(annotations.to_coco(), task.labels.category_ids)
    for sample in (evaluation[index] for index in range(len(evaluation))):
        with torch.inference_mode():
            task.coco.update(task([sample["image"]], [sample["size"]]), [sample["image_id"]])
    stats = task.coco.compute().stats
    assert stats["bbox"]["AP50"] >= 0.95
    assert stats["bbox"]["AP"] >= 0.6
    assert not masks or stats["segm"]["AP"] >= 0.5
