import pytest
import torch

from flatten_dense.layers import (
    Block,
    FocusedLinearAttention,
    FusedAttention,
    LocallyEnhancedAttention,
    Mlp,
    SoftmaxAttention,
    SwinWindowAttention,
    TokenGrid,
    WindowedAttention,
)
from flatten_dense.layers.windows import WindowLayout

C, G = 8, 2


def randomised(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return module.double()


def in_core(weights, *names):
    return {f"core.{name}" if name.split(".")[0] in names else name: tensor for name, tensor in weights.items()}


def test_swin_window_equals_official(golden_op):
    golden = golden_op("softmax_swin_w7")
    attention = FusedAttention(64, SwinWindowAttention(SoftmaxAttention(64, 4), 4, 7)).double()
    attention.load_state_dict(in_core(golden.weights, "relative_position_bias_table"))
    torch.testing.assert_close(attention(golden.x, TokenGrid((7, 7))), golden.y, rtol=0, atol=1e-10)


def test_shifted_swin_block_equals_official(golden_op):
    golden = golden_op("block_swin_S_14_w7_s3")
    attention = FusedAttention(64, SwinWindowAttention(SoftmaxAttention(64, 4), 4, 7, shifted=True))
    block = Block(64, attention, Mlp(64, 256), drop_path=0.0, norm_eps=1e-5).double()
    block.load_state_dict({n.replace("attn.rel", "attn.core.rel"): t for n, t in golden.weights.items()})
    torch.testing.assert_close(block(golden.x, TokenGrid((14, 14))), golden.y, rtol=0, atol=1e-10)


def test_vertical_stripe_equals_official(golden_op):
    golden = golden_op("lepe_cswin_idx0_res8_split2")
    stripes = WindowedAttention(LocallyEnhancedAttention(SoftmaxAttention(64, 4), 64), (None, 2)).double()
    stripes.load_state_dict({name.replace("get_v", "core.lepe"): t for name, t in golden.weights.items()})
    torch.testing.assert_close(stripes(*golden.x, (8, 8), (8, 8)), golden.y, rtol=0, atol=1e-10)


def test_linear_cswin_core_equals_official(golden_op):
    golden = golden_op("cswin_idx-1_res7_split7")
    core = LocallyEnhancedAttention(FocusedLinearAttention(64, 4, (7, 7)), 64).double()
    own = in_core(golden.weights, "scale", "positional_encoding", "dwc")
    core.load_state_dict({name.replace("get_v", "lepe"): tensor for name, tensor in own.items()})
    torch.testing.assert_close(core(*golden.x, (7, 7), (7, 7)), golden.y, rtol=0, atol=1e-10)


def places(size, window, shifted):
    """For each token of a map its window, its place in the window, and the side of the map it was shifted from."""
    found = {}
    for row in range(size[0]):
        for column in range(size[1]):
            where, place, crossed = [], [], []
            for position, side in ((row, size[0]), (column, size[1])):
                length = min(window, side)
                shift = length // 2 if shifted and side > window else 0
                padded = -(-side // length) * length
                moved = (position - shift) % padded
                where.append(moved // length)
                place.append(moved % length)
                crossed.append(position < shift)
            found[row * size[1] + column] = tuple(where), tuple(place), tuple(crossed)
    return found


def naive_swin(attention, q, k, v, size):
    """Softmax attention token by token, over those of the same window from the same side of the map."""
    side = attention.window_size[0]
    where = places(size, side, attention.shifted)
    out = torch.zeros_like(q)
    for i, (window, (row, column), crossed) in where.items():
        keys = [j for j, other in where.items() if (other[0], other[2]) == (window, crossed)]
        for head in range(G):
            part = slice(head * C // G, (head + 1) * C // G)
            scores = []
            for j in keys:
                offset = (row - where[j][1][0] + side - 1) * (2 * side - 1) + column - where[j][1][1] + side - 1
                bias = attention.relative_position_bias_table[offset, head]
                scores.append(q[0, i, part] @ k[0, j, part] * (C // G) ** -0.5 + bias)
            out[0, i, part] = torch.stack(scores).softmax(0) @ v[0, keys, part]
    return out


SIZES = [(6, 6), (7, 5), (3, 8), (2, 7), (2, 2), (1, 9)]


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_swin_windows_equal_the_naive_form(size, shifted):
    attention = randomised(SwinWindowAttention(SoftmaxAttention(C, G), G, 3, shifted))
    q, k, v = torch.randn(3, 1, size[0] * size[1], C).double()
    torch.testing.assert_close(attention(q, k, v, size, size), naive_swin(attention, q, k, v, size))


def naive_linear(attention, q, k, v, size):
    """Each window gathered token by token, then the core with a mask for the places that stay empty."""
    side = attention.window_size[0]
    where = places(size, side, attention.shifted)
    frame = (min(side, size[0]), min(side, size[1]))
    out = torch.zeros_like(q)
    for window in {window for window, _, _ in where.values()}:
        tokens = {place: i for i, (w, place, _) in where.items() if w == window}
        cells = [(row, column) for row in range(frame[0]) for column in range(frame[1])]
        gathered = [torch.zeros(1, len(cells), C).double() for _ in range(3)]
        for cell, place in enumerate(cells):
            if place in tokens:
                for target, source in zip(gathered, (q, k, v), strict=True):
                    target[:, cell] = source[:, tokens[place]]
        mask = torch.tensor([[place not in tokens for place in cells]])
        result = attention.core(*gathered, frame, frame, mask)
        for cell, place in enumerate(cells):
            if place in tokens:
                out[:, tokens[place]] = result[:, cell]
    return out


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_linear_windows_equal_the_naive_form(size, shifted):
    attention = randomised(WindowedAttention(FocusedLinearAttention(C, G, (3, 3)), (3, 3), shifted))
    q, k, v = torch.randn(3, 1, size[0] * size[1], C).double()
    torch.testing.assert_close(attention(q, k, v, size, size), naive_linear(attention, q, k, v, size))


@pytest.mark.parametrize("axis", [0, 1])
def test_a_stripe_spans_the_map(axis):
    attention = WindowedAttention(SoftmaxAttention(C, G), (None, 2) if axis == 0 else (2, None))
    size = (5, 7)
    q, k, v = torch.randn(3, 1, 35, C)
    got = attention(q, k, v, size, size)
    rows, columns = torch.arange(35) // 7, torch.arange(35) % 7
    stripe = (columns if axis == 0 else rows) // 2
    bias = torch.where(stripe[:, None] == stripe[None, :], 0.0, float("-inf")).view(1, 1, 35, 35)
    torch.testing.assert_close(got, attention.core(q, k, v, size, size, attn_bias=bias))


CORES = {
    "swin": lambda: SwinWindowAttention(SoftmaxAttention(C, G), G, 3, shifted=True),
    "linear": lambda: WindowedAttention(FocusedLinearAttention(C, G, (3, 3)), (3, 3), shifted=True),
    "stripes": lambda: WindowedAttention(LocallyEnhancedAttention(SoftmaxAttention(C, G), C), (None, 2)),
}


@pytest.mark.parametrize("kind", CORES)
def test_an_image_of_a_padded_batch_attends_as_if_alone(kind):
    attention = randomised(CORES[kind]())
    own_sizes = [(2, 7), (8, 4), (8, 3), (5, 5)]
    maps = torch.randn(3, 4, 9, 7, C).double()
    got = attention(*maps.flatten(2, 3), (9, 7), (9, 7), own_sizes=own_sizes).view(4, 9, 7, C)
    for i, (height, width) in enumerate(own_sizes):
        qkv = maps[:, i : i + 1, :height, :width].flatten(2, 3)
        alone = attention(*qkv, (height, width), (height, width)).view(height, width, C)
        torch.testing.assert_close(got[i, :height, :width], alone)
        assert not got[i, height:].any()
        assert not got[i, :, width:].any()


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("own_sizes", [None, [(4, 9), (7, 2)]])
def test_windows_join_to_the_map_they_were_cut_from(own_sizes, shifted):
    layout = WindowLayout((7, 9), own_sizes, (3, 3), shifted)
    x = torch.randn(2, 63, 5)
    expected = TokenGrid.of(torch.zeros(2, 1, 7, 9), own_sizes)
    expected = expected.to_tokens(expected.clear(expected.to_map(x)))
    assert torch.equal(layout.join(layout.split(x), 2), expected)


def test_whole_windows_without_shift_need_no_mask():
    assert not WindowLayout((6, 9), None, (3, 3), False).is_mixed
    assert WindowLayout((6, 9), None, (3, 3), True).is_mixed
    assert WindowLayout((6, 8), None, (3, 3), False).is_padded


def test_keys_on_another_grid_are_refused():
    attention = CORES["linear"]()
    q, k = torch.randn(1, 36, C), torch.randn(1, 9, C)
    with pytest.raises(ValueError, match=r"\(6, 6\) and \(3, 3\)"):
        attention(q, k, k, (6, 6), (3, 3))


@pytest.mark.parametrize(
    "argument",
    [{"attn_bias": torch.zeros(1, 1, 36, 36)}, {"key_padding_mask": torch.zeros(1, 36, dtype=torch.bool)}],
    ids=["bias", "mask"],
)
def test_what_windows_cannot_honour_is_refused(argument):
    q = torch.randn(1, 36, C)
    with pytest.raises(ValueError, match="windows take no attn_bias"):
        CORES["linear"]()(q, q, q, (6, 6), (6, 6), **argument)


def test_softmax_gradients_reach_the_bias_table_and_are_finite_on_padded_shifted_windows():
    attention = randomised(SwinWindowAttention(SoftmaxAttention(C, G), G, 3, shifted=True))
    q, k, v = torch.randn(3, 2, 35, C).double().requires_grad_()
    attention(q, k, v, (5, 7), (5, 7)).square().sum().backward()
    assert attention.relative_position_bias_table.grad.isfinite().all()
    assert attention.relative_position_bias_table.grad.abs().sum() > 0


def test_padding_holds_zeros():
    windows = WindowLayout((4, 4), None, (3, 3), False).split(torch.ones(1, 16, 1))
    assert windows.shape == (4, 9, 1)
    assert windows.sum(dim=(1, 2)).tolist() == [9, 3, 3, 1]


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (6, 6), (7, 11), (12, 5)])
@pytest.mark.parametrize("window", [(3, 3), (None, 2), (4, None), (5, 2)])
@pytest.mark.parametrize("shifted", [False, True])
def test_indices_do_what_cutting_does(size, window, shifted):
    layout = WindowLayout(size, None, window, shifted)
    x = torch.randn(2, size[0] * size[1], 3)
    windows = layout.split(x)
    of_windows, of_map = layout.places(x.device)
    filled = layout.split(torch.ones(2, *x.shape[1:2], 1)).bool()
    assert torch.equal(x[:, of_windows].view_as(windows) * filled, windows)
    assert torch.equal(windows.reshape(2, -1, 3)[:, of_map], layout.join(windows, 2))
