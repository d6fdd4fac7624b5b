"""What a process that loads data does beside that."""

from __future__ import annotations

import os
import signal
import threading


def outlive_sigterm(worker: int) -> None:
    """Ignore a SIGTERM that does not come from the training process: for a DataLoader's ``worker_init_fn``.

    Clusters send it to all processes of a job. Training then needs its data until a step is complete; it ends its
    workers itself.

    Args:
        worker: number of the worker; not needed.
    """
    if not hasattr(signal, "sigwaitinfo"):  # it tells who sent a signal, but there is none on macOS
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
