import importlib.util
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

_SPEC = importlib.util.spec_from_file_location("evaluate_masks", Path(__file__).parents[2] / "tools/evaluate_masks.py")
evaluate_masks = importlib.util.module_from_spec(_SPEC)
sys.modules["evaluate_masks"] = evaluate_masks  # dataclasses look their module up
_SPEC.loader.exec_module(evaluate_masks)


def write(path, rows, dtype=np.uint8):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(rows, dtype=dtype)).save(path)


@pytest.fixture
def folders(tmp_path):
    """Writes pairs {name: (truth, prediction)} and gives the two folders."""

    def make(pairs, dtype=np.uint8):
        for name, (truth, prediction) in pairs.items():
            write(tmp_path / f"truth/{name}.png", truth, dtype)
            write(tmp_path / f"predictions/{name}.png", prediction, dtype)
        return [str(tmp_path / "truth"), str(tmp_path / "predictions")]

    return make


def scores(capsys, *args):
    """The JSON on stdout, of a run without error."""
    assert evaluate_masks.main([*args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refusal(capsys, *args):
    """The message on stderr, of a run that scores nothing."""
    assert evaluate_masks.main(args) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


# Values 1..3, 0 is none. Class 1: 4 true, 2 found, 1 without class, 1 as class 3. Class 2: 2 true and found, and once
# where the truth is ignored. Class 3 is predicted once, and not in the truth.
BY_HAND = {"a": ([[1, 1, 1, 1]], [[1, 0, 3, 1]]), "sub/b": ([[2, 2, 0, 0]], [[2, 2, 2, 0]])}


@pytest.mark.parametrize(
    ("protocol", "mean_iou", "mean_acc", "absent"),
    [
        ("mmseg", (2 / 4 + 1 + 0) / 3, (2 / 4 + 1) / 2, {"IoU": 0, "Acc": None}),
        ("sceneparsing", (2 / 4 + 1 + 0) / 3, (2 / 4 + 1) / 3, {"IoU": 0, "Acc": 0}),
        ("detectron2", (2 / 4 + 1) / 2, (2 / 4 + 1) / 2, {"IoU": None, "Acc": None}),
    ],
)
def test_zero_is_ignored_in_the_truth_and_wrong_in_a_prediction(folders, capsys, protocol, mean_iou, mean_acc, absent):
    found = scores(capsys, *folders(BY_HAND), "--classes", "3", "--zero-is-ignore", "--protocol", protocol)
    assert (found["mIoU"], found["mAcc"], found["aAcc"]) == pytest.approx((mean_iou, mean_acc, 4 / 6), rel=1e-15)
    assert list(found["per_class"]) == ["1", "2", "3"]
    assert found["per_class"]["1"]["predicted_pixels"] == 2
    assert {key: found["per_class"]["3"][key] for key in absent} == absent
    assert (found["protocol"], found["num_images"]) == (protocol, 2)


def test_without_the_option_255_is_ignored_in_the_truth_and_wrong_in_a_prediction(folders, capsys):
    pairs = {"a": ([[0, 0, 1, 255]], [[0, 255, 1, 1]])}
    found = scores(capsys, *folders(pairs), "--classes", "2")
    assert (found["mIoU"], found["aAcc"]) == pytest.approx(((1 / 2 + 1) / 2, 2 / 3))
    assert found["per_class"]["0"]["truth_pixels"] == 2


def test_another_value_can_be_ignored(folders, capsys):
    pairs = {"a": ([[1, 1, 2, 0, 9]], [[1, 9, 2, 1, 1]])}
    found = scores(capsys, *folders(pairs), "--classes", "2", "--zero-is-ignore", "--ignore-index", "9")
    assert found["aAcc"] == pytest.approx(2 / 3)


def test_16_bit_masks_of_many_classes_are_scored(folders, capsys):
    pairs = {"a": ([[300, 255, 7]], [[300, 255, 8]])}
    found = scores(capsys, *folders(pairs, np.uint16), "--classes", "301", "--ignore-index", "-1")
    assert (found["mIoU"], found["aAcc"]) == pytest.approx((2 / 4, 2 / 3))


def test_values_are_those_of_the_naive_loop_over_random_masks(folders, capsys):
    rng = np.random.default_rng(0)
    pairs = {f"{i}": rng.integers(0, 6, (2, 9, 7)) for i in range(4)}
    found = scores(capsys, *folders(pairs), "--classes", "5", "--zero-is-ignore")
    truth, prediction = (np.concatenate([pair[side].ravel() for pair in pairs.values()]) for side in (0, 1))
    prediction, truth = prediction[truth > 0], truth[truth > 0]
    iou = [
        ((truth == value) & (prediction == value)).sum() / ((truth == value) | (prediction == value)).sum()
        for value in range(1, 6)
    ]
    assert found["mIoU"] == pytest.approx(np.mean(iou), rel=1e-14)
    assert found["aAcc"] == pytest.approx((truth == prediction).mean(), rel=1e-14)


def test_the_table_has_at_least_four_decimals(folders, capsys, tmp_path):
    (tmp_path / "classes.txt").write_text("cat\ndog\nbird\n")
    options = ["--classes", "3", "--zero-is-ignore", "--class-names", str(tmp_path / "classes.txt")]
    assert evaluate_masks.main([*folders(BY_HAND), *options]) == 0
    out = capsys.readouterr().out
    for name, expected in (("mIoU", 0.5), ("mAcc", 0.75), ("aAcc", 2 / 3), ("cat", 0.5), ("dog", 1.0), ("bird", 0.0)):
        printed = re.search(rf"^{name}\s+(\d\.\d{{4,}})", out, re.MULTILINE)
        assert float(printed[1]) == pytest.approx(expected, abs=1e-5)


def test_progress_is_not_on_stdout(folders, capsys):
    evaluate_masks.main([*folders(BY_HAND), "--classes", "3", "--zero-is-ignore", "--json"])
    captured = capsys.readouterr()
    assert "2/2" in captured.err
    json.loads(captured.out)


def test_nothing_labelled_is_null_in_json(folders, capsys):
    found = scores(capsys, *folders({"a": ([[255]], [[0]])}), "--classes", "2")
    assert found["mIoU"] is None
    assert evaluate_masks.main([*folders({}), "--classes", "2"]) == 0
    assert math.isnan(float(re.search(r"mIoU (\S+)", capsys.readouterr().out)[1]))


def test_files_are_paired_by_their_endings(tmp_path, capsys):
    write(tmp_path / "truth/city/a_labelIds.png", [[0, 1]])
    write(tmp_path / "truth/city/a_instanceIds.png", [[77, 77]])
    write(tmp_path / "predictions/city/a_photo.png", [[0, 1]])
    found = scores(
        capsys,
        *(str(tmp_path / name) for name in ("truth", "predictions")),
        *("--classes", "2", "--gt-suffix", "_labelIds.png", "--pred-suffix", "_photo.png"),
    )
    assert found["mIoU"] == 1


def test_all_that_is_wrong_is_said_at_once(folders, tmp_path, capsys):
    good = [[0, 1]]
    both = folders({"good": (good, good), "size": (good, [[0, 1, 0]]), "value": (good, [[0, 7]])})
    for number in range(7):
        write(tmp_path / f"truth/lone_{number}.png", good)
    write(tmp_path / "predictions/extra.png", good)
    write(tmp_path / "truth/colour.png", np.zeros((1, 2, 3)))
    write(tmp_path / "predictions/colour.png", good)
    write(tmp_path / "truth/damaged.png", good)
    (tmp_path / "predictions/damaged.png").write_bytes(b"no png")
    message = refusal(capsys, *both, "--classes", "2")
    for expected in (
        "7 true mask(s) without a prediction",
        "lone_0.png, lone_1.png, lone_2.png, lone_3.png, lone_4.png, ...",
        "1 prediction(s) without a true mask",
        "extra.png",
        "1 pair(s) of different sizes: size.png (2x1 and 3x1)",
        "1 file(s) with other values",
        "value.png (7)",
        "2 file(s) that are no masks",
        "colour.png: the mask has 3 channels (RGB)",
        "damaged.png: not a readable image",
        "values 0..1 or 255 (no class)",
    ):
        assert expected in message


@pytest.mark.parametrize(
    ("options", "value", "hint"),
    [([], 2, "counted from 1, use --zero-is-ignore"), (["--zero-is-ignore"], 255, "--ignore-index V")],
)
def test_values_outside_come_with_a_hint(folders, capsys, options, value, hint):
    assert hint in refusal(capsys, *folders({"a": ([[1, value]], [[1, 1]])}), "--classes", "2", *options)


def test_folders_without_a_common_name_get_a_hint(tmp_path, capsys):
    write(tmp_path / "truth/a_gt.png", [[0]])
    write(tmp_path / "predictions/a.png", [[0]])
    message = refusal(capsys, str(tmp_path / "truth"), str(tmp_path / "predictions"), "--classes", "2")
    assert "no name is in both folders" in message
    assert "--gt-suffix" in message


def test_missing_folders_are_named(tmp_path, capsys):
    message = refusal(capsys, str(tmp_path / "one"), str(tmp_path / "two"), "--classes", "2")
    assert f"{tmp_path / 'one'} and {tmp_path / 'two'}: no such folder" in message


def test_an_empty_folder_is_named(folders, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    truth, _ = folders({"a": ([[0]], [[0]])})
    assert f"{tmp_path / 'empty'}: the folder holds no image" in refusal(
        capsys, truth, str(tmp_path / "empty"), "--classes", "2"
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--classes", "1"], "--classes must be at least 2, got 1"),
        (["--classes", "256"], "255 would be ignored, but is one of the classes 0..255"),
        (["--classes", "3", "--ignore-index", "2"], "2 would be ignored, but is one of the classes 0..2"),
        (["--classes", "3", "--class-names", "NAMES"], "names 2 classes, but --classes is 3"),
    ],
)
def test_options_that_cannot_be_are_refused(folders, tmp_path, capsys, options, expected):
    (tmp_path / "NAMES").write_text("cat\ndog\n")
    options = [str(tmp_path / option) if option == "NAMES" else option for option in options]
    assert expected in refusal(capsys, *folders({"a": ([[0]], [[0]])}), *options)


def test_an_unknown_protocol_is_refused_with_the_names_there_are(folders, capsys):
    with pytest.raises(SystemExit):
        evaluate_masks.main([*folders({}), "--classes", "2", "--protocol", "coco"])
    assert re.search("mmseg.*sceneparsing.*detectron2", capsys.readouterr().err)


def test_ignoring_no_value_counts_all_of_an_8_bit_mask(folders, capsys):
    both = folders({"a": ([[255, 255, 0, 1]], [[0, 0, 0, 1]])})
    assert scores(capsys, *both, "--classes", "256", "--ignore-index", "-1")["aAcc"] == 0.5
    assert "255" in refusal(capsys, *both, "--classes", "2", "--ignore-index", "-1")
