import contextlib
import importlib.util
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as rle_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

_SPEC = importlib.util.spec_from_file_location(
    "evaluate_coco_json", Path(__file__).parents[2] / "tools/evaluate_coco_json.py"
)
evaluate_coco_json = importlib.util.module_from_spec(_SPEC)
sys.modules["evaluate_coco_json"] = evaluate_coco_json
_SPEC.loader.exec_module(evaluate_coco_json)

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
SIZE = (200, 300)


def disc(box):
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    mask = ((x - box[0]) / box[2] * 2 - 1) ** 2 + ((y - box[1]) / box[3] * 2 - 1) ** 2 <= 1
    packed = rle_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {**packed, "counts": packed["counts"].decode()}


@pytest.fixture
def files(tmp_path):
    """An annotation file and a result file of boxes and masks, of three categories and six images with sparse ids."""
    rng = np.random.default_rng(1)
    images = [{"id": number, "height": SIZE[0], "width": SIZE[1]} for number in (9, 100, 33, 5000, 12, 77)]
    annotations, results = [], []
    for image in images[:-1]:
        for side in (20, 60, 140):
            box = [*rng.uniform(0, 60, 2).round(1).tolist(), *rng.uniform(0.8 * side, side, 2).round(1).tolist()]
            row = {"image_id": image["id"], "category_id": int(rng.choice([4, 6, 11]))}
            segmentation = disc(box)
            area = int(rle_masks.area(segmentation))
            numbers = {"id": len(annotations) + 1, "iscrowd": int(rng.uniform() < 0.1), "area": area}
            annotations.append({**row, **numbers, "bbox": box, "segmentation": segmentation})
            for _ in range(2):
                moved = (np.array(box) + rng.normal(0, 0.05 * side, 4)).clip(1).tolist()
                score = round(rng.uniform(), 3)
                results.append({**row, "score": score, "bbox": moved, "segmentation": disc(moved)})
    categories = [{"id": number, "name": name} for number, name in ((11, "owl"), (4, "cat"), (6, "dog"))]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    for name, content in (("truth", truth), ("results", results)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return [str(tmp_path / "truth.json"), str(tmp_path / "results.json")]


def cocoeval(files, iou_type):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(files[0])
        results = json.loads(Path(files[1]).read_text())
        if iou_type == "segm":  # so that sizes are told apart by the mask
            results = [{key: row[key] for key in row if key != "bbox"} for row in results]
        evaluation = COCOeval(truth, truth.loadRes(results), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def refusal(capsys, *args):
    assert evaluate_coco_json.main(args) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_json_holds_the_numbers_of_cocoeval(files, capsys, iou_type):
    assert evaluate_coco_json.main([*files, "--iou-type", iou_type, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    evaluation = cocoeval(files, iou_type)
    assert found[iou_type] == pytest.approx(dict(zip(NAMES, evaluation.stats, strict=True)), abs=1e-12)
    per_class = evaluation.eval["precision"][:, :, :, 0, 2].mean((0, 1))
    for name, ap in zip(("cat", "dog", "owl"), per_class, strict=True):
        assert found["per_class"][name][f"{iou_type}_AP"] == pytest.approx(ap)
    assert (found["iou_type"], found["num_images"]) == (iou_type, 6)


def test_the_table_has_at_least_four_decimals(files, capsys):
    assert evaluate_coco_json.main([*files, "--iou-type", "segm"]) == 0
    out = capsys.readouterr().out
    for name, expected in zip(NAMES, cocoeval(files, "segm").stats, strict=True):
        printed = re.search(rf"^{name}\s+(\d\.\d{{4,}})$", out, re.MULTILINE)
        assert float(printed[1]) == pytest.approx(expected, abs=1e-6)
    assert re.search(r"^owl +\d\.\d{6} +\d\.\d{6} +\d+ +\d+$", out, re.MULTILINE)
    assert "6 images, 30 detections, segm" in out


def test_nothing_to_find_is_null_in_json_and_nan_in_the_table(files, capsys):
    truth = json.loads(Path(files[0]).read_text())
    Path(files[0]).write_text(json.dumps({**truth, "annotations": []}))
    assert evaluate_coco_json.main([*files, "--iou-type", "bbox", "--errors", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["bbox"].values()) == {None} == set(found["errors"]["costs_AP50"].values())
    assert evaluate_coco_json.main([*files, "--iou-type", "bbox"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^AP +nan$", out, re.MULTILINE)
    assert re.search(r"^cat +- +- +0 ", out, re.MULTILINE)


def test_mistakes_are_counted_and_priced_on_demand(files, capsys):
    assert evaluate_coco_json.main([*files, "--iou-type", "bbox", "--errors"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^mistake +score >= 0.3 +costs AP50$", out, re.MULTILINE)
    duplicates = re.search(r"^duplicate +(\d+) +(\d\.\d{6})$", out, re.MULTILINE)
    assert int(duplicates[1]) > 0
    evaluate_coco_json.main([*files, "--iou-type", "bbox", "--errors", "--json"])
    errors = json.loads(capsys.readouterr().out)["errors"]
    assert errors["counts"]["duplicate"] == int(duplicates[1])
    assert errors["costs_AP50"]["duplicate"] == pytest.approx(float(duplicates[2]), abs=1e-6)


def test_corners_given_as_width_and_height_draw_a_warning(files, capsys):
    rows = json.loads(Path(files[1]).read_text())
    for row in rows:
        row["bbox"] = [160, 110, 290, 190]
    Path(files[1]).write_text(json.dumps(rows))
    assert evaluate_coco_json.main([*files, "--iou-type", "bbox", "--json"]) == 0
    captured = capsys.readouterr()
    assert f"{files[1]}: most boxes reach beyond their images" in captured.err
    json.loads(captured.out)


def test_files_in_the_wrong_order_are_refused(files, capsys):
    message = refusal(capsys, *files[::-1], "--iou-type", "bbox")
    assert f"{files[1]}: holds a list, as a result file does; name the annotation file first" in message


def test_one_file_given_twice_is_refused(files, capsys):
    message = refusal(capsys, files[0], files[0], "--iou-type", "bbox")
    assert "This is an annotation file: name the annotation file first, then the results" in message


def test_results_of_another_data_set_are_refused_with_what_there_is(files, capsys):
    rows = json.loads(Path(files[1]).read_text())
    Path(files[1]).write_text(json.dumps([{**row, "image_id": 1, "category_id": 0} for row in rows]))
    message = refusal(capsys, *files, "--iou-type", "bbox")
    assert message.startswith(f"evaluate_coco_json.py: {files[1]}: the results cannot be scored:\n  30 detection(s) of")
    assert "The annotations list 6 images, such as 9, 12, 33, 77, 100, ..." in message


def test_boxes_alone_cannot_be_scored_as_masks(files, capsys):
    rows = [{key: row[key] for key in row if key != "segmentation"} for row in json.loads(Path(files[1]).read_text())]
    Path(files[1]).write_text(json.dumps(rows))
    assert "30 detection(s) without a mask; --iou-type bbox" in refusal(capsys, *files, "--iou-type", "segm")


def test_the_regions_must_be_named(files, capsys):
    with pytest.raises(SystemExit):
        evaluate_coco_json.main(files)
    assert "--iou-type" in capsys.readouterr().err
