from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn

from flatten_dense.callbacks import PredictionPlotter
from flatten_dense.structures import InputFormat, LabelSpace, default_palette

LABELS = LabelSpace(("a", "b", "c"), default_palette(3), reduce_zero_label=True)


def trainer(**facts) -> SimpleNamespace:
    defaults = {"is_global_zero": True, "sanity_checking": False, "global_step": 7, "loggers": []}
    return SimpleNamespace(state=SimpleNamespace(fn="fit"), **{**defaults, **facts})


@pytest.mark.parametrize(("num_batches", "expected"), [(3, [0, 1, 2]), (12, [0, 2, 4, 6, 8, 10]), (6, list(range(6)))])
def test_plotted_images_are_spread_over_the_set(tmp_path, num_batches, expected):
    plotter = PredictionPlotter(tmp_path, LABELS, InputFormat(), num_images=6)
    for index in range(num_batches):
        mask = torch.zeros(4, 6, dtype=torch.int64)
        batch = {"image": [torch.zeros(3, 4, 6)], "mask": [mask], "path": [f"{index}.jpg"]}
        plotter.on_validation_batch_end(
            trainer(num_val_batches=[num_batches]), nn.Linear(1, 1), {"masks": [mask]}, batch, index
        )
    assert [row[-1] for row in plotter._samples] == [f"{index}.jpg" for index in expected]
    plotter.on_validation_end(trainer(), nn.Linear(1, 1))
    assert Image.open(tmp_path / "validation_step_000007.png").width > 0
