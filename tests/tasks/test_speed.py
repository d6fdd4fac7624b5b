from functools import partial

import pytest
import torch
from lightning import Trainer
from torch.optim import SGD, AdamW
from torch.utils.data import DataLoader

from flatten_dense.backbones import TimmBackbone, TimmClassifier
from flatten_dense.structures import ClassLabels
from flatten_dense.tasks.classification import ClassificationTask
from flatten_dense.tasks.speed import Speed

PLAIN = Speed()
BUT_COMPILED = Speed(channels_last=True, checkpointing=True)
ALL = Speed(compile=True, channels_last=True, checkpointing=True)


def make_classifier(speed=PLAIN, backbone="flatten_pvt_test", **options):
    torch.manual_seed(0)
    labels = ClassLabels(("cat", "dog", "bird"))
    return ClassificationTask(TimmClassifier(backbone), labels, mixing=None, speed=speed, **options)


def photos(number):
    generator = torch.Generator().manual_seed(0)
    return {"image": torch.randn(number, 3, 64, 64, generator=generator), "label": torch.arange(number) % 3}


def train(task, batches, **options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = Trainer(accelerator="cpu", logger=False, max_steps=1, log_every_n_steps=1, **quiet, **options)
    trainer.fit(task, DataLoader(batches, batch_size=None))
    return trainer


def halves(batch):
    middle = len(batch["image"]) // 2
    return [{name: value[part] for name, value in batch.items()} for part in (slice(middle), slice(middle, None))]


@pytest.mark.parametrize("speed", [BUT_COMPILED, pytest.param(ALL, marks=pytest.mark.slow)])
def test_all_options_together_take_the_same_step(speed):
    plain = make_classifier(optimizer=partial(AdamW, lr=0.01, eps=1e-3))
    fast = make_classifier(speed, optimizer=partial(AdamW, lr=0.01, eps=1e-3, fused=True))
    before = plain.backbone.body.stages[0].blocks[0].mlp.fc1.weight.clone()
    expected = train(plain, [photos(8)]).callback_metrics["train/loss"]
    losses = []
    fast.log_training = lambda own, batch_size: losses.append(own["loss"].detach())
    train(fast, halves(photos(8)), accumulate_grad_batches=2)
    torch.testing.assert_close(torch.stack(losses).mean(), expected)
    assert not torch.equal(plain.backbone.body.stages[0].blocks[0].mlp.fc1.weight, before)
    for (name, own), other in zip(fast.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_fused_optimisers_take_clipped_gradients_in_bf16(algorithm):
    clipping = {"precision": "bf16-mixed", "gradient_clip_val": 0.01, "gradient_clip_algorithm": algorithm}
    plain, fused = (make_classifier(optimizer=partial(SGD, lr=1.0, fused=fused)) for fused in (False, True))
    before = {name: parameter.detach().clone() for name, parameter in plain.named_parameters()}
    for task in (plain, fused):
        train(task, [photos(8)], **clipping)
    for (name, own), other in zip(fused.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own, other, msg=name)
    steps = torch.cat([(parameter - before[name]).flatten() for name, parameter in fused.named_parameters()])
    size = steps.norm() if algorithm == "norm" else steps.abs().max()
    assert float(size) == pytest.approx(0.01, rel=1e-3)


def gradients(task, batch):
    task.log_training = lambda losses, batch_size: None
    task.trainer = Trainer(accelerator="cpu", logger=False)
    task.setup("fit")
    task.training_step(batch, 0).backward()
    return {name: parameter.grad for name, parameter in task.named_parameters()}


def test_segmentation_has_the_same_gradients(make_task):
    generator = torch.Generator().manual_seed(0)
    batch = {"image": photos(2)["image"], "mask": torch.randint(3, (2, 64, 64), generator=generator)}
    torch.testing.assert_close(
        gradients(make_task(speed=BUT_COMPILED), batch), gradients(make_task(), batch), rtol=1e-3, atol=1e-5
    )


def test_detection_has_the_same_gradients(make_detector, detection_batch):
    every = []
    for speed in (PLAIN, BUT_COMPILED):
        task = make_detector(speed=speed)
        torch.manual_seed(0)  # which regions are learnt from
        every.append(gradients(task, detection_batch))
    torch.testing.assert_close(*every, rtol=1e-3, atol=1e-4)


@pytest.fixture
def compiled(monkeypatch):
    """Sizes of the images of each graph that is compiled, and run without being compiled."""
    sizes, run = [], []

    def backend(graph, inputs):
        sizes.append(next(tuple(i.shape) for i in inputs if isinstance(i, torch.Tensor) and i.ndim == 4))

        def call(*args):
            run.append(len(sizes))
            return graph.forward(*args)

        return call

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    torch.compiler.reset()
    yield run
    torch.compiler.reset()


def test_training_is_compiled_and_evaluation_is_not(compiled):
    task = make_classifier(Speed(compile=True), "test_vit")
    task.trainer = Trainer(accelerator="cpu", logger=False)
    task.setup("fit")
    images = torch.randn(2, 3, 160, 160)
    trained = task.train()(images)
    assert compiled
    compiled.clear()
    torch.testing.assert_close(task.eval()(images), trained)
    assert not compiled


def test_padded_batches_are_not_compiled(compiled):
    backbone = TimmBackbone("flatten_pvt_test").train()
    backbone.compile_training()
    backbone(torch.randn(2, 3, 64, 64), [(64, 40), (50, 64)])
    assert not compiled


def test_a_model_that_keeps_all_activations_says_so():
    task = make_classifier(Speed(checkpointing=True), "selecsls42")
    with pytest.raises(ValueError, match=r"--model\.speed\.checkpointing true: timm cannot .* 'selecsls42'"):
        Speed(checkpointing=True).apply(task, task.backbone)


@pytest.mark.parametrize("backbone", ["flatten_pvt_test", "flatten_swin_test", "test_vit", "test_resnet"])
def test_checkpointing_keeps_fewer_activations(backbone):
    kept = []
    for speed in (PLAIN, Speed(checkpointing=True)):
        model = TimmBackbone(backbone).train()
        speed.apply(model, model)
        bytes_kept = 0

        def count(tensor):
            nonlocal bytes_kept
            bytes_kept += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            model(torch.randn(2, 3, 160, 160))
        kept.append(bytes_kept)
    assert kept[1] < 0.8 * kept[0]


def test_channels_last_reaches_weights_and_images():
    task = make_classifier(Speed(channels_last=True), "test_resnet")
    seen = []
    task.backbone.body.conv1.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    train(task, [photos(2)])
    convolutions = [parameter for parameter in task.parameters() if parameter.ndim == 4 and parameter.shape[1] > 1]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in [*convolutions, *seen])


@pytest.mark.parametrize(("first", "second"), [(BUT_COMPILED, PLAIN), (PLAIN, BUT_COMPILED)])
def test_a_checkpoint_does_not_depend_on_the_options(tmp_path, first, second):
    task = make_classifier(first)
    train(task, [photos(2)]).save_checkpoint(tmp_path / "step.ckpt")
    other = make_classifier(second)
    saved = torch.load(tmp_path / "step.ckpt", weights_only=True)["state_dict"]
    other.trainer = Trainer(accelerator="cpu", logger=False)
    other.setup("fit")
    other.load_state_dict(saved)
    torch.testing.assert_close(other.eval()(photos(2)["image"]), task.eval()(photos(2)["image"]))


def test_compiling_leaves_the_names_of_weights():
    task = make_classifier()
    names = set(task.state_dict())
    ALL.apply(task, task.backbone)
    assert set(task.state_dict()) == names
