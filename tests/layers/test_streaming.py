import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from flatten_dense.layers import streaming
from flatten_dense.layers.streaming import add_over, computes_as, may_stream, rows_per_piece


@pytest.fixture
def module():
    return nn.Sequential(nn.Linear(2, 2), nn.ReLU()).eval()


def test_streams_where_no_gradient_is_wanted(module):
    assert not may_stream(module)
    with torch.no_grad():
        assert may_stream(module)
        assert not may_stream(module.train())


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_a_hook_on_any_part_sees_whole_tensors(module, register):
    handle = getattr(module[0], register)(lambda *_: None)
    with torch.no_grad():
        assert not may_stream(module)
        handle.remove()
        assert may_stream(module)


def test_a_hook_on_all_modules_sees_whole_tensors(module):
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
    with torch.no_grad():
        assert not may_stream(module)
        handle.remove()
        assert may_stream(module)


def test_a_forward_that_somebody_put_on_a_part_is_called(module):
    module[0].forward = lambda x: x
    with torch.no_grad():
        assert not may_stream(module)


def test_a_subclass_computes_the_same_unless_it_has_a_forward_of_its_own():
    same = type("Same", (nn.Linear,), {})(2, 2)
    other = type("Other", (nn.Linear,), {"forward": lambda self, x: x})(2, 2)
    assert computes_as(same, nn.ReLU, nn.Linear)
    assert not computes_as(other, nn.ReLU, nn.Linear)
    assert not computes_as(nn.ReLU(), nn.Linear)


def test_a_recorded_program_does_not_stream(module):
    asked = []

    class Asks(nn.Module):
        def forward(self, x):
            asked.append(may_stream(module))
            return x + 1

    with torch.no_grad():
        torch.export.export(Asks(), (torch.ones(2),))
    assert asked
    assert not any(asked)


@pytest.mark.parametrize("record", [torch.jit.trace, lambda program, x: torch.vmap(program)(x)], ids=["trace", "vmap"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_traced_or_transformed_program_does_not_stream(module, record):
    asked = []

    def program(x):
        asked.append(may_stream(module))
        return x + 1

    with torch.no_grad():
        record(program, torch.ones(2))
    assert not asked[0]  # torch.jit.trace runs the program a second time, to compare


def test_a_counted_program_does_not_stream(module):
    with torch.no_grad(), FlopCounterMode(display=False):
        assert not may_stream(module)


def test_pieces_hold_a_bounded_number_of_hidden_values(monkeypatch):
    monkeypatch.setattr(streaming, "PIECE_ON_CPU", 100)
    monkeypatch.setattr(streaming, "PIECE_PER_THREAD", 0)
    assert rows_per_piece(30, torch.device("cpu")) == 3
    assert rows_per_piece(1000, torch.device("cpu")) == 1
    assert rows_per_piece(30, torch.device("meta")) > 1000


def test_the_sum_takes_the_memory_of_the_first():
    own, x = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    assert add_over(own, x) is own
    assert own.tolist() == [4, 6]


@pytest.mark.parametrize("own", [torch.ones(3, 2).t(), torch.ones(2, 3, dtype=torch.bfloat16)])
def test_the_sum_is_as_wide_as_both_and_contiguous(own):
    total = add_over(own, torch.full((2, 3), 1e-3))
    assert total.is_contiguous()
    assert torch.equal(total, torch.full((2, 3), 1.001))
