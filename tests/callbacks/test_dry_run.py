import math
import resource
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.loggers.logger import DummyLogger

from flatten_dense.callbacks.dry_run import DryRunMeter, NonFiniteTrialError, describe_batch
from flatten_dense.data.base import BaseDataModule
from flatten_dense.data.trial import TrialData
from flatten_dense.structures import InputFormat


class Clock:
    """Stands still but for what is known to take time."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def perf_counter(self) -> float:
        return self.seconds


CLOCK = Clock()


@pytest.fixture(autouse=True)
def _exact_times(monkeypatch):
    for module in ("callbacks.dry_run", "data.trial"):
        monkeypatch.setattr(f"flatten_dense.{module}.time", SimpleNamespace(perf_counter=CLOCK.perf_counter))


class Photos(torch.utils.data.Dataset):
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __len__(self):
        return 6

    def __getitem__(self, index):
        CLOCK.sleep(self.seconds)
        return {"image": torch.full((3, 4, 8), float(index))}


class Data(BaseDataModule):
    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__(InputFormat(), batch_size=2, eval_batch_size=1, num_workers=0)
        self.datasets = {"train": Photos(seconds), "val": Photos(0)}

    def make_labels(self):
        raise NotImplementedError

    def make_dataset(self, split):
        raise NotImplementedError


class Step(LightningModule):
    """A step that takes a known time and has a loss of a known value."""

    def __init__(self, seconds: float = 0.02, wrong_at: int = -1) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seconds, self.wrong_at, self.seen = seconds, wrong_at, 0

    def training_step(self, batch, batch_idx):
        CLOCK.sleep(self.seconds)
        value = math.inf if self.seen == self.wrong_at else 2.0
        self.seen += 1
        self.log_dict({"train/loss": value, "train/lr": 0.1})
        return self.weight + value

    def validation_step(self, batch, batch_idx):
        CLOCK.sleep(self.seconds)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def measure(step, data=None, **options):
    trial = TrialData(data or Data())
    meter = DryRunMeter(trial)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    own = {"log_every_n_steps": 1, "check_val_every_n_epoch": None, "val_check_interval": 10**6, "max_steps": 100}
    options = {**quiet, **own, "accelerator": "cpu", "logger": DummyLogger(), "callbacks": [meter], **options}
    Trainer(num_sanity_val_steps=0, **options).fit(step, datamodule=trial)
    return meter.measurements


def test_time_of_a_batch_and_share_of_waiting():
    # Two samples of 10 ms are loaded for each step of 20 ms.
    measured = measure(Step(0.02), Data(0.01))
    assert measured.seconds_per_batch == pytest.approx(0.04)
    assert measured.waiting == pytest.approx(0.5)
    assert measured.evaluation_seconds == pytest.approx(0.02)


def test_slow_batches_end_it_early():
    step = Step(50)  # of at most two minutes
    assert measure(step).seconds_per_batch == pytest.approx(50)
    assert step.seen == 5


def test_the_length_of_the_training_is_that_of_the_real_one():
    measured = measure(Step(), max_steps=-1, max_epochs=20, accumulate_grad_batches=2)
    assert (measured.batches_per_epoch, measured.total_steps) == (3, 40)


def test_it_ends_after_whole_steps():
    step = Step()
    measure(step, accumulate_grad_batches=4)
    assert step.seen == 1 + 3 + 12 + 1  # the heaviest, warm-up, 10 batches rounded up to steps of 4, the heaviest


@pytest.mark.parametrize("max_steps", [1, 2, 3])
def test_a_training_of_a_few_steps_is_measured_too(max_steps):
    step = Step(0.02)
    assert measure(step, max_steps=max_steps).seconds_per_batch == pytest.approx(0.02)
    assert step.seen == max_steps


def test_the_loss_is_named_without_the_learning_rate():
    assert measure(Step()).losses == {"loss": 2.0}


@pytest.mark.parametrize(
    ("batch", "words"), [(0, "training batch 1 .the heaviest one.\\."), (4, "training batch 5\\.")]
)
def test_a_loss_that_is_not_finite_ends_it(batch, words):
    with pytest.raises(NonFiniteTrialError, match=f"--dry-run: loss is inf at {words}"):
        measure(Step(wrong_at=batch))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_the_process_grows_with_what_a_step_needs():
    page = resource.getpagesize()
    now, most = int(Path("/proc/self/statm").read_text().split()[1]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    freed = max(0, most * 1024 - now * page)  # other tests have needed more before

    class Large(Step):
        def training_step(self, batch, batch_idx):
            torch.ones(freed + 2**29, dtype=torch.uint8)
            return super().training_step(batch, batch_idx)

    memory = measure(Large()).memory
    assert memory.peak - memory.resting > 2**28


def test_a_batch_in_words():
    assert describe_batch({"image": torch.zeros(2, 3, 4, 8)}) == "2 images of 4 x 8 pixels"
    objects = [{"labels": torch.zeros(3)}, {"labels": torch.zeros(4)}]
    images = [torch.zeros(3, 4, 8), torch.zeros(3, 9, 5)]
    assert describe_batch({"image": images, "target": objects}) == "2 images of 9 x 8 pixels once padded, 7 objects"
