import pytest
import torch

from flatten_dense.structures import InputFormat, Normalization


def test_normalization_is_undone():
    normalization = Normalization()
    photo = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).repeat(3, 1, 1)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (normalization.mean, normalization.std))
    assert torch.equal(normalization.undo((photo / 255 - mean) / std), photo)


@pytest.mark.parametrize("scale", [None, (512, 256)])
def test_input_format_survives_plain_types(scale):
    given = InputFormat(scale, Normalization((0.5, 0.4, 0.3), (0.1, 0.2, 0.3)), "squash", (224, 200), "bicubic")
    assert InputFormat.from_dict(given.to_dict()) == given


def test_the_input_format_of_an_older_checkpoint_is_read():
    values = {"scale": [512, 256], "normalization": Normalization().to_dict()}
    assert InputFormat.from_dict(values) == InputFormat((512, 256))
