import logging
import os

import pytest

from flatten_dense.ops.native import build

needs_compiler = pytest.mark.skipif(build.find_compiler() is None, reason="no C compiler")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(build.SWITCH, raising=False)
    build.library.cache_clear()
    yield tmp_path / "flatten_dense"
    build.library.cache_clear()


@pytest.fixture
def one_function(tmp_path, monkeypatch):
    """A source of one line in place of the kernels, so that compiling takes no time."""
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "one.c").write_text("int answer(void) { return 42; }\n")
    monkeypatch.setattr(build, "FOLDER", folder)
    return folder / "one.c"


@needs_compiler
def test_the_second_process_finds_what_the_first_compiled(cache, one_function, monkeypatch):
    assert build.library().answer() == 42
    monkeypatch.setattr(build, "compile_kernels", lambda *_: pytest.fail("compiled again"))
    build.library.cache_clear()
    assert build.library().answer() == 42


@needs_compiler
def test_a_changed_source_is_compiled_anew(cache, one_function):
    build.library()
    one_function.write_text("int answer(void) { return 43; }\n")
    build.library.cache_clear()
    assert build.library().answer() == 43
    assert len(list(cache.iterdir())) == 2


@needs_compiler
def test_nothing_else_is_left_in_the_cache(cache, one_function):
    build.library()
    assert [path.suffix for path in cache.iterdir()] == [".so"]


@needs_compiler
def test_a_library_that_others_may_write_is_not_loaded(cache, one_function):
    build.library()
    (library,) = cache.iterdir()
    library.unlink()  # not overwritten: it is mapped into this process
    library.write_bytes(b"not ours")
    library.chmod(0o666)
    build.library.cache_clear()
    assert build.library().answer() == 42
    assert not library.stat().st_mode & 0o022


@needs_compiler
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_without_a_cache_folder_it_compiles_for_this_process(cache, one_function):
    cache.parent.chmod(0o500)
    assert build.library().answer() == 42


def test_the_switch_turns_the_kernels_off(cache, monkeypatch):
    monkeypatch.setenv(build.SWITCH, "0")
    assert build.library() is None


def test_no_compiler_is_said_once(cache, monkeypatch, caplog):
    monkeypatch.setenv("CC", "no-such-compiler")
    with caplog.at_level(logging.WARNING):
        assert build.library() is None
        assert build.library() is None
    assert [record.message for record in caplog.records if "no C compiler" in record.message] == [
        "no C compiler (cc, gcc, clang or $CC): the kernels run in plain PyTorch, which is slower"
    ]


@needs_compiler
def test_a_source_that_does_not_compile_is_said(cache, one_function, caplog):
    one_function.write_text("int answer(void) { return forty_two; }\n")
    with caplog.at_level(logging.WARNING):
        assert build.library() is None
    assert "forty_two" in caplog.text
