import pytest
import torch

from flatten_dense.backbones.weights.apply import checked_report, write_values


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (torch.tensor([1.0, torch.nan]), "b holds numbers that are not finite"),
        (torch.tensor([1, 2]), "b holds torch.int64, expected floating numbers"),
    ],
)
def test_nothing_is_written_if_one_value_is_unsound(value, reason):
    tensors = {"a": torch.zeros(2), "b": torch.zeros(2)}
    with pytest.raises(ValueError, match=reason):
        write_values("file", tensors, {"a": torch.ones(2), "b": value})
    assert torch.equal(tensors["a"], torch.zeros(2))


def test_values_take_the_type_of_the_model():
    tensors = {"a": torch.zeros(2, dtype=torch.float64)}
    write_values("file", tensors, {"a": torch.tensor([1.0, 2.0])})
    assert tensors["a"].tolist() == [1, 2]
    assert tensors["a"].dtype == torch.float64


def test_misfits_tell_another_model():
    with pytest.raises(ValueError, match="holds another model than this Swin: its a is larger; 1 more such"):
        checked_report("file", "Swin", [], ["its a is larger", "its b too"], (1.0, 1.0), 0.8)
