import importlib
import json

import pytest
import yaml

fits, runs, variants = (importlib.import_module(f"experiments.{name}") for name in ("fits", "runs", "variants"))
MODEL = {"name": "flatten_deit_test", "options": {"attention": "relu"}}
OFTEN = {"max_epochs": 2, "check_val_every_n_epoch": 1, "val_check_interval": None}
CONFIG = {"trainer": OFTEN, "model": {"init_args": {"backbone": {"class_path": "TimmClassifier", "init_args": MODEL}}}}
FIRST, SECOND = variants.Variant("first", ("--x", "1")), variants.Variant("second", ("--x", "2"))
EXPERIMENT = variants.Experiment("a/recipe", "title", "x", "model", (FIRST, SECOND))


class Process:
    """A `fit` that has ended, or that never ends."""

    def __init__(self, returncode):
        self.returncode = returncode
        self.was_asked_to_end = False

    def poll(self):
        return self.returncode

    def terminate(self):
        self.was_asked_to_end = True

    def wait(self):
        return self.returncode


def write_run(folder, top1=0.5):
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints/last.ckpt").touch()
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (folder / "metrics.json").write_text(json.dumps({"top1": top1, "per_class": {"cat": {}, "dog": {}}}))


@pytest.fixture
def started(monkeypatch):
    """The options of each `fit` that is started; it ends at once, with a score."""
    calls = []

    def start_fit(options, log, threads, keep_open):
        calls.append(options)
        if "--ckpt_path" not in options:
            write_run(log.parent / f"2026-01-0{len(calls)}")
        return Process(0)

    monkeypatch.setattr(runs, "start_fit", start_fit)
    monkeypatch.setattr(runs, "_POLL", 0)
    return calls


def train(todo, jobs=1):
    return runs.train(todo, "a/recipe", ["--data.root", "photos"], jobs, 1, 0)


def test_all_variants_of_a_seed_come_before_the_next_seed(tmp_path):
    found = [(run.variant.name, run.seed) for run in runs.runs_of(EXPERIMENT, [3, 5], tmp_path)]
    assert found == [("first", 3), ("second", 3), ("first", 5), ("second", 5)]


def test_a_new_run_gets_the_recipe_its_seed_and_the_options_of_its_variant(tmp_path, started):
    list(train([runs.Run(SECOND, 7, tmp_path)]))
    (options,) = started
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert given == {
        "-c": "a/recipe",
        "--runs": str(tmp_path / "second"),
        "--name": "seed_7",
        "--seed_everything": "7",
        "--trainer.enable_progress_bar": "false",
        "--data.root": "photos",
        "--x": "2",
    }


def test_a_run_that_was_stopped_goes_on_from_its_last_checkpoint(tmp_path, started):
    run = runs.Run(FIRST, 0, tmp_path)
    write_run(run.home / "2026-01-01")
    ((_, result),) = train([run])
    (options,) = started
    assert options[options.index("--ckpt_path") + 1] == str(run.home / "2026-01-01/checkpoints/last.ckpt")
    assert "--name" not in options  # a new name would be a new run
    assert "--runs" not in options
    assert result.seconds is None


@pytest.mark.parametrize(
    ("trainer", "is_over"),
    [({"max_epochs": 1}, True), ({"max_epochs": 2}, False), ({"max_epochs": 1, "val_check_interval": 0.5}, False)],
)
def test_a_score_that_was_not_noted_is_not_trained_again_if_it_is_the_last(tmp_path, started, trainer, is_over):
    run = runs.Run(FIRST, 0, tmp_path)
    write_run(run.home / "2026-01-01")
    (run.home / "2026-01-01/config.yaml").write_text(yaml.safe_dump(CONFIG | {"trainer": OFTEN | trainer}))
    ((_, result),) = train([run])
    assert bool(started) != is_over
    assert run.result() == result
    assert (result.value, result.seconds) == (0.5, None)


def test_a_score_that_was_half_written_is_measured_again(tmp_path, started):
    run = runs.Run(FIRST, 0, tmp_path)
    (run.home / "2025-12-31").mkdir(parents=True)
    (run.home / "2025-12-31/metrics.json").write_text('{"top1": 0.')
    ((_, result),) = train([run])
    assert result.run == "first/seed_0/2026-01-01"


def test_a_result_is_kept(tmp_path, started):
    run = runs.Run(FIRST, 0, tmp_path)
    assert run.result() is None
    ((_, result),) = train([run])
    assert run.result() == result
    assert (result.variant, result.seed, result.score, result.value) == ("first", 0, "top1", 0.5)
    assert result.seconds >= 0


def test_the_folder_of_a_run_is_told_from_that_of_the_experiment(tmp_path, started):
    run = runs.Run(FIRST, 0, tmp_path)
    list(train([run]))
    note = run.home / "result.json"
    assert json.loads(note.read_text())["run"] == run.result().run == "first/seed_0/2026-01-01"
    elsewhere = {"run": "/else/where/first/seed_0/2026-01-01"}
    note.write_text(json.dumps(json.loads(note.read_text()) | elsewhere))  # of an earlier version, and moved since
    assert run.result().run == "first/seed_0/2026-01-01"


def test_parameters_are_those_of_the_model_with_its_classes(tmp_path):
    write_run(tmp_path / "run")
    model = runs.TimmClassifier("flatten_deit_test", options={"attention": "relu", "num_classes": 3})
    expected = sum(parameter.numel() for parameter in model.parameters())
    assert runs.count_parameters(tmp_path / "run/config.yaml", 3) == expected


def test_no_more_runs_than_asked_for_are_under_way(tmp_path, monkeypatch):
    under_way, most = [], []

    def start_fit(options, log, threads, keep_open):
        process = Process(None)
        under_way.append((process, log.parent))
        most.append(sum(other.returncode is None for other, _ in under_way))
        return process

    def end_one(seconds):
        process, home = next(pair for pair in under_way if pair[0].returncode is None)
        write_run(home / "2026-01-01")
        process.returncode = 0

    monkeypatch.setattr(runs, "start_fit", start_fit)
    monkeypatch.setattr(runs.time, "sleep", end_one)
    ended = [run.seed for run, _ in train([runs.Run(FIRST, seed, tmp_path) for seed in range(4)], jobs=2)]
    assert ended == [0, 1, 2, 3]
    assert most == [1, 2, 2, 2]


def test_a_failure_tells_the_end_of_the_log_and_the_others_go_on(tmp_path, monkeypatch, started):
    ends_well = runs.start_fit

    def start_fit(options, log, threads, keep_open):
        if options[-1] == "1":
            log.write_text("the loss is not finite")
            return Process(2)
        return ends_well(options, log, threads, keep_open)

    monkeypatch.setattr(runs, "start_fit", start_fit)
    (_, first), (_, second) = train([runs.Run(FIRST, 0, tmp_path), runs.Run(SECOND, 0, tmp_path)])
    assert "status 2" in first
    assert "the loss is not finite" in first
    assert second.value == 0.5


def test_a_run_without_a_validation_has_failed(tmp_path, monkeypatch, started):
    monkeypatch.setattr(runs, "start_fit", lambda *_: Process(0))
    ((run, outcome),) = train([runs.Run(FIRST, 0, tmp_path)])
    assert "check_val_every_n_epoch" in outcome
    assert run.result() is None


def test_whoever_stops_the_training_stops_its_processes(tmp_path, monkeypatch):
    process = Process(None)
    monkeypatch.setattr(runs, "start_fit", lambda *_: process)

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(runs.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(train([runs.Run(FIRST, 0, tmp_path)]))
    assert process.was_asked_to_end
