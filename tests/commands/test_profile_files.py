import json

import pytest
from PIL import Image

from flatten_dense.commands import profile_files
from flatten_dense.commands.profile_files import Profile
from flatten_dense.profiling.choices import Choice
from flatten_dense.profiling.sweep import Point, Settings

SIZES = [(64, 64), (128, 128)]
L, S = Choice("flatten", "LLLL", 7, {SIZES[0]: 11}), Choice("flatten", "SSSS", 7, {})
FACTS = {"command": "flatten-dense profile flatten", "machine": {"processor": "a processor", "torch": "2.9"}}


@pytest.fixture
def profile() -> Profile:
    """Linear attention is ahead in time from a side of about 90 on."""
    profile = Profile(Settings(SIZES, batch_size=4, threads=2), FACTS)
    profile.add([Point(L, SIZES[0], (2.0, 3.0, 2.0), 10, 99), Point(S, SIZES[0], (1.0,), 8, 99)])
    profile.add([Point(L, SIZES[1], (8.0,), 40, 99), Point(S, SIZES[1], (16.0,), 32, 99)])
    return profile


def test_conditions_in_a_line(profile):
    assert profile.conditions() == "a processor, 2 threads, torch 2.9; forward pass of 4 images, float32"


def test_conditions_of_a_training_on_a_gpu():
    facts = {"machine": {"processor": "a processor", "gpu": "a card", "torch": "2.9"}}
    profile = Profile(Settings(SIZES, 1, True, "bfloat16", "cuda", 1), facts)
    assert profile.conditions() == "a card, torch 2.9; forward and backward pass of 1 image, bfloat16"


def test_json_holds_all_numbers_and_every_repetition(profile):
    content = json.loads(profile.to_json())
    assert (content["command"], content["machine"]) == (FACTS["command"], FACTS["machine"])
    assert content["settings"]["threads"] == 2
    assert len(content["points"]) == 4
    assert content["points"][0] == {
        "model": "flatten",
        "attention": "LLLL",
        "size": [64, 64],
        "seconds": 2.0,
        "images_per_second": 2.0,
        "peak_bytes": 10,
        "loaded_bytes": 99,
        "macs": 11,
        "parameters": 7,
        "repetitions": [2.0, 3.0, 2.0],
        "skipped": None,
    }


def test_json_holds_what_follows_from_them(profile):
    content = json.loads(profile.to_json())
    linear = content["growth_exponents"][0]
    assert (linear["model"], linear["attention"]) == ("flatten", "LLLL")
    assert (linear["time"], linear["memory"]) == (pytest.approx(1), pytest.approx(1))
    (crossover,) = content["crossovers"]
    assert crossover["beside"] == {"model": "flatten", "attention": "SSSS"}
    assert crossover["time"]["side"] == pytest.approx(64 * 2**0.5)
    assert crossover["memory"] == {"words": "beyond 128", "side": None, "latest": None}
    assert len(content["advice"]) == 1


def test_a_profile_that_was_stopped_has_its_points_but_no_conclusions():
    profile = Profile(Settings(SIZES), FACTS)
    profile.add([Point(L, SIZES[0], (2.0,), 10, 99), Point(S, SIZES[0], skipped="out of memory")])
    content = json.loads(profile.to_json())
    assert [point["skipped"] for point in content["points"]] == [None, "out of memory"]
    assert content["advice"] == content["crossovers"] == content["growth_exponents"] == []


def test_both_files_are_saved_in_a_new_folder(profile, tmp_path):
    folder = tmp_path / "runs" / "new"
    profile.save(folder)
    assert (folder / "profile.json").read_text() == profile.to_json()
    assert Image.open(folder / "profile.png").format == "PNG"


def drawn(profile, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(profile_files, "plot_costs", lambda curves, *_: seen.extend(curves))
    profile.save(tmp_path)
    return seen


def test_the_picture_has_a_line_a_choice_and_marks_the_crossing(profile, tmp_path, monkeypatch):
    linear, softmax = drawn(profile, tmp_path, monkeypatch)
    assert linear.costs == ([2.0, 8.0], [10, 40])
    assert linear.crossings == (pytest.approx(64 * 2**0.5), None)
    assert (linear.is_baseline, softmax.is_baseline) == (False, True)
    assert linear.group != softmax.group


def test_of_several_models_each_has_a_colour(profile, tmp_path, monkeypatch):
    profile.add([Point(Choice("swin_tiny", None, 1), SIZES[0], (1.0,), 1, 1)])
    assert [curve.group for curve in drawn(profile, tmp_path, monkeypatch)] == [0, 0, 1]


def test_the_picture_says_why_a_line_ends(tmp_path, monkeypatch):
    profile = Profile(Settings(SIZES), FACTS)
    profile.add([Point(L, SIZES[0], (2.0,), 10, 99)])
    profile.add([Point(L, SIZES[1], skipped="out of memory")])
    assert drawn(profile, tmp_path, monkeypatch)[0].why_it_ends == "128 out of memory"
