"""The C kernels beside this file, compiled at first use by the system's own compiler and kept for the next process."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

FOLDER = Path(__file__).parent
SWITCH = "FLATTEN_DENSE_NATIVE"  # 0: never compile or load anything
_FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-shared", "-fopenmp")
_TUNING: tuple[tuple[str, ...], ...] = (("-march=native",), ("-mcpu=native",), ())  # the first that the compiler takes
_logger = logging.getLogger(__name__)


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None where there is no compiler, it fails, or ``FLATTEN_DENSE_NATIVE=0`` is set.

    The first call on a machine compiles for a few seconds; the result is kept in the user's cache folder under a name
    that changes with the sources, the compiler and the processor.
    """
    if os.environ.get(SWITCH) == "0":
        return None
    compiler = find_compiler()
    if compiler is None:
        _logger.warning("no C compiler (cc, gcc, clang or $CC): the kernels run in plain PyTorch, which is slower")
        return None
    try:
        return _load(compiler)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        _logger.warning("the C kernels could not be compiled and run in plain PyTorch, which is slower: %s", error)
        return None


def find_compiler() -> list[str] | None:
    """The command of a C compiler: ``$CC``, else the first of cc, gcc and clang that is there."""
    if sys.platform == "win32":
        return None
    wanted = shlex.split(os.environ.get("CC", ""))
    candidates: Sequence[list[str]] = [wanted] if wanted else [["cc"], ["gcc"], ["clang"]]
    return next((command for command in candidates if shutil.which(command[0])), None)


def compile_kernels(compiler: Sequence[str], output: Path) -> None:
    """Compile every ``*.c`` of this folder into one shared library.

    Args:
        compiler: its command.
        output: the file to write.

    Raises:
        ValueError: the compiler refuses; its first words are in the message.
    """
    words = ""
    for tuning in _TUNING:
        command = [*compiler, *_FLAGS, *tuning, "-o", str(output), *map(str, _sources(".c")), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode == 0:
            return
        words = words or done.stderr.strip()
    raise ValueError(f"{shlex.join(compiler)} says: {words[:400] or 'nothing'}")


def _load(compiler: Sequence[str]) -> ctypes.CDLL:
    name = f"kernels-{_fingerprint(compiler)}.so"
    for folder in _folders():
        path = folder / name
        if path.exists() and _is_ours(path):
            return ctypes.CDLL(str(path))
        # Compiled under a name of its own, then moved: processes that start together never see half a file.
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            output = Path(scratch) / name
            compile_kernels(compiler, output)
            os.replace(output, path)
        return ctypes.CDLL(str(path))
    raise OSError("no folder to write to")


def _folders() -> Iterator[Path]:
    """Folders to keep the library in, private to the user: the cache, or one of this process."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flatten_dense"
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(cache, os.W_OK) and _is_ours(cache):
            yield cache
    except OSError:
        pass
    yield Path(tempfile.mkdtemp(prefix="flatten_dense-"))


def _is_ours(path: Path) -> bool:
    """Whether nobody else can have written it."""
    status = path.stat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


def _fingerprint(compiler: Sequence[str]) -> str:
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True, timeout=60, check=False).stdout
    parts = [*compiler, version, *_FLAGS, *map(str, _TUNING), platform.machine(), _processor()]
    digest = hashlib.sha256("\n".join(parts).encode())
    for source in [*_sources(".c"), *_sources(".h")]:
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:20]


def _sources(suffix: str) -> list[Path]:
    return sorted(path for path in FOLDER.iterdir() if path.suffix == suffix)


def _processor() -> str:
    """What ``-march=native`` depends on: a cache folder may be shared by machines of several kinds."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    first = (line for line in lines if line.startswith(("flags", "Features", "model name", "CPU part")))
    return "\n".join(sorted(set(first)))
