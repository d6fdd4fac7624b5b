import torch
from torch.autograd import forward_ad

from flatten_dense.ops.tracing import needs_composite


class Seen(torch.nn.Module):
    """Keeps what was said while it ran."""

    def forward(self, x):
        self.said = needs_composite()
        return 2 * x


def test_not_when_run_as_it_is():
    assert not needs_composite()


def test_not_when_compiled():
    torch.compiler.reset()
    module = Seen()
    torch.compile(module, backend="eager", fullgraph=True)(torch.ones(2))
    assert module.said is False


def test_exported():
    class Branching(torch.nn.Module):
        def forward(self, x):
            return x + 1 if needs_composite() else x - 1

    exported = torch.export.export(Branching(), (torch.ones(2),)).module()
    assert exported(torch.ones(2)).tolist() == [2, 2]


def test_traced():
    module = Seen()
    torch.jit.trace(module, torch.ones(2), check_trace=False)
    assert module.said


def test_under_transforms_and_forward_mode():
    module = Seen()
    torch.vmap(module)(torch.ones(2))
    assert module.said
    with forward_ad.dual_level():
        module(torch.ones(2))
    assert module.said
    module(torch.ones(2))
    assert not module.said
