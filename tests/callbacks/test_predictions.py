import math
from types import SimpleNamespace

import torch
from PIL import Image
from torch import nn

from flatten_dense.callbacks import PredictionWriter
from flatten_dense.structures import LabelSpace, default_palette

LABELS = LabelSpace(("a", "b", "c"), default_palette(3), reduce_zero_label=True)


def trainer(**facts) -> SimpleNamespace:
    defaults = {"is_global_zero": True, "sanity_checking": False, "global_step": 7, "loggers": []}
    return SimpleNamespace(state=SimpleNamespace(fn="fit"), **{**defaults, **facts})


def test_written_masks_hold_the_values_of_the_data_set(tmp_path):
    writer = PredictionWriter(tmp_path / "out", LABELS)
    white = torch.full((3, 1, 3), 255, dtype=torch.uint8)
    batch = {"photo": [white], "name": ["photo"], "large": [], "large_name": [], "failed": []}
    writer.on_predict_batch_end(trainer(), nn.Linear(1, 1), [torch.tensor([[0, 1, 2]])], batch, 0)
    assert list(Image.open(tmp_path / "out/masks/photo.png").tobytes()) == [1, 2, 3]
    drawn = Image.open(tmp_path / "out/overlays/photo.png")
    assert (drawn.size, drawn.mode) == ((3, 1), "RGB")
    assert not any(math.isclose(sum(drawn.getpixel((x, 0))), 3 * 255) for x in range(3))
