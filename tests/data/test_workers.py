import os
import signal

import pytest
from torch.utils.data import DataLoader, Dataset

from flatten_dense.data.workers import outlive_sigterm


class Signalled(Dataset):
    """Sample 1 gets a SIGTERM, from itself or from the training process."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return os.getpid()


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="signals do not tell who sent them")
def test_a_worker_goes_on_after_a_signal_to_the_whole_job_and_ends_by_that_of_its_parent():
    loader = DataLoader(Signalled(), num_workers=1, worker_init_fn=outlive_sigterm, collate_fn=list)
    batches = iter(loader)
    workers = [pid for batch in batches for pid in batch]
    assert len(workers) == 4

    loader = DataLoader(Signalled(), num_workers=1, worker_init_fn=outlive_sigterm, collate_fn=list, prefetch_factor=1)
    batches = iter(loader)
    (pid,) = next(batches)
    os.kill(pid, signal.SIGTERM)
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        list(batches)
