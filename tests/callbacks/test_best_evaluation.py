from types import SimpleNamespace

import pytest
import torch
from torch import nn

from flatten_dense.callbacks.best_evaluation import BestEvaluation
from flatten_dense.metrics import SegmentationConfusion


def trainer(fn="fit", sanity_checking=False) -> SimpleNamespace:
    return SimpleNamespace(state=SimpleNamespace(fn=fn), sanity_checking=sanity_checking)


def scores(prediction, truth):
    confusion = SegmentationConfusion(3)
    confusion.update(torch.tensor(prediction), torch.tensor(truth))
    return confusion.compute()


GOOD, BAD, UNLABELLED = scores([0, 1, 1], [0, 1, 1]), scores([1, 0, 0], [0, 1, 1]), scores([0], [255])


class Recorder(BestEvaluation):
    def __init__(self):
        super().__init__(lambda: self.current)
        self.written = []

    def write(self, trainer, pl_module, scores):
        self.written.append(scores.mIoU)

    def after(self, hook, current, **facts):
        self.current = current
        getattr(self, hook)(trainer(**facts), nn.Linear(1, 1))


def test_a_fit_writes_about_each_best_validation():
    recorder = Recorder()
    for current in (UNLABELLED, BAD, GOOD, BAD, GOOD):
        recorder.after("on_validation_end", current)
    assert recorder.written == [BAD.mIoU, GOOD.mIoU]


@pytest.mark.parametrize(("hook", "fn"), [("on_validation_end", "validate"), ("on_test_end", "test")])
def test_other_evaluations_are_always_written_about(hook, fn):
    recorder = Recorder()
    recorder.after(hook, GOOD, fn=fn)
    recorder.after(hook, BAD, fn=fn)
    assert recorder.written == [GOOD.mIoU, BAD.mIoU]


def test_a_resumed_run_remembers_the_best():
    recorder, resumed = Recorder(), Recorder()
    recorder.after("on_validation_end", GOOD)
    resumed.load_state_dict(recorder.state_dict())
    resumed.after("on_validation_end", BAD)
    assert resumed.written == []


def test_another_run_begins_without_a_best():
    recorder, other = Recorder(), Recorder()
    recorder.after("on_validation_end", GOOD)
    other.goes_on = False
    other.load_state_dict(recorder.state_dict())
    other.after("on_validation_end", BAD)
    assert other.written == [BAD.mIoU]


def test_sanity_check_is_no_validation():
    recorder = Recorder()
    recorder.after("on_validation_end", GOOD, sanity_checking=True)
    assert recorder.written == []


def test_evaluations_are_compared_by_their_main_score():
    recorder = Recorder()
    for main in (0.2, 0.1, 0.3):
        recorder.after("on_validation_end", SimpleNamespace(main=main, mIoU=-main))
    assert recorder.written == [-0.2, -0.3]
