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
from collections.abc import Sequence
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
    try:
        compiler = find_compiler()
        if compiler is not None:
            return _load(compiler)
        reason = "no C compiler (cc, gcc, clang or $CC)"
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        reason = str(error)
    _logger.warning(
        "the C kernels could not be compiled and run in plain PyTorch, which is slower (%s=0 silences this): %s",
        SWITCH,
        reason,
    )
    return None


def find_compiler() -> list[str] | None:
    """The command of a C compiler: ``$CC``, else the first of cc, gcc and clang that is there.

    Raises:
        ValueError: ``$CC`` is no command line, such as one with an unbalanced quote.
    """
    if sys.platform == "win32":
        return None
    chosen = os.environ.get("CC", "")
    try:
        wanted = shlex.split(chosen)
    except ValueError as error:
        raise ValueError(f"$CC should be a command such as gcc, got {chosen!r} ({error})") from None
    candidates: Sequence[list[str]] = [wanted] if wanted else [["cc"], ["gcc"], ["clang"]]
    return next((command for command in candidates if shutil.which(command[0])), None)


def compile_kernels(compiler: Sequence[str], output: Path) -> None:
    """Compile every ``*.c`` of this folder into one shared library.

    Args:
        compiler: its command.
        output: the file to write.

    Raises:
        ValueError: the compiler refuses; its first words, or else its exit status, are in the message.
    """
    words = ""
    for tuning in _TUNING:
        command = [*compiler, *_FLAGS, *tuning, "-o", str(output), *map(str, _sources(".c")), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode == 0:
            return
        words = words or done.stderr.strip()
    raise ValueError(f"{shlex.join(compiler)} failed: {words[:400] or f'exit status {done.returncode}'}")


def _load(compiler: Sequence[str]) -> ctypes.CDLL:
    cache, fingerprint = _cache(), _fingerprint(compiler)
    kept = _load_kept(cache, fingerprint) if cache else None
    if kept is not None:
        return kept
    # Compiled in a folder of its own, then moved: processes that start together never see half a file. Without a cache
    # the file goes with that folder; what is loaded stays.
    with tempfile.TemporaryDirectory(prefix="flatten_dense-", dir=cache) as scratch:
        output = Path(scratch) / "kernels.so"
        compile_kernels(compiler, output)
        output.chmod(0o700)  # whatever the umask: a file that others may write would not be loaded again
        compiled = ctypes.CDLL(str(output))
        if cache:
            os.replace(output, cache / _name(fingerprint, output.read_bytes()))
    return compiled


def _load_kept(cache: Path, fingerprint: str) -> ctypes.CDLL | None:
    """What an earlier process compiled; files that are broken or that others may have written are removed."""
    for path in cache.glob(_name(fingerprint, None)):
        try:
            # Read before it is loaded: a library cut short may load and crash the process later.
            if _is_ours(path) and path.name == _name(fingerprint, path.read_bytes()):
                return ctypes.CDLL(str(path))
        except OSError as error:
            _logger.debug("%s is compiled anew: %s", path, error)
        path.unlink(missing_ok=True)
    return None


def _name(fingerprint: str, content: bytes | None) -> str:
    """The name of a library, which tells whether its content is whole; the pattern of such names for None."""
    return f"kernels-{fingerprint}-{'*' if content is None else hashlib.sha256(content).hexdigest()[:20]}.so"


def _cache() -> Path | None:
    """The folder that keeps the libraries, private to the user; None where there is none to write to."""
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flatten_dense"
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        return cache if os.access(cache, os.W_OK) and _is_ours(cache) else None
    except (OSError, RuntimeError):  # RuntimeError: a user without a home, as in some containers
        return None


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
