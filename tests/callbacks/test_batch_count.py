import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import Dataset

from flatten_dense.callbacks import DueValidation, LastCheckpoint, RandomStates, Resumption
from flatten_dense.data.base import BaseDataModule
from flatten_dense.structures import InputFormat, LabelSpace, Normalization, default_palette

IMAGES, EPOCHS = 24, 3


class Numbers(Dataset):
    def __len__(self):
        return IMAGES

    def __getitem__(self, index):
        return {"image": torch.tensor(float(index))}


class NumbersDataModule(BaseDataModule):
    def __init__(self, batch_size):
        super().__init__(InputFormat(None, Normalization()), batch_size, 8, 0)

    def make_labels(self):
        return LabelSpace(("cat",), default_palette(1))

    def make_dataset(self, split):
        return Numbers()


class Stop(Exception):
    pass


class Net(LightningModule):
    """Notes the images of each epoch, where steps and validations are, and is stopped at one of those."""

    def __init__(self, before=None, in_validation=None):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.before, self.in_validation = before, in_validation
        self.images = [[] for _ in range(EPOCHS)]
        self.losses, self.logged, self.validated = {}, [], []

    def training_step(self, batch, index):
        if (self.current_epoch, index) == self.before:
            raise Stop
        self.images[self.current_epoch] += batch["image"].int().tolist()
        loss = (self.weight - batch["image"]).square().mean()
        self.losses[self.trainer.fit_loop.total_batch_idx] = float(loss)
        return loss

    def on_train_batch_end(self, *_):
        self.logged.append((self.trainer.fit_loop.epoch_loop._batches_that_stepped, self.global_step))

    def validation_step(self, batch, index):
        if index == 0:
            self.validated.append((self.current_epoch, self.global_step))
        if self.global_step == self.in_validation:
            raise Stop
        self.log("score", float(self.global_step), batch_size=1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


@pytest.fixture
def fit(tmp_path):
    """Trains three epochs of 24 images."""

    def train(net, batch_size, ckpt_path=None, accumulated=1, **options):
        best = ModelCheckpoint(tmp_path, "best", monitor="score", mode="max", enable_version_counter=False)
        trainer = Trainer(
            callbacks=[RandomStates(), Resumption(), DueValidation(), best, LastCheckpoint(tmp_path / "last.ckpt", 1)],
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            accumulate_grad_batches=accumulated,
            max_epochs=EPOCHS,
            **options,
        )
        trainer.fit(net, datamodule=NumbersDataModule(batch_size), ckpt_path=ckpt_path)
        return net

    return train


def stop(fit, *args, before=None, in_validation=None, **options):
    net = Net(before, in_validation)
    with pytest.raises(Stop):
        fit(net, *args, **options)
    return net


@pytest.mark.parametrize("is_endless", [False, True])
@pytest.mark.parametrize(("was", "now"), [(2, 4), (4, 2), (2, 6), (6, 2), (3, 4)])
@pytest.mark.parametrize("batches", [4, 8])
def test_each_image_comes_once_in_an_epoch(fit, tmp_path, was, now, batches, is_endless):
    # Lightning treats runs with and without max_steps differently.
    options = {"max_steps": 1000} if is_endless else {}
    batches = min(batches, IMAGES // was - 1)
    first = stop(fit, was, before=(1, batches), **options)
    second = fit(Net(), now, tmp_path / "last.ckpt", **options)
    again = batches * was % now
    learnt = first.images[1] + second.images[1]
    assert sorted(first.images[1][: len(first.images[1]) - again] + second.images[1]) == list(range(IMAGES))
    assert len(learnt) == IMAGES + again
    assert (second.images[0], sorted(second.images[2])) == ([], list(range(IMAGES)))
    assert [epoch for epoch, _ in second.validated] == [1, 2]


@pytest.mark.parametrize("options", [{}, {"max_steps": 1000}])
@pytest.mark.parametrize(("was", "now"), [(2, 3), (3, 2), (4, 3)])
@pytest.mark.parametrize("at", ["in its validation", "after it"])
def test_at_the_end_of_an_epoch_the_next_one_is_whole(fit, tmp_path, was, now, at, options):
    steps = IMAGES // was
    where = {"in_validation": steps} if at == "in its validation" else {"before": (1, 0)}
    first = stop(fit, was, **where, **options)
    second = fit(Net(), now, tmp_path / "last.ckpt", **options)
    assert [sorted(images) for images in second.images] == [[], list(range(IMAGES)), list(range(IMAGES))]
    done = first.validated if at == "after it" else []
    assert [epoch for epoch, _ in done + second.validated] == [0, 1, 2]


def test_after_an_epoch_of_a_limited_number_of_batches_the_validation_comes(fit, tmp_path):
    stop(fit, 2, in_validation=5, limit_train_batches=5)
    second = fit(Net(), 2, tmp_path / "last.ckpt", limit_train_batches=5)
    assert second.validated == [(0, 5), (1, 10), (2, 15)]


@pytest.mark.parametrize("check_every", [1, None])
@pytest.mark.parametrize(
    ("accumulated", "interval", "saved_after", "begins"), [(2, 3, 3, 2), (2, 5, 5, 4), (3, 2, 4, 3)]
)
def test_the_best_checkpoint_may_lie_between_two_steps(
    fit, tmp_path, accumulated, interval, saved_after, begins, check_every
):
    options = {"accumulated": accumulated, "val_check_interval": interval, "check_val_every_n_epoch": check_every}
    whole = fit(Net(), 2, **options)
    stop(fit, 2, before=(0, saved_after), **options)
    second = fit(Net(), 2, tmp_path / "best.ckpt", **options)
    assert second.losses == {batch: loss for batch, loss in whole.losses.items() if batch >= begins}
    assert second.logged == whole.logged[begins:]


def test_steps_are_whole_with_another_accumulation(fit, tmp_path):
    stop(fit, 2, before=(0, 6), accumulated=2)
    second = fit(Net(), 2, tmp_path / "last.ckpt", accumulated=4)
    # Of 6 batches 4 make a step; the epoch has 12.
    assert len(second.images[0]) == 2 * 8
    assert [step for _, step in second.logged[:9]] == [3, 3, 3, 4, 4, 4, 4, 5, 5]


def test_nothing_is_trained_beyond_max_steps(fit, tmp_path):
    options = {"max_steps": 12, "val_check_interval": 4}
    stop(fit, 2, in_validation=12, **options)
    second = fit(Net(), 3, tmp_path / "last.ckpt", **options)
    assert second.losses == {}
    assert [step for _, step in second.validated] == [12]
