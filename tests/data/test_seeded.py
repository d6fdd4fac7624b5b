import random

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from flatten_dense.data.sampler import SampleKey
from flatten_dense.data.seeded import SeededDataset

DRAWS = {"torch": torch.rand, "numpy": np.random.rand, "python": random.random}


class Drawn(Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return {"index": index, **{name: float(draw(*[1] * (name == "torch"))) for name, draw in DRAWS.items()}}


@pytest.mark.parametrize("generator", DRAWS)
def test_a_sample_draws_what_its_seed_says(generator):
    data = SeededDataset(Drawn())
    first, again, other = (data[SampleKey(1, seed)][generator] for seed in (2**62, 2**62, 2**62 + 1))
    assert first == again != other


@pytest.mark.parametrize("generator", DRAWS)
def test_a_sample_leaves_the_random_numbers_as_they_were(generator):
    def draw():
        return float(DRAWS[generator](*[1] * (generator == "torch")))

    def seed():
        torch.manual_seed(3)
        np.random.seed(3)
        random.seed(3)

    seed()
    expected = [draw(), draw()]
    seed()
    first = draw()
    _ = SeededDataset(Drawn())[SampleKey(0, 7)]
    assert [first, draw()] == expected


def test_it_is_the_set_that_it_wraps():
    data = SeededDataset(Drawn())
    assert len(data) == 3
    assert data[SampleKey(2, 0)]["index"] == 2


def test_a_plain_index_has_always_the_same_sample():
    data = SeededDataset(Drawn())
    assert data[1] == data[1] != data[2]
