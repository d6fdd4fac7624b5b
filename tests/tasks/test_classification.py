import pytest
import torch
import torch.nn.functional as F

from flatten_dense.backbones import TimmClassifier
from flatten_dense.data.transforms import EvalTransform
from flatten_dense.structures import ClassLabels, InputFormat
from flatten_dense.tasks.classification import ClassificationTask, Mixing


@pytest.fixture
def make_classifier():
    def make(num_classes: int = 3, seed: int = 0, **options) -> ClassificationTask:
        torch.manual_seed(seed)
        labels = ClassLabels(tuple(f"class {index}" for index in range(num_classes)))
        task = ClassificationTask(**{"backbone": TimmClassifier("flatten_pvt_test"), "labels": labels, **options})
        task.log_training = lambda losses, batch_size: None  # needs a trainer
        return task

    return make


def batch(size=4):
    generator = torch.Generator().manual_seed(0)
    return {"image": torch.randn(size, 3, 64, 64, generator=generator), "label": torch.arange(size) % 3}


def test_the_loss_is_the_smoothed_cross_entropy(make_classifier):
    task = make_classifier(mixing=None, label_smoothing=0.1).eval()
    own = batch()
    logits = task(own["image"]).log_softmax(1)
    target = torch.full((4, 3), 0.1 / 3).scatter(1, own["label"][:, None], 0.9 + 0.1 / 3)
    torch.testing.assert_close(task.training_step(own, 0), -(target * logits).sum(1).mean())


def test_mixed_images_have_mixed_targets(make_classifier, monkeypatch):
    task = make_classifier(mixing=Mixing(cutmix=0.0), label_smoothing=0.0).eval()
    monkeypatch.setattr("numpy.random.beta", lambda *_: 0.25)
    own = batch()
    mixed = 0.25 * own["image"] + 0.75 * own["image"].flip(0)
    losses = [F.cross_entropy(task(mixed), label) for label in (own["label"], own["label"].flip(0))]
    loss = task.training_step({name: tensor.clone() for name, tensor in own.items()}, 0)
    torch.testing.assert_close(loss, 0.25 * losses[0] + 0.75 * losses[1])


def test_the_published_mixing_is_the_default(make_classifier):
    mixup = make_classifier().mixup
    assert (mixup.mixup_alpha, mixup.cutmix_alpha, mixup.mix_prob, mixup.switch_prob) == (0.8, 1.0, 1.0, 0.5)
    assert (mixup.mode, mixup.label_smoothing, mixup.num_classes) == ("batch", 0.1, 3)


def test_an_odd_batch_cannot_be_mixed(make_classifier):
    with pytest.raises(ValueError, match="in pairs, but a training batch holds 3: make --data"):
        make_classifier().training_step(batch(3), 0)


def test_every_parameter_learns(make_classifier):
    task = make_classifier()
    task.training_step(batch(), 0).backward()
    assert [name for name, parameter in task.named_parameters() if parameter.grad is None] == []


def test_it_learns_a_batch_by_heart(make_classifier):
    task = make_classifier(mixing=None, label_smoothing=0.0)
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        task.training_step(batch(), 0).backward()
        optimizer.step()
    assert task.eval()(batch()["image"]).argmax(1).tolist() == [0, 1, 2, 0]


def test_validation_counts_each_image(make_classifier):
    task = make_classifier().eval()
    own = batch(6)
    probabilities = task.validation_step(own, 0)["probabilities"]
    scores = task.confusion.compute()
    assert scores.top1 == (probabilities.argmax(1) == own["label"]).double().mean()
    torch.testing.assert_close(probabilities.sum(1), torch.ones(6))


def test_photos_of_several_sizes_are_predicted_one_by_one(make_classifier):
    task = make_classifier().eval()
    images = [torch.randn(3, 64, 64), torch.randn(3, 64, 96)]
    predicted = task.predict_step({"image": images}, 0)
    for image, probabilities in zip(images, predicted, strict=True):
        torch.testing.assert_close(probabilities, task(image[None]).softmax(1)[0])


def test_classify_takes_a_photo_as_it_is_read(make_classifier):
    input_format = InputFormat((80, 80), resize="squash", crop=(64, 64), interpolation="bicubic")
    task = make_classifier(input_format=input_format).eval()
    photo = torch.randint(0, 256, (3, 90, 70), dtype=torch.uint8)
    expected = task(EvalTransform(input_format)(photo)[None]).softmax(1)[0]
    torch.testing.assert_close(task.classify(photo), expected)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing must be from 0 to below 1"),
        ({"mixing": Mixing(mixup=-1)}, "mixing.mixup must not be negative"),
        ({"mixing": Mixing(switch=2)}, "mixing.switch must be from 0 to 1"),
    ],
)
def test_faulty_options_are_named(make_classifier, options, reason):
    with pytest.raises(ValueError, match=reason):
        make_classifier(**options)
