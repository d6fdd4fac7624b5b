from itertools import combinations

import torch

from flatten_dense.data.detection.heaviest import heaviest_photos


def padded_pixels(sizes, batch):
    return max(sizes[index][0] for index in batch) * max(sizes[index][1] for index in batch)


def test_no_other_batch_is_larger():
    generator = torch.Generator().manual_seed(0)
    sizes = [tuple(size) for size in torch.randint(32, 64, (12, 2), generator=generator).tolist()]
    for batch_size in (1, 2, 3):
        largest = max(padded_pixels(sizes, batch) for batch in combinations(range(12), batch_size))
        assert padded_pixels(sizes, heaviest_photos(sizes, [0] * 12, batch_size)) == largest


def test_of_equal_sizes_the_fullest_come_first():
    assert heaviest_photos([(32, 64)] * 4, [1, 7, 3, 5], 1) == [1]
    assert sorted(heaviest_photos([(32, 64)] * 4, [1, 7, 3, 5], 3)) == [1, 2, 3]


def test_beside_the_extremes_objects_alone_count():
    sizes = [(64, 32), (32, 64), (40, 40), (20, 20)]
    assert sorted(heaviest_photos(sizes, [0, 0, 1, 9], 3)) == [0, 1, 3]


def test_a_small_set_is_the_batch():
    assert sorted(heaviest_photos([(32, 64), (64, 32)], [0, 1], 8)) == [0, 1]
