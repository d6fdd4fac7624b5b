"""A model in a process of its own, whose memory is its own and whose end is not ours."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from types import TracebackType
from typing import Any, NamedTuple

from flatten_dense.profiling.case import Case

_LOADING_LIMIT = 600.0  # seconds to make a model: only a machine that hangs takes so long
_KILLED = -9  # by the system, when memory has run out


class NotMeasuredError(Exception):
    """A case cannot be measured here; the message says why in a few words, for a table."""


class OutOfMemoryError(NotMeasuredError):
    """A pass needs more memory than there is."""


class TooSlowError(NotMeasuredError):
    """A pass took longer than it was allowed to."""


class Pass(NamedTuple):
    """What a pass took.

    Attributes:
        seconds: wall time.
        peak: bytes above what was in use before the first pass, at the highest so far; None where that is not known.
    """

    seconds: float
    peak: int | None


class FreshModel:
    """The model of a case, with its images, in a fresh process that runs a pass when asked: a context manager.

    Args:
        case: what to load.

    Attributes:
        loaded: bytes in use before the first pass, with the model and its images; None where that is not known.
        threads: that PyTorch uses there.

    Raises:
        ValueError: the model does not exist, or does not take its options or its images.
        OutOfMemoryError: the model, or its images, need more memory than there is.
        RuntimeError: the process failed otherwise.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed in close
        # What this process can import, that one must be able to. Fused attention in timm's Swin is off by itself.
        path = os.pathsep.join(filter(None, sys.path))
        environment = {"TIMM_FUSED_ATTN": "2", **os.environ, "PYTHONPATH": path}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "flatten_dense.profiling.worker", case.to_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
        )
        try:
            answer = self._wait(_LOADING_LIMIT)
        except BaseException:
            self.close()
            raise
        self.loaded: int | None = answer["loaded"]
        self.threads: int = answer["threads"]

    def run(self, limit: float | None = None) -> Pass:
        """Run one pass.

        Args:
            limit: seconds after which the process is ended; None for none.

        Raises:
            OutOfMemoryError: it needs more memory than there is.
            TooSlowError: it took longer than the limit.
            ValueError: the model does not take its images.
            RuntimeError: it failed otherwise.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: its last answer, or its status, says why
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        answer = self._wait(limit)
        return Pass(answer["seconds"], answer["peak"])

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):  # a request that it did not read any more
                stream.close()
        self._errors.close()

    def __enter__(self) -> FreshModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self, limit: float | None) -> dict[str, Any]:
        """The next answer, if it is a good one."""
        assert self._process.stdout is not None
        is_late = threading.Event()

        def stop() -> None:
            is_late.set()
            self._process.kill()

        timer = threading.Timer(limit, stop) if limit is not None else None
        if timer is not None:
            timer.start()
        line = self._process.stdout.readline()
        if timer is not None:
            timer.cancel()
        if not line:
            if is_late.is_set():
                raise TooSlowError(f"took more than {limit:g} s")
            raise self._failure(self._process.wait())
        answer: dict[str, Any] = json.loads(line)
        if "out_of_memory" in answer:
            raise OutOfMemoryError("out of memory")
        if "refused" in answer:
            raise ValueError(answer["refused"])
        return answer

    def _failure(self, status: int) -> Exception:
        if status == _KILLED:
            return OutOfMemoryError("out of memory: the system ended it")
        self._errors.seek(0)
        lines = [line for line in self._errors.read().splitlines() if line.strip()]
        said = "\n  ".join(lines[-15:]) or "it said nothing"
        return RuntimeError(f"the process that measures {self.case.name} ended with status {status}:\n  {said}")
