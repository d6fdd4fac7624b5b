import os
import signal

import pytest

from flatten_dense.profiling import Case, FreshModel, OutOfMemoryError, TooSlowError

CASE = Case("flatten_pvt_test", (64, 64), threads=1)


@pytest.fixture(scope="module")
def model():
    with FreshModel(CASE) as model:
        yield model


def test_a_pass_takes_time_and_memory(model):
    taken = model.run()
    assert taken.seconds > 0
    assert taken.peak >= 0


def test_the_peak_never_falls(model):
    peaks = [model.run().peak for _ in range(3)]
    assert peaks == sorted(peaks)


def test_what_was_loaded_is_more_than_the_library_and_not_counted_as_the_peak(model):
    assert model.loaded > 50 * 2**20 > model.run().peak


def test_threads_are_those_of_the_case(model):
    assert model.threads == 1


def test_models_of_timm_run_with_all_the_fused_attention_they_have(tmp_path, monkeypatch):
    says = "raise ImportError(f'fused: {timm.layers.use_fused_attn(experimental=True)}')"
    (tmp_path / "probe_of_timm.py").write_text(f"import timm.layers\n{says}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("TIMM_FUSED_ATTN", raising=False)
    with pytest.raises(ValueError, match="fused: True"):
        FreshModel(Case("flatten_pvt_test", (64, 64), imports=("probe_of_timm",)))


def test_a_model_that_does_not_exist():
    with pytest.raises(ValueError, match="unknown backbone name 'flatten_pvt_tost': did you mean flatten_pvt_test"):
        FreshModel(Case("flatten_pvt_tost", (64, 64)))


def test_a_process_that_the_system_kills_is_out_of_memory():
    with FreshModel(CASE) as model:
        os.kill(model._process.pid, signal.SIGKILL)
        with pytest.raises(OutOfMemoryError, match="out of memory"):
            model.run()


def test_memory_that_cannot_be_had_is_told_in_words():
    with FreshModel(Case("flatten_deit_test", (8192, 8192), {"attention": "S"}, batch_size=1)) as model:
        resource = pytest.importorskip("resource")
        if not hasattr(resource, "prlimit"):
            pytest.skip("limits of another process cannot be set here")
        resource.prlimit(model._process.pid, resource.RLIMIT_AS, (2**30, 2**30))
        with pytest.raises(OutOfMemoryError, match="out of memory"):
            model.run()


def test_a_pass_beyond_its_limit_is_stopped():
    with FreshModel(CASE) as model, pytest.raises(TooSlowError, match=r"took more than 1e-06 s"):
        model.run(limit=1e-6)


def test_a_process_that_fails_says_why(monkeypatch, tmp_path):
    (tmp_path / "broken_module.py").write_text("raise KeyError('no such thing')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match=r"ended with status 1:\n(.|\n)*KeyError: 'no such thing'"):
        FreshModel(Case("flatten_pvt_test", (64, 64), imports=("broken_module",)))


def test_imported_modules_may_register_models(monkeypatch, tmp_path):
    (tmp_path / "own_models.py").write_text(
        "from timm.models import register_model\n"
        "from torch import nn\n"
        "@register_model\n"
        "def one_convolution(pretrained=False, **kwargs):\n"
        "    print('chatter')\n"
        "    return nn.Conv2d(3, 4, 3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with FreshModel(Case("one_convolution", (64, 64), imports=("own_models",))) as model:
        assert model.run().seconds > 0
