"""Weights of one task in another, at other resolutions, with other classes."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from flatten_dense.backbones import TimmBackbone, TimmClassifier, load_weights
from flatten_dense.callbacks import EMA
from flatten_dense.optim import Freezing
from flatten_dense.structures import ClassLabels
from flatten_dense.tasks.classification import ClassificationTask

FAMILIES = ["flatten_deit_test", "flatten_pvt_test", "flatten_pvt_v2_test", "flatten_swin_test", "flatten_cswin_test"]


def classifier(
    name: str = "flatten_pvt_test", classes: tuple[str, ...] = ("cat", "dog"), seed: int = 0, **options: Any
) -> ClassificationTask:
    torch.manual_seed(seed)
    size = options.pop("img_size", 64)
    return ClassificationTask(
        TimmClassifier(name, options={"img_size": size}), labels=ClassLabels(classes), mixing=None, **options
    )


def randomise(module: torch.nn.Module) -> None:
    """Give every parameter values of its own: encodings and classifiers start at nearly nothing."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.1)


def save(task: LightningModule, path: Path) -> str:
    """A checkpoint as `fit` writes it, with the recipe that says the native size."""
    backbone = {"class_path": "flatten_dense.backbones.TimmClassifier", "init_args": {"name": task.backbone._name}}
    backbone["init_args"]["options"] = dict(task.backbone._arguments)
    task.recipe = {
        "name": "source",
        "model": {
            "class_path": "flatten_dense.tasks.classification.ClassificationTask",
            "init_args": {"backbone": backbone},
        },
        "data": {"class_path": "flatten_dense.data.classification.ImageFolderDataModule", "init_args": {}},
    }
    checkpoint: dict[str, Any] = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return str(path)


def start_fit(task: LightningModule, batch: dict[str, Any], **more: Any) -> None:
    """One step at a rate of zero."""
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", max_steps=1, enable_model_summary=False, **options, **more)
    trainer.fit(task, DataLoader([batch], batch_size=None))


IMAGES = {"image": torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)), "label": torch.tensor([0, 1])}


def at_rest(**options: Any) -> dict[str, Any]:
    return {"optimizer": partial(torch.optim.SGD, lr=0.0), **options}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_classifier_carries_its_backbone_into_dense_tasks(tmp_path, name):
    source = classifier(name)
    randomise(source)
    path = save(source, tmp_path / "source.ckpt")
    images = torch.randn(1, 3, 64, 64)
    expected = source.eval().backbone.body.forward_intermediates(images, intermediates_only=True)
    backbone = TimmBackbone(name, out_indices=tuple(range(len(expected))))
    report = load_weights(backbone, path, class_names=("other", "classes"))
    assert report.coverage > 0.98
    found = backbone.eval().body.model.forward_intermediates(images, intermediates_only=True)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("task", ["segmentation", "detection", "classification"])
def test_a_fit_of_every_task_starts_from_the_weights_and_says_so(
    tmp_path, make_task, make_detector, detection_batch, caplog, task
):
    source = classifier()
    randomise(source)
    options = at_rest(weights=save(source, tmp_path / "source.ckpt"))
    mask = {"image": IMAGES["image"], "mask": torch.zeros(2, 64, 64, dtype=int)}
    other, batch = {
        "segmentation": lambda: (make_task(seed=1, **options), mask),
        "detection": lambda: (make_detector(seed=1, **options), detection_batch),
        "classification": lambda: (classifier(seed=1, **options), IMAGES),
    }[task]()
    with caplog.at_level("INFO"):
        start_fit(other, batch)
    body = other.backbone.body
    state = getattr(body, "model", body).state_dict()
    theirs = source.backbone.body.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in state.items())
    assert f"weights from {tmp_path / 'source.ckpt'}" in caplog.text
    assert "coverage: 100.0% of the model's parameters" in caplog.text


def test_rows_of_a_classifier_are_copied_by_the_names_of_the_classes(tmp_path):
    source = classifier(classes=("cat", "dog", "bird"))
    randomise(source)
    task = classifier(
        classes=("bird", "fish", "cat"), seed=1, **at_rest(weights=save(source, tmp_path / "source.ckpt"))
    )
    fresh = task.backbone.body.head.weight[1].clone()
    start_fit(task, IMAGES)
    rows, theirs = task.backbone.body.head.weight, source.backbone.body.head.weight
    assert torch.equal(rows, torch.stack([theirs[2], fresh, theirs[0]]))


def bicubic(table: Tensor, side: int) -> Tensor:
    own = int(table.shape[1] ** 0.5)
    maps = table.transpose(1, 2).unflatten(2, (own, own))
    return F.interpolate(maps, (side, side), mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)


def bilinear(table: Tensor, side: int) -> Tensor:
    own = int(table.shape[1] ** 0.5)
    maps = table.transpose(1, 2).unflatten(2, (own, own))
    return F.interpolate(maps, (side, side), mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)


def test_tables_are_resized_from_size_to_size(tmp_path, caplog):
    task = classifier(img_size=224)
    randomise(task)
    expected = task.backbone.body.stages[0].pos_embed.detach()
    for size in (384, 512):
        path = save(task, tmp_path / f"{size}.ckpt")
        task = classifier(img_size=size, **at_rest(weights=path))
        with caplog.at_level("INFO"):
            start_fit(task, IMAGES)
        expected = bicubic(expected, size // 4)
        assert torch.equal(task.backbone.body.stages[0].pos_embed, expected)
    for sizes in ("(56, 56) -> (96, 96)", "(96, 96) -> (128, 128)"):
        assert f"stages.*.pos_embed: {sizes}" in caplog.text


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_of_a_higher_resolution_gives_what_the_lower_one_gives_there(tmp_path, name):
    low, high = classifier(name).eval(), classifier(name, img_size=96, seed=1).eval()
    randomise(low)
    load_weights(high.backbone, save(low, tmp_path / "low.ckpt"), class_names=("cat", "dog"))
    images = torch.randn(2, 3, 96, 96)
    # The model resizes its tables bilinearly as it runs, loading resizes them bicubically, once and for all.
    for name, parameter in high.backbone.body.named_parameters():
        table = low.backbone.body.get_parameter(name)
        if table.shape != parameter.shape:
            parameter.data = bilinear(table.detach(), int(parameter.shape[1] ** 0.5))
    with torch.no_grad():
        torch.testing.assert_close(high(images), low(images), rtol=1e-4, atol=1e-5)


def test_the_kind_of_interpolation_is_all_that_a_higher_resolution_changes(tmp_path):
    low, high = classifier().eval(), classifier(img_size=96, seed=1).eval()
    randomise(low)
    for name, parameter in low.backbone.body.named_parameters():  # tables as smooth as learned ones are
        if name.endswith(("pos_embed", "positional_encoding")):
            side = int(parameter.shape[1] ** 0.5)
            parameter.data = bilinear(bilinear(parameter.data, 2), side)
    load_weights(high.backbone, save(low, tmp_path / "low.ckpt"))
    images = torch.randn(8, 3, 96, 96)
    with torch.no_grad():
        expected, found = low(images), high(images)
    assert (found - expected).abs().max() < 0.05 * expected.std()


def test_freezing_what_starts_from_nothing_is_told(recwarn):
    start_fit(classifier(freeze=Freezing(2), **at_rest()), IMAGES)
    (warning,) = (str(w.message) for w in recwarn if "random" in str(w.message))
    assert "freeze.stages=2 keeps" in warning
    assert "stages.0.pos_embed" in warning


def test_freezing_what_the_weights_lack_is_told(tmp_path, recwarn):
    torch.manual_seed(0)
    softmax = TimmClassifier("flatten_pvt_test", options={"attention": "SSSS"})
    torch.save(softmax.body.state_dict(), tmp_path / "softmax.pth")
    start_fit(classifier(freeze=Freezing(1), **at_rest(weights=str(tmp_path / "softmax.pth"))), IMAGES)
    (warning,) = (str(w.message) for w in recwarn if "random" in str(w.message))
    assert "keeps 4 tensors at random numbers, such as stages.0.blocks.0.attn.core.positional_encoding" in warning


def test_freezing_what_the_weights_hold_is_no_reason_for_a_warning(tmp_path, recwarn):
    path = save(classifier(seed=1), tmp_path / "source.ckpt")
    start_fit(classifier(freeze=Freezing(2), **at_rest(weights=path)), IMAGES)
    assert not [w for w in recwarn if "random" in str(w.message)]


def test_an_average_of_the_weights_begins_with_those_that_were_loaded(tmp_path):
    source = classifier(seed=1)
    task = classifier(**at_rest(weights=save(source, tmp_path / "source.ckpt")))
    average = EMA(decay=0.9)
    checkpoint: dict[str, Any] = {}
    start_fit(task, IMAGES, callbacks=[average, SavedAtEnd(checkpoint)])
    state = source.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in checkpoint["state_dict"].items())


class SavedAtEnd(Callback):
    def __init__(self, checkpoint: dict[str, Any]) -> None:
        self.checkpoint = checkpoint

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.checkpoint |= trainer._checkpoint_connector.dump_checkpoint()
