"""Every kind of backbone trains under every head, at a size that nothing divides."""

from functools import partial

import pytest
import torch

from flatten_dense.backbones import TimmBackbone
from flatten_dense.heads import FCNHead, SemanticFPNHead, UPerHead
from flatten_dense.necks import FPN, SimplePyramid
from flatten_dense.structures import LabelSpace, default_palette
from flatten_dense.tasks.semantic_segmentation import SemanticSegmentationTask

PYRAMIDS = {
    "flatten_pvt_test": {},
    "flatten_pvt_v2_test": {},
    "flatten_swin_test": {},
    "flatten_cswin_test": {},
    "resnet18": {},
    "convnext_atto": {"options": {"depths": (1, 1, 1, 1)}},
    "swin_tiny_patch4_window7_224": {"options": {"embed_dim": 12, "depths": (1, 1, 1, 1)}},
    "mobilenetv3_small_050": {},
}
SINGLE_MAPS = {
    "flatten_deit_test": {},
    "vit_tiny_patch16_224": {"out_indices": (-1,), "options": {"depth": 2, "embed_dim": 24, "num_heads": 2}},
    "vit_small_patch8_224": {"out_indices": (-1,), "options": {"depth": 2, "embed_dim": 24, "num_heads": 2}},
}
HEADS = {
    "UPerNet": {"head": partial(UPerHead, channels=8), "auxiliary_head": partial(FCNHead, channels=8)},
    "Semantic FPN": {"head": partial(SemanticFPNHead, channels=8)},
}


def make_task(name: str, head: str) -> SemanticSegmentationTask:
    torch.manual_seed(0)
    neck = None
    if name in SINGLE_MAPS:
        neck = partial(SimplePyramid, out_channels=8)
    elif head == "Semantic FPN":
        neck = partial(FPN, out_channels=8)
    backbone = TimmBackbone(name, **(PYRAMIDS | SINGLE_MAPS)[name])
    labels = LabelSpace(("a", "b", "c"), default_palette(3))
    return SemanticSegmentationTask(backbone, neck=neck, labels=labels, **HEADS[head])


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", [*PYRAMIDS, *SINGLE_MAPS])
def test_a_step_reaches_every_parameter(name, head, monkeypatch):
    task = make_task(name, head)
    monkeypatch.setattr(task, "log_training", lambda *_, **__: None)
    batch = {"image": torch.randn(2, 3, 75, 101), "mask": torch.randint(0, 3, (2, 75, 101))}
    loss = task.training_step(batch, 0)
    loss.backward()
    assert loss.isfinite()
    assert [name for name, p in task.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@pytest.mark.parametrize("name", [*PYRAMIDS, *SINGLE_MAPS])
def test_one_image_trains(name, monkeypatch):
    task = make_task(name, "UPerNet")
    monkeypatch.setattr(task, "log_training", lambda *_, **__: None)
    batch = {"image": torch.randn(1, 3, 75, 101), "mask": torch.randint(0, 3, (1, 75, 101))}
    assert task.training_step(batch, 0).isfinite()


@pytest.mark.parametrize("name", [*PYRAMIDS, *SINGLE_MAPS])
def test_photos_of_any_size_are_segmented(name):
    mask = make_task(name, "UPerNet").segment(torch.randint(0, 256, (3, 33, 71), dtype=torch.uint8))
    assert mask.shape == (33, 71)
