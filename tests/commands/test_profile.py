import json
import subprocess
import sys

import pytest
from PIL import Image

from flatten_dense.cli import main
from flatten_dense.commands import profile
from flatten_dense.profiling import Pass, sweep
from flatten_dense.profiling.sweep import Point


@pytest.fixture
def model(monkeypatch):
    """In place of processes: linear attention takes a second per 64 x 64 pixels, softmax the square of that."""

    class FakeModel:
        loaded = 1

        def __init__(self, case):
            self.case = case

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def run(self, limit):
            area = self.case.size[0] * self.case.size[1] / 64**2
            return Pass(2 * area if "L" in self.case.options.get("attention", "") else area**2, int(area * 2**20))

    monkeypatch.setattr(sweep, "FreshModel", FakeModel)
    return FakeModel


@pytest.fixture
def refuse(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*args):
        before = set(tmp_path.rglob("*"))
        assert main(["profile", *args]) == 2
        assert set(tmp_path.rglob("*")) == before, "a refused command left something behind"
        return capsys.readouterr().err

    return run


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A real profile of a micro variant: what it printed, and its folder."""
    folder = tmp_path_factory.mktemp("profile") / "out"
    command = [sys.executable, "-m", "flatten_dense.cli", "profile", "flatten_pvt_test", "--sizes", "64,32"]
    command += ["--threads", "1", "--repetitions", "1", "--output", str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout, folder


def test_the_table_has_a_row_for_each_choice_and_size(measured):
    rows = [line.split() for line in measured[0].splitlines() if line.startswith("flatten_pvt_test ") and "ms" in line]
    assert [row[1:3] for row in rows] == [["LLLL", "32"], ["SSSS", "32"], ["LLLL", "64"], ["SSSS", "64"]]


def test_numbers_of_the_json_are_measured(measured):
    content = json.loads((measured[1] / "profile.json").read_text())
    assert len(content["points"]) == 4
    assert all(point["seconds"] > 0 and point["peak_bytes"] >= 0 for point in content["points"])
    assert content["settings"]["threads"] == 1
    assert content["machine"]["torch"]


def test_there_is_a_picture(measured):
    assert min(Image.open(measured[1] / "profile.png").size) > 400


def test_the_last_lines_are_advice_and_the_files(measured):
    *_, advice, blank, files = measured[0].splitlines()
    assert advice.startswith("flatten_pvt_test: ")
    assert blank == ""
    assert files == f"{measured[1] / 'profile.png'}, {measured[1] / 'profile.json'}"


def test_crossing_and_growth_reach_the_table(model, capsys, tmp_path):
    options = ["--sizes", "64,128", "--repetitions", "1", "--output", str(tmp_path / "out")]
    assert main(["profile", "flatten_deit_test", *options]) == 0
    printed = capsys.readouterr().out
    assert "about 91" in printed
    assert (
        "use linear attention (L) from 96 pixels on, softmax attention (S) below: at 128 it is 2 times as fast"
        in printed
    )


def test_a_point_that_would_take_too_long_is_said_in_the_table(model, capsys, tmp_path):
    options = ["--sizes", "64,128,256", "--limit", "100", "--repetitions", "1", "--output", str(tmp_path / "out")]
    assert main(["profile", "flatten_deit_test", *options]) == 0
    assert "would take about 256 s, over the limit of 100 s" in capsys.readouterr().out


def test_json_goes_to_stdout_alone(model, capsys, tmp_path):
    options = ["--sizes", "64", "--json", "--output", str(tmp_path / "out")]
    assert main(["profile", "flatten_deit_test", *options]) == 0
    printed = capsys.readouterr()
    assert printed.out == (tmp_path / "out/profile.json").read_text()
    assert "flatten_deit_test" in printed.err


def test_what_was_measured_before_a_stop_is_on_disk(model, monkeypatch, capsys, tmp_path):
    run = model.run

    def stop(self, limit):
        if self.case.size == (128, 128):
            raise KeyboardInterrupt
        return run(self, limit)

    monkeypatch.setattr(model, "run", stop)
    assert main(["profile", "flatten_deit_test", "--sizes", "64,128", "--output", str(tmp_path / "out")]) == 130
    assert len(json.loads((tmp_path / "out/profile.json").read_text())["points"]) == 2


def test_a_run_that_is_stopped_before_its_first_size_leaves_nothing(model, monkeypatch, capsys, tmp_path):
    def stop(self, limit):
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "run", stop)
    assert main(["profile", "flatten_deit_test", "--sizes", "64", "--output", str(tmp_path / "out")]) == 130
    assert list(tmp_path.iterdir()) == []


def test_options_become_settings(monkeypatch, tmp_path):
    seen = []

    def keep(choices, settings):
        seen.append(settings)
        for size in settings.sizes:
            yield [Point(choice, size, skipped="not tried") for choice in choices]

    monkeypatch.setattr(profile, "sweep", keep)
    options = ["--sizes", "64x32,64", "--train", "--dtype", "bfloat16", "--batch_size", "2", "--threads", "1"]
    options += ["--repetitions", "4", "--limit", "0.5", "--device", "cpu", "--output", str(tmp_path)]
    assert main(["profile", "flatten_deit_test", *options]) == 0
    assert seen == [sweep.Settings([(64, 32), (64, 64)], 2, True, "bfloat16", "cpu", 1, 4, 0.5)]


def test_folders_of_profiles_are_named_by_their_time(model, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["profile", "flatten_deit_test", "--sizes", "64"]) == 0
    assert len(list((tmp_path / "runs/profile").glob("20??-*/profile.json"))) == 1


def test_a_model_that_does_not_exist(refuse):
    assert "unknown backbone name 'flatten_pvt_tost': did you mean flatten_pvt_test" in refuse("flatten_pvt_tost")


def test_an_attention_that_does_not_fit(refuse):
    assert "--attention: none of LL fits flatten_pvt_test" in refuse("flatten_pvt_test", "--attention", "LL")


@pytest.mark.parametrize("sizes", ["big", "64,x", "64x64x64"])
def test_what_is_no_size(refuse, sizes):
    assert "--sizes takes a side in pixels, or height and width" in refuse("flatten_pvt_test", "--sizes", sizes)


def test_a_size_that_is_too_small(refuse):
    assert "--sizes must be 32 to 65536 pixels on each side, got 16 x 16" in refuse("flatten_pvt_test", "--sizes", "16")


def test_no_sizes(refuse):
    assert "--sizes needs at least one side" in refuse("flatten_pvt_test", "--sizes", ",")


def test_a_device_that_is_not_there(refuse):
    assert "--device warp: PyTorch cannot use it here" in refuse("flatten_pvt_test", "--device", "warp")


def test_a_device_that_computes_nothing(refuse):
    assert "--device meta: must be cpu or cuda" in refuse("flatten_pvt_test", "--device", "meta")


def test_a_folder_that_is_not_empty(refuse, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    message = refuse("flatten_pvt_test", "--output", "mine")
    assert "--output mine: not an empty folder; name a new one, nothing is overwritten" in message


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--batch_size", "0", "must be a whole number from 1 on, got '0'"),
        ("--threads", "two", "must be a whole number from 1 on, got 'two'"),
        ("--repetitions", "1.5", "must be a whole number from 1 on, got '1.5'"),
        ("--limit", "-1", "must be a number above 0, got '-1'"),
        ("--limit", "0", "must be a number above 0, got '0'"),
    ],
)
def test_numbers_out_of_range(capsys, option, value, expected):
    with pytest.raises(SystemExit, match="2"):
        main(["profile", "flatten_pvt_test", option, value])
    assert f"argument {option}: {expected}" in capsys.readouterr().err


def test_help_says_what_it_measures(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["profile", "--help"])
    printed = capsys.readouterr().out
    assert "--attention" in printed
    assert "example: flatten-dense profile" in printed


def test_does_not_wait_for_lightning():
    code = "import sys; import flatten_dense.commands.profile\n"
    code += "assert 'lightning' not in sys.modules, 'lightning was imported'"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
