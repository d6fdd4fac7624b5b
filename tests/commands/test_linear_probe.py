import numpy as np
import pytest
import torch
from PIL import Image

from flatten_dense.backbones import TimmClassifier
from flatten_dense.cli import main
from flatten_dense.optim import Freezing
from flatten_dense.structures import ClassLabels
from flatten_dense.tasks.checkpoint import read_checkpoint
from flatten_dense.tasks.classification import ClassificationTask


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    """A model with batch norms, and the checkpoint of its probe after two steps."""
    folder = tmp_path_factory.mktemp("probe")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for index in range(4):
                pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")
    torch.manual_seed(0)
    body = TimmClassifier("resnet10t").body
    torch.save(body.state_dict(), folder / "weights.pt")
    model = ["--model.backbone.name", "resnet10t", "--model.weights", str(folder / "weights.pt")]
    sizes = ["--data.augmentation.size", "[32, 32]", "--data.input_format", "{scale: [32, 32], crop: null}"]
    data = ["--data.root", str(folder), "--data.batch_size", "4", "--data.num_workers", "0", *sizes]
    trainer = ["--trainer.max_epochs", "1", "--trainer.limit_val_batches", "0", "--trainer.logger", "false"]
    trainer += ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    options = [*model, *data, *trainer, "--runs", str(folder / "runs")]
    assert main(["fit", "-c", "classification/linear_probe", *options]) == 0
    (checkpoint,) = (folder / "runs").glob("linear_probe/*/checkpoints/last.ckpt")
    return body, read_checkpoint(checkpoint)


def test_only_the_classifier_changes(probed):
    body, checkpoint = probed
    before = {f"backbone.body.{key}": tensor for key, tensor in body.state_dict().items()}
    # Statistics of batch norms would change if a norm were in training mode.
    changed = [key for key, tensor in before.items() if not tensor.equal(checkpoint["state_dict"][key])]
    assert changed == ["backbone.body.fc.weight", "backbone.body.fc.bias"]


def test_the_optimiser_holds_the_classifier_alone(probed):
    (optimizer,) = probed[1]["optimizer_states"]
    assert sum(len(group["params"]) for group in optimizer["param_groups"]) == 2


@pytest.mark.parametrize("name", ["flatten_pvt_v2_test", "flatten_swin_test", "vit_tiny_patch16_224", "resnet10t"])
def test_features_stay_those_of_evaluation(name):
    backbone = TimmClassifier(name, drop_path_rate=0.5)
    task = ClassificationTask(backbone, ClassLabels(("cat", "dog")), freeze=Freezing(-1), mixing=None).train()
    norms = [module for module in backbone.body.modules() if "Norm" in type(module).__name__]
    assert norms
    assert not any(norm.training for norm in norms)
    assert backbone.body.get_classifier().training
    images = torch.randn(4, 3, 64, 64)
    trained = backbone.pooled(images)
    assert not trained.requires_grad
    torch.testing.assert_close(trained, task.eval().backbone.pooled(images))  # without drop path or dropout
