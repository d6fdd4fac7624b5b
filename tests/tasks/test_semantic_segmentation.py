from functools import partial

import pytest
import torch
from PIL import Image

from flatten_dense.backbones import TimmBackbone
from flatten_dense.data.rasters import LargeTiff
from flatten_dense.heads import SemanticFPNHead
from flatten_dense.necks import FPN
from flatten_dense.structures import InputFormat, LabelSpace, Normalization, default_palette
from flatten_dense.tasks.semantic_segmentation import SemanticSegmentationTask


class Painter(torch.nn.Module):
    """Stands for a model: the class is the channel in which the normalised image is largest."""

    channels, strides = (3,), (1,)

    def forward(self, images):
        return images


def test_parameters_of_the_published_model():
    labels = LabelSpace(tuple(map(str, range(150))), default_palette(150))
    task = SemanticSegmentationTask(TimmBackbone("flatten_pvt_tiny"), SemanticFPNHead, FPN, labels=labels)
    assert round(sum(p.numel() for p in task.parameters()) / 1e6, 2) == 15.90


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 40)])
def test_logits_at_the_finest_stride(make_task, size):
    logits = make_task().eval()(torch.randn(2, 3, *size))
    assert logits.shape == (2, 3, -(-size[0] // 4), -(-size[1] // 4))


def test_validation_counts_at_the_size_of_the_mask(make_task):
    task = make_task().eval()
    masks = [torch.randint(0, 3, (50, 70)), torch.randint(0, 3, (31, 45))]
    batch = {"image": [torch.randn(3, 32, 40), torch.randn(3, 32, 48)], "mask": masks, "path": ["a", "b"]}
    predictions = task.validation_step(batch, 0)["masks"]
    assert [tuple(prediction.shape) for prediction in predictions] == [(50, 70), (31, 45)]
    counts = torch.zeros(3, 3, dtype=torch.int64)
    for truth, prediction in zip(masks, predictions, strict=True):
        counts.index_put_((truth.flatten(), prediction.flatten()), torch.tensor(1), accumulate=True)
    assert torch.equal(task.confusion.confusion[:, :3], counts)  # the last column is for saved masks alone


def test_a_batch_predicts_what_each_image_predicts_alone(make_task):
    task = make_task().eval()
    images = [torch.randn(3, 32, 40), torch.randn(3, 48, 40), torch.randn(3, 32, 40)]
    sizes = [(30, 44), (48, 40), (64, 80)]
    together = task.predict_step({"image": images, "size": sizes}, 0)
    for image, size, mask in zip(images, sizes, together, strict=True):
        (alone,) = task.predict_step({"image": [image], "size": [size]}, 0)
        assert (alone == mask).float().mean() > 0.999  # ties may fall either way by rounding


def test_segment_normalises_resizes_and_returns_the_photo_size(make_task):
    normalization = Normalization((0.0, 0.0, 0.5), (1.0, 1.0, 1.0))
    task = make_task(input_format=InputFormat((20, 10), normalization))
    task.backbone, task.neck, task.head = Painter(), None, torch.nn.Identity()
    task.forward = lambda images: images
    photo = torch.zeros(3, 24, 48, dtype=torch.uint8)
    photo[0, :, :24] = 200
    photo[1, :, 24:] = 100
    photo[2] = 230  # bluest everywhere, but half of it is taken off by the normalisation
    mask = task.segment(photo)
    assert mask.shape == (24, 48)
    assert mask[:, :20].unique().tolist() == [0]
    assert mask[:, 28:].unique().tolist() == [2 if 230 / 255 - 0.5 > 100 / 255 else 1]


def test_segment_leaves_the_training_mode_as_it_was(make_task):
    task = make_task().train()
    task.segment(torch.zeros(3, 32, 32, dtype=torch.uint8))
    assert task.training


def test_segment_goes_back_to_training_after_a_photo_that_the_model_refuses(make_task):
    task = make_task().train()
    task.forward = lambda _: torch.zeros(1, 0)[5]
    with pytest.raises(IndexError):
        task.segment(torch.zeros(3, 32, 32, dtype=torch.uint8))
    assert task.training


def test_segment_does_not_depend_on_the_training_mode(make_task):
    task = make_task(head=partial(SemanticFPNHead, channels=16, dropout=0.5))
    photo = torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8)
    assert torch.equal(task.train().segment(photo), task.eval().segment(photo))


def test_strips_of_a_large_tiff_run_in_the_precision_of_the_step(make_task, tmp_path):
    Image.new("RGB", (100, 70)).save(tmp_path / "large.tif")
    task, seen = make_task().eval(), []
    task.backbone.register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    batch = {"image": [], "size": [], "large": [LargeTiff(tmp_path / "large.tif")]}
    with torch.autocast("cpu", torch.bfloat16):
        (strips,) = task.predict_step(batch, 0)
    assert sum(len(strip) for strip in strips) == 70
    assert seen == [True]
