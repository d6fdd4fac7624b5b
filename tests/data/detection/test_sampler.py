from collections.abc import Sequence
from itertools import chain

import pytest

from flatten_dense.data.detection.sampler import AspectRatioSampler

SIZES = [(3, 4)] * 11 + [(4, 3)] * 8 + [(4, 4)] * 2


def batches(sizes: Sequence[tuple[int, int]] = SIZES, batch_size=2, processes=1, epoch=0):
    """The batches of all processes together."""
    shares = []
    for rank in range(processes):
        sampler = AspectRatioSampler(sizes, batch_size, processes, rank)
        sampler.set_epoch(epoch)
        own = [key.item for key in sampler]
        shares.append([own[first : first + sampler.batch_size] for first in range(0, len(own), sampler.batch_size)])
    return [list(chain(*shared)) for shared in zip(*shares, strict=True)]


def mixed(batch):
    return len({width > height for height, width in (SIZES[index] for index in batch)}) > 1


def test_landscapes_and_others_come_apart_but_for_what_is_over():
    for epoch in range(20):
        for processes in (1, 2):
            assert sum(map(mixed, batches(processes=processes, epoch=epoch))) <= 1
        assert sum(map(mixed, batches(SIZES[:20], epoch=epoch))) == 1  # 11 and 9: one of each is over


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 4])
def test_batches_are_full_and_hold_no_image_twice(processes, batch_size):
    together = batches(SIZES, batch_size, processes)
    assert {len(batch) for batch in together} == {batch_size * processes}
    assert len(together) == len(SIZES) // batch_size // processes
    seen = [index for batch in together for index in batch]
    assert len(set(seen)) == len(seen)


def test_kinds_of_batches_are_shuffled_too():
    kinds = ["".join("lp"[SIZES[batch[0]][0] > 3] for batch in batches(epoch=epoch)) for epoch in range(5)]
    assert len(set(kinds)) > 1
    assert all("pl" in kind and "lp" in kind for kind in kinds)


def test_other_images_are_left_out_in_other_epochs():
    seen = {index for epoch in range(10) for batch in batches(epoch=epoch) for index in batch}
    assert seen == set(range(len(SIZES)))
