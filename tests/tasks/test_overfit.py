"""Every head can learn eight street scenes by heart, at their own size."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR

from flatten_dense.backbones import TimmBackbone
from flatten_dense.data.images import read_image, read_mask
from flatten_dense.data.transforms import EvalTransform
from flatten_dense.heads import FCNHead, SemanticFPNHead, UPerHead
from flatten_dense.inference import segment_batch
from flatten_dense.losses import CrossEntropyLoss
from flatten_dense.metrics.segmentation import SegmentationConfusion
from flatten_dense.necks import FPN, SimplePyramid
from flatten_dense.structures import InputFormat, LabelSpace, default_palette
from flatten_dense.tasks.semantic_segmentation import SemanticSegmentationTask

CAMVID = Path(__file__).parents[3] / "shared/data/camvid_ade"
LABELS = LabelSpace(tuple(map(str, range(11))), default_palette(11), reduce_zero_label=True)
BATCH = 2
STEPS, LEARNING_RATE = 640, 2e-3
SCHEDULES = {"UPerNet on a pyramid": (1280, 1e-3)}  # a plain transformer finds edges late

COMPOSITIONS = {
    "Semantic FPN": {
        "backbone": "flatten_pvt_v2_b0",
        "neck": partial(FPN, out_channels=64),
        "head": partial(SemanticFPNHead, channels=64, dropout=0),
    },
    "FCN": {
        "backbone": "flatten_pvt_v2_b0",
        "neck": partial(FPN, out_channels=64),
        "head": partial(FCNHead, channels=64, dropout=0, level=0),
    },
    "UPerNet": {
        "backbone": "flatten_pvt_v2_b0",
        "head": partial(UPerHead, channels=64, dropout=0),
        "auxiliary_head": partial(FCNHead, channels=64),
    },
    "UPerNet on a pyramid": {
        "backbone": "flatten_deit_tiny",
        "neck": partial(SimplePyramid, out_channels=64),
        "head": partial(UPerHead, channels=64, dropout=0),
    },
}


def eight_scenes() -> tuple[torch.Tensor, torch.Tensor]:
    photos = sorted((CAMVID / "images/training").iterdir())[::45][:8]
    masks = [read_mask(CAMVID / "annotations/training" / f"{photo.stem}.png") for photo in photos]
    normalize = EvalTransform(InputFormat())
    images = torch.stack([normalize(read_image(photo)) for photo in photos])
    return images, LABELS.from_disk(torch.stack(masks))


@pytest.mark.slow
@pytest.mark.skipif(not CAMVID.is_dir(), reason="needs the CamVid photos")
@pytest.mark.parametrize("name", COMPOSITIONS)
def test_a_head_learns_eight_scenes_by_heart(name):
    torch.manual_seed(0)
    parts = COMPOSITIONS[name]
    steps, learning_rate = SCHEDULES.get(name, (STEPS, LEARNING_RATE))
    task = SemanticSegmentationTask(**{**parts, "backbone": TimmBackbone(parts["backbone"])}, labels=LABELS)
    optimizer = torch.optim.AdamW(task.parameters(), lr=learning_rate)
    schedule = OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.1)
    images, masks = eight_scenes()
    task.loss, task.log_training = CrossEntropyLoss(balance=0.5), lambda *_, **__: None
    for _ in range(steps):
        chosen = torch.randperm(len(images))[:BATCH]
        with torch.autocast("cpu", torch.bfloat16):
            loss = task.training_step({"image": images[chosen], "mask": masks[chosen]}, 0)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    confusion = SegmentationConfusion(LABELS.num_classes)
    sizes = [mask.shape for mask in masks]
    for prediction, mask in zip(segment_batch(task.eval(), list(images), sizes), masks, strict=True):
        confusion.update(prediction, mask)
    assert confusion.compute().mIoU >= 0.85
