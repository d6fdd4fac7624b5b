from collections import Counter

import pytest
import torch

from flatten_dense.data.classification.shard_sampler import ShardOrderSampler, ShardSampler

COUNTS = (7, 12, 9, 12)  # 40 photos
SHARD_OF = torch.repeat_interleave(torch.arange(4), torch.tensor(COUNTS)).tolist()


def items(sampler, epoch=0):
    sampler.set_epoch(epoch)
    return [key.item for key in sampler]


@pytest.mark.parametrize(("processes", "readers", "batch_size"), [(1, 1, 5), (2, 2, 2), (2, 3, 4), (4, 1, 3)])
def test_no_photo_comes_twice_and_fewer_than_a_batch_are_left_out(processes, readers, batch_size):
    samplers = [ShardSampler(COUNTS, batch_size, processes, rank, readers) for rank in range(processes)]
    parts = [items(sampler) for sampler in samplers]
    assert {len(part) for part in parts} == {len(samplers[0])}
    together = [item for part in parts for item in part]
    assert set(together) <= set(range(40))
    assert len(set(together)) == len(together) == 40 // (processes * batch_size) * processes * batch_size


def test_each_worker_reads_shards_of_its_own():
    # 2 processes of 2 workers, equal shards: one for each.
    for rank in range(2):
        batches = torch.tensor(items(ShardSampler((8,) * 4, 2, 2, rank, readers=2))).view(-1, 2)
        shards = [{int(item) // 8 for item in batches[worker::2].flatten()} for worker in range(2)]
        assert [len(of_worker) for of_worker in shards] == [1, 1]
        assert shards[0] != shards[1]


def test_the_order_follows_from_the_epoch():
    sampler = ShardSampler(COUNTS, 4)
    first, second = items(sampler, 0), items(sampler, 1)
    assert first != second
    assert items(sampler, 0) == first


def test_each_photo_is_left_out_sometimes():
    sampler = ShardSampler(COUNTS, 32)
    seen = Counter(item for epoch in range(40) for item in items(sampler, epoch))
    assert set(seen) == set(range(40))
    assert max(seen.values()) < 40


@pytest.mark.parametrize("mixed", [1, 3])
def test_few_shards_are_open_at_a_time(mixed):
    order = [item // 50 for item in items(ShardSampler((50,) * 12, 10, mixed=mixed))]
    first = {shard: order.index(shard) for shard in range(12)}
    last = {shard: len(order) - order[::-1].index(shard) for shard in range(12)}
    open_at_a_time = [sum(first[s] <= t < last[s] for s in range(12)) for t in range(len(order))]
    # What is over when a shard begins is nearly done.
    assert mixed <= max(open_at_a_time) <= mixed + 1


def test_photos_of_several_shards_are_mixed():
    order = [item // 50 for item in items(ShardSampler((50,) * 12, 10, mixed=4))]
    middle = [set(order[start : start + 20]) for start in range(200, 400, 20)]
    assert min(map(len, middle)) >= 3


def test_evaluation_goes_through_all_photos_once():
    for processes, readers in ((1, 1), (2, 2), (3, 4)):
        parts = [list(ShardOrderSampler(41, 4, processes, rank, readers)) for rank in range(processes)]
        assert sorted(item for part in parts for item in part) == list(range(41))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert list(ShardOrderSampler(41, 4, 1, 0, 1)) == list(range(41))


def test_a_worker_evaluates_photos_that_lie_together():
    order = list(ShardOrderSampler(14, 3, 1, 0, 2))
    batches = [order[start : start + 3] for start in range(0, 14, 3)]
    assert [item for batch in batches[0::2] for item in batch] == list(range(8))  # the first also has the short batch
    assert [item for batch in batches[1::2] for item in batch] == list(range(8, 14))
