from functools import partial

import pytest
import torch
from lightning import Trainer
from pycocotools import mask as coco_mask
from torch.utils.data import DataLoader

from flatten_dense.backbones import TimmBackbone
from flatten_dense.data.base import collate_lists
from flatten_dense.data.detection.annotations import DetectionAnnotations
from flatten_dense.heads import CascadeMaskRCNNHead, MaskRCNNHead, RetinaNetHead
from flatten_dense.necks import FPN, SimplePyramid
from flatten_dense.optim import Freezing
from flatten_dense.tasks.checkpoint import load_task

RETINANET_NECK = partial(FPN, out_channels=16, start_level=1, extra_levels=2, extra="conv_input")
SLIM = {"fc_channels": 16, "roi_samples": 16, "train_proposals": 50, "test_proposals": 50}
HEADS = pytest.mark.parametrize(
    ("head", "neck"),
    [
        (RetinaNetHead, RETINANET_NECK),
        (partial(MaskRCNNHead, **SLIM), partial(FPN, out_channels=16, extra_levels=1)),
        (partial(CascadeMaskRCNNHead, **SLIM), partial(FPN, out_channels=16, extra_levels=1)),
    ],
    ids=["retinanet", "mask", "cascade"],
)


class Samples(list):
    """A data set of one batch's images, evaluated against nothing."""

    def __init__(self, batch, labels):
        super().__init__({key: values[i] for key, values in batch.items()} for i in range(len(batch["image"])))
        self.labels = labels
        images = [{"id": sample["image_id"], "file_name": sample["path"], "height": 60, "width": 90} for sample in self]
        categories = [
            {"id": number, "name": name} for number, name in zip(labels.category_ids, labels.class_names, strict=True)
        ]
        square = [[10, 10, 40, 10, 40, 40, 10, 40]]
        truth = {"id": 1, "image_id": self[0]["image_id"], "category_id": 7, "bbox": [10, 10, 30, 30], "area": 900.0}
        truth |= {"iscrowd": 0, "segmentation": square}
        self.annotations = DetectionAnnotations(None, None, images, [truth], categories)


def trainer(tmp_path, **options) -> Trainer:
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(**{"accelerator": "cpu", "logger": False, "default_root_dir": tmp_path, **quiet, **options})


def loader(samples) -> DataLoader:
    return DataLoader(samples, batch_size=2, collate_fn=collate_lists)


def test_the_loss_is_the_sum_of_the_heads_losses(make_detector, detection_batch):
    losses = make_detector().losses(detection_batch["image"], detection_batch["target"])
    parts = [value for name, value in losses.items() if name != "loss"]
    torch.testing.assert_close(losses["loss"], sum(parts))
    assert len(parts) == 5


def test_losses_are_logged_one_by_one(make_detector, detection_batch, tmp_path):
    task = make_detector()
    run = trainer(tmp_path, max_steps=1, log_every_n_steps=1)
    run.fit(task, loader(Samples(detection_batch, task.labels)))
    names = {"loss", "loss_rpn_cls", "loss_rpn_box", "loss_cls", "loss_box", "loss_mask"}
    assert {f"train/{name}" for name in names} <= set(run.logged_metrics)


def test_detections_lie_in_the_original_image(make_detector, detection_batch):
    task = make_detector().eval()
    torch.nn.init.normal_(task.head.box_head.classes.weight)
    sizes = [(640, 960), (40, 25)]
    with torch.inference_mode():
        found = task(detection_batch["image"], sizes)
    for (height, width), own in zip(sizes, found, strict=True):
        assert len(own.boxes)
        assert own.boxes.min() >= 0
        assert (own.boxes.amax(0)[2:] <= torch.tensor([width, height]) + 1e-3).all()
    assert found[0].boxes.max() > 96


def test_masks_have_the_size_of_the_original_image(make_detector, detection_batch):
    task = make_detector().eval()
    torch.nn.init.normal_(task.head.box_head.classes.weight)
    with torch.inference_mode():
        (found, _) = task(detection_batch["image"], [(120, 180), (80, 50)])
    assert {coco_mask.decode(rle).shape for rle in found.masks} == {(120, 180)}


def test_a_photo_is_detected_at_its_own_size(make_detector):
    task = make_detector().train()
    torch.nn.init.normal_(task.head.box_head.classes.weight)
    photo = torch.randint(0, 256, (3, 70, 110), dtype=torch.uint8)
    assert task.detect(photo).masks[0]["size"] == [70, 110]
    assert task.training


def test_a_photo_is_detected_without_what_only_training_does(make_detector):
    task = make_detector(backbone=TimmBackbone("flatten_pvt_test", drop_path_rate=0.9)).train()
    torch.nn.init.normal_(task.head.box_head.classes.weight)
    photo = torch.randint(0, 256, (3, 70, 110), dtype=torch.uint8)
    assert torch.equal(task.detect(photo).boxes, task.eval().detect(photo).boxes)


def test_a_frozen_backbone_gets_no_gradient_and_the_others_do(make_detector, detection_batch):
    task = make_detector(freeze=Freezing(-1))
    task.losses(detection_batch["image"], detection_batch["target"])["loss"].backward()
    assert not any(parameter.requires_grad for parameter in task.backbone.parameters())
    assert all(parameter.grad is not None for parameter in [*task.neck.parameters(), *task.head.parameters()])


def test_a_frozen_backbone_stays_in_evaluation_mode(make_detector):
    task = make_detector(freeze=Freezing(-1)).train()
    assert not any(module.training for module in task.backbone.body.model.modules())
    assert task.head.training


@pytest.mark.parametrize("backbone", ["flatten_pvt_test", "flatten_swin_test"])
@pytest.mark.parametrize("has_objects", [True, False])
@HEADS
def test_no_parameter_that_learns_goes_without_a_gradient(
    make_detector, detection_batch, head, neck, has_objects, backbone
):
    image, target = (detection_batch[key] if has_objects else detection_batch[key][1:] for key in ("image", "target"))
    task = make_detector(backbone=TimmBackbone(backbone), head=head, neck=neck)
    task.losses(image, target)["loss"].backward()
    learning = {name: parameter for name, parameter in task.named_parameters() if parameter.requires_grad}
    assert [name for name, parameter in learning.items() if parameter.grad is None] == []


@HEADS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_gives_finite_losses_and_gradients(make_detector, detection_batch, head, neck, dtype):
    task = make_detector(head=head, neck=neck)
    with torch.autocast("cpu", dtype):
        losses = task.losses(detection_batch["image"], detection_batch["target"])
    losses["loss"].backward()
    assert all(value.isfinite() for value in losses.values())
    assert all(parameter.grad.isfinite().all() for parameter in task.parameters())


@pytest.mark.parametrize(
    ("head", "levels"), [(RetinaNetHead, (1, 3)), (partial(MaskRCNNHead, **SLIM), (2, 2))], ids=["retinanet", "mask"]
)
@pytest.mark.parametrize(
    ("backbone", "options", "out_indices"),
    [("flatten_deit_test", None, None), ("vit_tiny_patch16_224", {"depth": 2}, (-1,))],
)
def test_plain_transformers_through_a_pyramid(
    make_detector, detection_batch, head, levels, backbone, options, out_indices
):
    task = make_detector(
        backbone=TimmBackbone(backbone, options=options, out_indices=out_indices),
        neck=partial(SimplePyramid, out_channels=16, doublings=levels[0], halvings=levels[1]),
        head=head,
    )
    assert task.losses(detection_batch["image"], detection_batch["target"])["loss"].isfinite()


@pytest.mark.parametrize(("name", "options"), [("resnet18", None), ("flatten_pvt_v2_test", {"linear": True})])
def test_a_backbone_that_mixes_images_gets_no_sizes(make_detector, detection_batch, name, options):
    task = make_detector(backbone=TimmBackbone(name, options=options))
    assert not task.padding_mask
    assert task.losses(detection_batch["image"], detection_batch["target"])["loss"].isfinite()


def test_a_mask_head_on_boxes_alone_is_refused_by_name(make_detector, detection_batch):
    for target in detection_batch["target"]:
        del target["masks"]
    with pytest.raises(ValueError, match=r"--model\.head\.masks false"):
        make_detector().losses(detection_batch["image"], detection_batch["target"])


def test_validation_scores_against_the_annotations_of_the_data_set(make_detector, detection_batch, tmp_path):
    task = make_detector()
    batch = {**detection_batch, "size": [(60, 90), (60, 90)]}
    trainer(tmp_path).validate(task, loader(Samples(batch, task.labels)), verbose=False)
    assert task.scores.num_images == 2
    assert task.scores.category_ids == (7, 8, 9)


def test_masks_are_not_asked_of_a_split_without_objects(make_detector, detection_batch, tmp_path):
    task = make_detector()
    samples = Samples({**detection_batch, "size": [(60, 90), (60, 90)]}, task.labels)
    samples.annotations.annotations.clear()
    trainer(tmp_path).validate(task, loader(samples), verbose=False)
    assert task.scores.num_images == 2


def test_a_split_of_boxes_alone_is_refused_where_masks_are_found(make_detector, detection_batch, tmp_path):
    task = make_detector()
    samples = Samples(detection_batch, task.labels)
    del samples.annotations.annotations[0]["segmentation"]
    with pytest.raises(ValueError, match=r"MaskRCNNHead finds masks, .* --model\.head\.masks false"):
        trainer(tmp_path).validate(task, loader(samples), verbose=False)


def test_a_checkpoint_alone_brings_the_detector_back(make_detector, detector_recipe, tmp_path):
    task = make_detector().eval()
    torch.nn.init.normal_(task.head.box_head.classes.weight)
    task.recipe = detector_recipe
    checkpoint = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "task.ckpt")
    again = load_task(tmp_path / "task.ckpt")
    photo = torch.randint(0, 256, (3, 70, 110), dtype=torch.uint8)
    expected, found = task.detect(photo), again.detect(photo)
    assert again.labels == task.labels
    assert len(expected.boxes)
    assert expected.masks == found.masks
    assert all(torch.equal(*pair) for pair in zip(expected[:3], found[:3], strict=True))


def test_data_without_annotations_are_refused(make_detector, tmp_path):
    task = make_detector()
    with pytest.raises(ValueError, match=r"\.annotations"):
        trainer(tmp_path).validate(task, DataLoader([0]), verbose=False)
