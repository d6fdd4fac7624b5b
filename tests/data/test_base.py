import pytest
import torch
from torch.utils.data import Dataset

from flatten_dense.data.base import BaseDataModule, UnrepeatedSampler, collate_lists
from flatten_dense.data.detection.sampler import AspectRatioSampler
from flatten_dense.structures import InputFormat, LabelSpace, Normalization, default_palette


class Numbered(Dataset):
    """Sample i holds i and a random number."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return {"image": torch.full((3, 2, 2), float(index)), "random": torch.rand(()), "path": f"{index}.jpg"}


class ToyDataModule(BaseDataModule):
    def __init__(self, length=10, batch_size=4, eval_batch_size=3, num_workers=0):
        super().__init__(InputFormat(None, Normalization((0, 0, 0))), batch_size, eval_batch_size, num_workers)
        self.length = length
        self.made = []

    def make_labels(self):
        self.made.append("labels")
        return LabelSpace(("cat",), default_palette(1))

    def make_dataset(self, split):
        self.made.append(split)
        return Numbered(self.length)


def ready(**options):
    data = ToyDataModule(**options)
    data.setup("fit")
    data.setup("test")
    return data


def indices(loader):
    return [int(image[0, 0, 0]) for batch in loader for image in batch["image"]]


def test_training_batches_are_stacked_shuffled_and_full(monkeypatch):
    batches = list(ready().train_dataloader())
    assert [batch["image"].shape for batch in batches] == [(4, 3, 2, 2)] * 2
    assert isinstance(batches[0]["path"], list)
    orders = []
    for seed in "01":
        monkeypatch.setenv("PL_GLOBAL_SEED", seed)
        orders.append(indices(ready(batch_size=5).train_dataloader()))
    assert sorted(orders[0]) == list(range(10))
    assert orders[0] != orders[1]
    assert orders[0] != sorted(orders[0])


def test_paths_stay_with_their_images():
    batch = next(iter(ready().train_dataloader()))
    assert batch["path"] == [f"{int(image[0, 0, 0])}.jpg" for image in batch["image"]]


def test_set_smaller_than_a_batch_is_one_batch():
    assert sorted(indices(ready(length=3).train_dataloader())) == [0, 1, 2]


@pytest.mark.parametrize("loader", ["val_dataloader", "test_dataloader"])
def test_evaluation_batches_are_lists_in_order(loader):
    batches = list(getattr(ready(), loader)())
    assert indices(batches) == list(range(10))
    assert [len(batch["path"]) for batch in batches] == [3, 3, 3, 1]
    assert isinstance(batches[0]["image"], list)


def test_lists_hold_images_of_different_sizes():
    samples = [{"image": torch.zeros(3, 2, 4), "path": "a"}, {"image": torch.zeros(3, 5, 1), "path": "b"}]
    batch = collate_lists(samples)
    assert [image.shape for image in batch["image"]] == [(3, 2, 4), (3, 5, 1)]
    assert batch["path"] == ["a", "b"]


@pytest.mark.parametrize(
    ("stage", "splits"), [("fit", ["train", "val"]), ("validate", ["val"]), ("test", ["test"]), ("predict", [])]
)
def test_a_stage_makes_its_splits_once(stage, splits):
    data = ToyDataModule()
    data.setup(stage)
    data.setup(stage)
    assert data.made == splits


def test_labels_are_made_at_their_first_use():
    data = ToyDataModule()
    assert data.made == []
    assert data.labels is data.labels
    assert data.made == ["labels"]


def test_normalization_is_that_of_the_input_format():
    assert ToyDataModule().normalization == Normalization((0, 0, 0))


@pytest.mark.parametrize(("cpus", "workers"), [(1, 1), (2, 1), (6, 5), (64, 8)])
def test_workers_leave_a_cpu_to_training(monkeypatch, cpus, workers):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cpus)), raising=False)
    assert ToyDataModule(num_workers=None).num_workers == workers


@pytest.mark.parametrize("option", [{"batch_size": 0}, {"eval_batch_size": 0}, {"num_workers": -1}])
def test_numbers_out_of_range_are_refused(option):
    data = ToyDataModule(**option)
    with pytest.raises(ValueError, match=f"--data.{next(iter(option))} must be at least"):
        data.setup("fit")


def drawn(**options):
    return [
        float(number)
        for batch in ready(length=8, batch_size=2, **options).train_dataloader()
        for number in batch["random"]
    ]


def test_samples_draw_different_numbers_and_the_seed_of_the_run_repeats_them(monkeypatch):
    first = drawn()
    assert len(set(first)) == 8
    torch.manual_seed(5)
    assert drawn() == first
    monkeypatch.setenv("PL_GLOBAL_SEED", "1")
    assert set(drawn()).isdisjoint(first)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [1, 3])
def test_samples_do_not_depend_on_the_number_of_workers(workers):
    assert drawn(num_workers=workers) == drawn(num_workers=0)


def test_loading_draws_nothing_from_the_random_numbers_of_training():
    state = torch.get_rng_state()
    list(ready().train_dataloader())
    iter(ready().val_dataloader())
    assert (torch.get_rng_state() == state).all()


def test_every_process_loads_its_own_share(make_trainer):
    data = ready(batch_size=2)
    shares = []
    for rank in range(2):
        data.trainer = make_trainer(processes=2, rank=rank)
        shares.append(indices(data.train_dataloader()))
    assert [len(share) for share in shares] == [4, 4]
    assert len({*shares[0], *shares[1]}) == 8


@pytest.mark.parametrize(
    ("progress", "epoch", "samples"),
    [
        ({}, 4, 0),
        ({"batches": 5}, 4, 5 * 2),
        ({"batches": 5, "processes": 2}, 4, 5 * 2 * 2),
        ({"batches": 5, "accumulated": 3}, 4, 3 * 2),
        ({"batches": 5, "last": True}, 5, 0),
    ],
    ids=["at the beginning of an epoch", "within", "of two processes", "between two steps", "at its end"],
)
def test_a_checkpoint_holds_of_how_many_samples_steps_were_taken(make_trainer, progress, epoch, samples):
    data = ready(length=40, batch_size=2)
    data.trainer = make_trainer(**progress)
    data.train_dataloader().sampler.set_epoch(4)
    processes = progress.get("processes", 1)
    assert data.state_dict() == {"epoch": epoch, "samples": samples, "batch_size": 2, "processes": processes}


def test_a_checkpoint_of_an_evaluation_holds_no_position(make_trainer):
    data = ready()
    data.trainer = make_trainer()
    assert data.state_dict() == {}


def test_a_resumed_run_loads_what_is_left_of_its_epoch():
    # As checkpoints counted once.
    data = ready(batch_size=2)
    data.load_state_dict({"epoch": 2, "batch": 0})
    whole = indices(data.train_dataloader())
    data.load_state_dict({"epoch": 2, "batch": 3})
    loader = data.train_dataloader()
    assert indices(loader) == whole[6:]
    assert len(loader) == 5
    loader.sampler.set_epoch(2)
    assert indices(loader) == whole


def test_a_resumed_run_with_another_batch_size_loads_each_sample_once():
    data, other = ready(length=12, batch_size=2), ready(length=12, batch_size=3)
    data.load_state_dict({"epoch": 2, "samples": 0, "batch_size": 2, "processes": 1})
    whole = indices(data.train_dataloader())
    other.load_state_dict({"epoch": 2, "samples": 6, "batch_size": 2, "processes": 1})
    assert indices(other.train_dataloader()) == whole[6:]


@pytest.mark.parametrize(
    ("now", "first"),
    [
        ({}, 12),
        ({"batch_size": 4}, 6),
        ({"batch_size": 5}, 4),
        ({"processes": 2}, 6),
        ({"accumulated": 8}, 8),
        ({"batch_size": 20}, 0),
    ],
)
def test_another_batch_size_begins_at_the_step_that_skips_no_sample(make_trainer, now, first):
    # 24 of 30 samples are done; there is a batch more while an epoch is not over.
    data = ready(length=30, batch_size=now.pop("batch_size", 2))
    data.trainer = make_trainer(**now)
    assert data.first_batch({"epoch": 2, "samples": 24, "batch_size": 2, "processes": 1}) == first


@pytest.fixture
def said(monkeypatch):
    words = []
    monkeypatch.setattr("flatten_dense.data.base.rank_zero_info", words.append)
    return words


@pytest.mark.parametrize(("batch_size", "expected"), [(4, []), (5, ["4 of its images come again"])])
def test_it_is_said_how_many_samples_come_again(said, batch_size, expected):
    data = ready(length=30, batch_size=batch_size)
    data.load_state_dict({"epoch": 2, "samples": 24, "batch_size": 2, "processes": 1})
    data.train_dataloader()
    assert [text in line for text, line in zip(expected, said, strict=True)] == [True] * len(said)


@pytest.mark.parametrize(("batch_size", "number"), [(2, 0), (4, 1)])
def test_it_is_said_if_the_order_follows_the_batch_size(said, batch_size, number):
    data = ready(length=30, batch_size=batch_size)
    data.make_sampler = lambda *processes: AspectRatioSampler([(3, 4)] * 30, batch_size, *processes)
    data.load_state_dict({"epoch": 2, "samples": 24, "batch_size": 2, "processes": 1})
    data.train_dataloader()
    assert ["some do not come" in line for line in said] == [True] * number


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_share_an_evaluation_set_without_repeating(processes):
    samplers = [UnrepeatedSampler(range(7), processes, rank) for rank in range(processes)]
    assert sorted(index for sampler in samplers for index in sampler) == list(range(7))
    assert [len(list(sampler)) for sampler in samplers] == [len(sampler) for sampler in samplers]


def test_fewer_images_than_processes_are_refused(make_trainer):
    data = ready(length=1)
    data.trainer = make_trainer(processes=2, rank=1)
    with pytest.raises(ValueError, match=r"--trainer.devices: 2 processes cannot share 1 image"):
        data.val_dataloader()


def test_the_heaviest_batch_is_as_large_as_an_ordinary_one():
    data = ready()
    assert data.heaviest_batch("train")["image"].shape == (4, 3, 2, 2)
    assert len(data.heaviest_batch("val")["image"]) == 3
    assert ready(length=2).heaviest_batch("train")["image"].shape == (2, 3, 2, 2)
