import hashlib
import logging
import os
import tempfile

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
def test_a_loose_umask_does_not_make_the_next_process_compile_again(cache, one_function, monkeypatch):
    before = os.umask(0o002)
    try:
        build.library()
    finally:
        os.umask(before)
    monkeypatch.setattr(build, "compile_kernels", lambda *_: pytest.fail("compiled again"))
    build.library.cache_clear()
    assert build.library().answer() == 42


@needs_compiler
@pytest.mark.parametrize("part", [0, 0.5, 0.99])
def test_a_library_cut_short_is_replaced(cache, one_function, part):
    build.library()
    (library,) = cache.iterdir()
    whole = library.read_bytes()
    library.unlink()  # not overwritten: it is mapped into this process
    library.write_bytes(whole[: int(part * len(whole))])
    library.chmod(0o700)
    build.library.cache_clear()
    assert build.library().answer() == 42
    assert [path.stat().st_size for path in cache.iterdir()] == [len(whole)]


@needs_compiler
def test_a_library_that_does_not_load_is_replaced(cache, one_function):
    build.library()
    (library,) = cache.iterdir()
    library.unlink()
    start, _ = library.stem.rsplit("-", 1)
    broken = cache / f"{start}-{hashlib.sha256(b'no library').hexdigest()[:20]}.so"
    broken.write_bytes(b"no library")
    broken.chmod(0o700)
    build.library.cache_clear()
    assert build.library().answer() == 42
    assert not broken.exists()
    assert len(list(cache.iterdir())) == 1


@needs_compiler
def test_without_a_cache_folder_no_file_stays_behind(cache, one_function, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(one_function))  # a file: no folder can be made below it
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    assert build.library().answer() == 42
    assert not list(temporary.iterdir())


@needs_compiler
def test_a_user_without_a_home_compiles_for_this_process(cache, one_function, monkeypatch):
    def unknown(_):
        raise KeyError("no such user")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert build.library().answer() == 42


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
    assert [record.message for record in caplog.records] == [
        "the C kernels could not be compiled and run in plain PyTorch, which is slower "
        "(FLATTEN_DENSE_NATIVE=0 silences this): no C compiler (cc, gcc, clang or $CC)"
    ]


def test_an_unbalanced_quote_in_cc_is_said_once(cache, monkeypatch, caplog):
    monkeypatch.setenv("CC", 'gcc "-O2')
    with caplog.at_level(logging.WARNING):
        assert build.library() is None
        assert build.library() is None
    (record,) = caplog.records
    assert "$CC should be a command such as gcc, got 'gcc \"-O2'" in record.message


def test_a_compiler_that_fails_without_a_word_is_said_with_its_exit_status(cache, monkeypatch, caplog):
    monkeypatch.setenv("CC", "false")
    with caplog.at_level(logging.WARNING):
        assert build.library() is None
    assert "false failed: exit status 1" in caplog.text
    assert "FLATTEN_DENSE_NATIVE=0 silences this" in caplog.text


@needs_compiler
def test_a_source_that_does_not_compile_is_said(cache, one_function, caplog):
    one_function.write_text("int answer(void) { return forty_two; }\n")
    with caplog.at_level(logging.WARNING):
        assert build.library() is None
    assert "forty_two" in caplog.text
