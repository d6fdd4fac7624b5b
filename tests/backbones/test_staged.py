"""timm's contract, kept by the micro variant of every family."""

import copy
import io

import pytest
import timm
import torch
from torch import nn

from flatten_dense.backbones.staged import Stage
from flatten_dense.layers import CORE_NAMES

NATIVE = (2, 3, 64, 64)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()


def test_logits(model):
    assert model(torch.randn(NATIVE)).shape == (2, 5)


def test_every_parameter_has_a_gradient(model):
    out = model(torch.randn(2, 3, 64, 96))
    out.square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_every_parameter_has_a_gradient_with_softmax(micro, all_softmax):
    model = timm.create_model(micro, num_classes=5, **all_softmax)
    model(torch.randn(2, 3, 64, 96)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", CORE_NAMES)
def test_every_attention_by_name_takes_any_size_and_trains(micro, name):
    model = timm.create_model(micro, num_classes=5, attention=name)
    logits = model(torch.randn(2, 3, 45, 70))
    logits.square().sum().backward()
    assert logits.shape == (2, 5)
    assert [key for key, p in model.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("out_indices", [None, (1,), (0, 2)])
def test_every_parameter_has_a_gradient_under_features_only(micro, out_indices):
    options = {} if out_indices is None else {"out_indices": out_indices}
    model = timm.create_model(micro, features_only=True, **options)
    sum(out.square().sum() for out in model(torch.randn(2, 3, 64, 96))).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_no_classifier(micro):
    model = timm.create_model(micro, num_classes=0)
    assert isinstance(model.get_classifier(), nn.Identity)
    assert model(torch.randn(NATIVE)).shape == (2, model.num_features)


def test_no_pooling(micro):
    model = timm.create_model(micro, num_classes=0, global_pool="").eval()
    images = torch.randn(NATIVE)
    assert torch.equal(model(images), model.forward_features(images))


def test_no_pooling_classifies_every_place(micro):
    model = timm.create_model(micro, num_classes=5, global_pool="").eval()
    images = torch.randn(NATIVE)
    logits, features = model(images), model.forward_features(images)
    assert logits.shape == (2, 5, *features.shape[2:])
    torch.testing.assert_close(logits[1, :, 1, 0], model.head(features[1, :, 1, 0]))


def test_another_pooling_is_refused(micro):
    with pytest.raises(ValueError, match=r"global_pool must be 'avg'.*'max'"):
        timm.create_model(micro, global_pool="max")


def test_head_pools_the_mean(model):
    features = model.forward_features(torch.randn(2, 3, 64, 96))
    pooled = features.flatten(2).mean(2)
    torch.testing.assert_close(model.forward_head(features, pre_logits=True), pooled)
    torch.testing.assert_close(model.forward_head(features), model.head(pooled))


def test_dropout_comes_before_the_classifier(micro):
    model = timm.create_model(micro, num_classes=5, drop_rate=0.5)
    features = torch.ones(64, model.num_features, 2, 2)
    assert not torch.equal(model.forward_head(features)[0], model.forward_head(features)[1])
    dropped = model.forward_head(features, pre_logits=True)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(model.eval().forward_head(features, pre_logits=True), features.mean(dim=(2, 3)))


def test_reset_classifier(model):
    model.double().reset_classifier(7)
    images = torch.randn(NATIVE).double()
    assert model.get_classifier().out_features == model.num_classes == 7
    assert model(images).shape == (2, 7)
    model.reset_classifier(0)
    assert model(images).shape == (2, model.head_hidden_size)
    model.reset_classifier(0, "")
    assert model(images).ndim == 4
    model.reset_classifier(3, "avg")
    assert model(images).shape == (2, 3)


def test_other_image_channels(micro):
    model = timm.create_model(micro, in_chans=1, num_classes=5)
    assert model(torch.randn(1, 1, 64, 64)).shape == (1, 5)


def test_final_features_are_forward_features(model):
    images = torch.randn(NATIVE)
    final, maps = model.eval().forward_intermediates(images)
    assert len(maps) == len(model.stages)
    assert torch.equal(final, model.forward_features(images))


def test_raw_intermediates_are_the_outputs_of_the_stages(model):
    images = torch.randn(NATIVE)
    x, expected = images, []
    for stage in model.eval().stages:
        raw = stage(x)
        expected.append(raw)
        x = stage.norm(raw.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    got = model.forward_intermediates(images, intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_the_last_normed_intermediate_is_the_final_features(model):
    final, maps = model.eval().forward_intermediates(torch.randn(NATIVE), norm=True)
    assert torch.equal(final, maps[-1])


@pytest.mark.parametrize("stop_early", [False, True])
@pytest.mark.parametrize("indices", [[0, 2], 2, [-1], [1]])
def test_chosen_intermediates(model, indices, stop_early):
    images = torch.randn(NATIVE)
    maps = model.eval().forward_intermediates(images, intermediates_only=True)
    got = model.forward_intermediates(images, indices, stop_early=stop_early, intermediates_only=True)
    wanted = maps[-indices:] if isinstance(indices, int) else [maps[i] for i in indices]
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_stopping_early_runs_no_later_stage(model):
    def fail(*_):
        raise AssertionError("a stage after the last one wanted was run")

    model.stages[2].register_forward_pre_hook(fail)
    model.forward_intermediates(torch.randn(NATIVE), [1], stop_early=True, intermediates_only=True)


def test_another_format_is_refused(model):
    with pytest.raises(ValueError, match="NHWC"):
        model.forward_intermediates(torch.randn(NATIVE), output_fmt="NHWC")


@pytest.mark.parametrize("prune_norm", [False, True])
def test_pruning_keeps_what_is_wanted(model, prune_norm, randomise):
    images = torch.randn(NATIVE)
    expected = randomise(model).eval().forward_intermediates(images, [0, 2], norm=not prune_norm)[1]
    assert model.prune_intermediate_layers([0, 2], prune_norm=prune_norm) == [0, 2]
    assert len(model.stages) == 3
    got = model.forward_intermediates(images, [0, 2], norm=not prune_norm, intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    assert model.num_features == model.head_hidden_size == got[-1].shape[1]
    assert isinstance(model.get_classifier(), nn.Identity)


def test_pruning_nothing_can_keep_the_classifier(model):
    images = torch.randn(NATIVE)
    logits = model.eval()(images)
    model.prune_intermediate_layers([len(model.stages) - 1], prune_head=False)
    assert torch.equal(model(images), logits)


def test_features_only_gives_raw_stages(model, micro):
    features = timm.create_model(micro, features_only=True, out_indices=(0, 1, 2))
    features.model.load_state_dict(model.state_dict(), strict=False)
    images = torch.randn(NATIVE)
    expected = model.eval().forward_intermediates(images, [0, 1, 2], intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(features.eval()(images), expected, strict=True))
    assert features.feature_info.channels() == [x.shape[1] for x in expected]


def test_grad_checkpointing_changes_nothing(model):
    images = torch.randn(1, 3, 64, 80)
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(images).sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_grad_checkpointing_recomputes_blocks(model):
    calls = []
    model.stages[2].blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    model.set_grad_checkpointing()
    model(torch.randn(1, 3, 64, 64)).sum().backward()
    assert len(calls) == 2


def test_stochastic_depth_rises_linearly_over_the_blocks(micro):
    model = timm.create_model(micro, drop_path_rate=0.3)
    rates = [(b.drop_path1.drop_prob, b.drop_path2.drop_prob) for stage in model.stages for b in stage.blocks]
    expected = [0.3 * i / (len(rates) - 1) for i in range(len(rates))]
    assert [first for first, _ in rates] == [second for _, second in rates] == pytest.approx(expected)


def test_state_dict_round_trip(model, micro, randomise):
    file = io.BytesIO()
    torch.save(randomise(model).state_dict(), file)
    file.seek(0)
    other = timm.create_model(micro, num_classes=5)
    other.load_state_dict(torch.load(file, weights_only=True))
    images = torch.randn(NATIVE)
    assert torch.equal(other.eval()(images), model.eval()(images))


def test_own_names_pass_the_checkpoint_filter_unchanged(model):
    state = model.state_dict()
    assert model.rename_checkpoint(state) == state


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("table_size", [(4, 6), (2, 3)])
@torch.no_grad()
def test_positions_are_not_written_into_the_map_of_the_caller(layout, table_size):
    stage = Stage(8, None, [], grid_size=table_size).eval()
    nn.init.normal_(stage.pos_embed)
    x = torch.randn(2, 8, 4, 6).contiguous(memory_format=layout)
    before = x.clone()
    assert not torch.equal(stage(x), before)
    assert torch.equal(x, before)


def test_copies_are_independent(model, randomise):
    twin = copy.deepcopy(model)
    randomise(twin)
    images = torch.randn(NATIVE)
    assert not torch.equal(twin.eval()(images), model.eval()(images))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_trains_with_finite_gradients(micro, dtype, attention):
    model = timm.create_model(micro, num_classes=5, **attention)
    with torch.autocast("cpu", dtype):
        loss = model(torch.randn(2, 3, 72, 96)).float().square().sum()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_is_near_full_precision(model, dtype):
    images = torch.randn(2, 3, 72, 96)
    with torch.no_grad():
        exact = model.eval().forward_features(images)
        with torch.autocast("cpu", dtype):
            rough = model.forward_features(images)
    assert (rough.float() - exact).norm() < (0.03 if dtype == torch.bfloat16 else 0.004) * exact.norm()


def test_compiles_to_one_graph(micro, attention):
    model = timm.create_model(micro, num_classes=5, **attention)
    images = torch.randn(2, 3, 70, 90)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), model(images))


@pytest.mark.slow
def test_compiled_training_step_has_the_same_gradients(micro, attention):
    model = timm.create_model(micro, num_classes=5, **attention)
    images = torch.randn(2, 3, 70, 90)
    gradients = []
    for run in (model, torch.compile(model, fullgraph=True)):
        model.zero_grad()
        run(images).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)


def test_exports_with_a_dynamic_batch(micro, attention):
    model = timm.create_model(micro, num_classes=5, **attention).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(model, (torch.randn(2, 3, 70, 90),), dynamic_shapes={"x": {0: batch}}).module()
    for size in (1, 5):
        images = torch.randn(size, 3, 70, 90)
        torch.testing.assert_close(exported(images), model(images))


@pytest.mark.slow
def test_linear_attention_exports_for_other_sizes(micro):
    model = timm.create_model(micro, num_classes=5, attention="L" if "deit" in micro else "LLLL").eval()
    auto = torch.export.Dim.AUTO
    shapes = {"x": {0: auto, 2: auto, 3: auto}}
    exported = torch.export.export(model, (torch.randn(2, 3, 71, 91),), dynamic_shapes=shapes).module()
    images = torch.randn(3, 3, 128, 75)
    torch.testing.assert_close(exported(images), model(images))


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(1, 3, 31, 64),
        torch.zeros(1, 3, 64, 16),
        torch.zeros(3, 64, 64),
        torch.zeros(1, 4, 64, 64),
        torch.zeros(1, 64, 64, 3),
        torch.zeros(1, 3, 64, 64, dtype=torch.uint8),
        [torch.zeros(3, 64, 64)],
        None,
    ],
    ids=["low", "narrow", "no_batch", "channels", "channels_last", "integers", "list", "nothing"],
)
@pytest.mark.parametrize("features_only", [False, True])
def test_what_is_no_batch_of_images_is_refused(micro, images, features_only):
    model = timm.create_model(micro, features_only=features_only)
    with pytest.raises(ValueError, match="images must be"):
        model(images)


@pytest.mark.parametrize("attention", ["", "LLSSL", "LL", "XLSS", "llss", "LLMS", "LLSS2", "LLMS9", 4])
def test_an_attention_string_that_does_not_fit_is_refused(micro, attention):
    with pytest.raises(ValueError, match="attention"):
        timm.create_model(micro, attention=attention)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 4}, "kernel_size must be odd"),
        ({"focusing_factor": 0}, "focusing_factor must be positive"),
        ({"linear_window_size": 0}, "linear_window_size must be a whole number"),
        ({"linear_window_size": 2.5}, "linear_window_size must be a whole number"),
        ({"linear_window_size": (3, 3)}, "linear_window_size must be a whole number"),
        ({"window_size": 0}, "window_size must be a whole number"),
        ({"window_size": 2.5}, "window_size must be a whole number"),
        ({"kernel_size": -1}, "kernel_size must be odd"),
        ({"img_size": (64,)}, r"img_size must be a side or \(height, width\)"),
        ({"img_size": 0}, r"img_size must be a side or \(height, width\)"),
        ({"drop_path_rate": 1.5}, "drop_path_rate must be from 0 to below 1, got 1.5"),
        ({"in_chans": 0}, "in_chans from 1"),
    ],
)
def test_an_option_out_of_range_is_refused(micro, options, message):
    with pytest.raises(ValueError, match=message):
        timm.create_model(micro, **options)


@pytest.mark.parametrize("heads", [0, -2])
def test_no_heads_are_refused(micro, heads):
    with pytest.raises(ValueError, match="num_heads must"):
        timm.create_model(micro, num_heads=heads if "deit" in micro else (heads, 2, 2, 4))


def test_options_of_another_number_of_stages_are_refused(micro):
    if "deit" not in micro:
        with pytest.raises(ValueError, match=r"num_heads must be a positive number for each of 4 stages, got \(1, 2\)"):
            timm.create_model(micro, num_heads=(1, 2))


@pytest.mark.parametrize("indices", [[9], [0, -9], 9])
def test_stages_that_are_not_there_are_refused(model, indices):
    with pytest.raises(ValueError, match="indices must name some of"):
        model.forward_intermediates(torch.randn(NATIVE), indices)


def test_heads_that_do_not_divide_the_channels_are_refused(micro):
    heads = 5 if "deit" in micro else (5, 5, 5, 5)
    with pytest.raises(ValueError, match="num_heads must divide"):
        timm.create_model(micro, num_heads=heads)
