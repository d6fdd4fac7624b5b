import shutil
import subprocess
import sys

import lightning.pytorch  # noqa: F401 - first imported under capsys, its log handler would keep a closed stream
import numpy as np
import pytest
from PIL import Image

from flatten_dense.cli import main, plain_words

SHAPES = "segmentation/flatten_pvt_nano_fpn_shapes"


@pytest.fixture
def refuse(capsys, tmp_path, monkeypatch):
    """Run a command that must fail; return its one message."""
    monkeypatch.chdir(tmp_path)

    def run(*args) -> str:
        before = set(tmp_path.rglob("*"))
        assert main([str(arg) for arg in args]) == 2
        message = capsys.readouterr().err
        assert "Traceback" not in message
        assert set(tmp_path.rglob("*")) == before, "a refused command left something behind"
        return message

    return run


def test_help_does_not_wait_for_lightning():
    code = "import sys; from flatten_dense.cli import main; main(['--help'])\n"
    code += "assert 'lightning' not in sys.modules, 'lightning was imported'"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_help_lists_the_commands(capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(verb in printed for verb in ("fit", "validate", "test", "predict", "demo", "recipes"))


def test_help_of_a_verb_shows_its_options(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--help"])
    assert "--save_every" in capsys.readouterr().out


def test_unknown_command(refuse):
    assert "did you mean 'predict'" in refuse("predikt")


def test_fit_without_a_recipe(refuse):
    assert "fit needs a recipe" in refuse("fit")


def test_unknown_recipe(refuse):
    assert "did you mean classification/flatten_pvt_nano_shapes or " in refuse("fit", "-c", "flatten_pvt_nano_shape")


def test_unknown_option(refuse, fitted):
    message = refuse("fit", "-c", fitted.recipe, "--data.root", fitted.data, "--data.batchsize", "2")
    assert "unknown option" in message
    assert "data.batchsize" in message


def test_wrong_type_of_option(refuse, fitted):
    message = refuse("fit", "-c", fitted.recipe, "--data.root", fitted.data, "--data.batch_size", "many")
    assert "option --data.batch_size:" in message
    assert "Expected a <class 'int'>" in message


def test_option_out_of_range(refuse, fitted):
    message = refuse("fit", "-c", fitted.recipe, "--data.root", fitted.data, "--data.batch_size", "0")
    assert "--data.batch_size must be at least 1, got 0" in message


def test_unknown_backbone(refuse, fitted):
    options = ["--data.root", fitted.data, "--model.backbone.name", "flatten_pvt_huge"]
    assert "unknown backbone name 'flatten_pvt_huge': did you mean" in refuse("fit", "-c", fitted.recipe, *options)


def test_no_root(refuse, fitted):
    assert "option --data:\n  the following arguments are required: root" in refuse("fit", "-c", fitted.recipe)


def test_missing_folder(refuse, fitted, tmp_path):
    message = refuse("fit", "-c", fitted.recipe, "--data.root", tmp_path / "nowhere")
    assert "nowhere: no such folder; expected the one that holds images and annotations" in message


def test_empty_folder(refuse, fitted, tmp_path):
    for folder in ("images/training", "annotations/training"):
        (tmp_path / folder).mkdir(parents=True)
    message = refuse("fit", "-c", fitted.recipe, "--data.root", tmp_path, "--data.num_classes", "3")
    assert "images/training: the folder holds no image" in message


def test_image_without_a_mask(refuse, fitted, ade_root):
    root = ade_root()
    (root / "annotations/training/photo_1.png").unlink()
    message = refuse("fit", "-c", fitted.recipe, "--data.root", root)
    assert "1 image(s) without a mask: photo_1.jpg" in message


def test_wrong_class_count(refuse, fitted, ade_root):
    message = refuse("fit", "-c", fitted.recipe, "--data.root", ade_root(), "--data.num_classes", "7")
    assert "classes.txt" in message
    assert "names 3 classes" in message


def test_mask_outside_the_classes(fitted, ade_root, tmp_path, capsys):
    root = ade_root()
    for path in (root / "annotations/training").iterdir():
        Image.fromarray(np.full((12, 16), 9, np.uint8)).save(path)
    options = ["--data.root", str(root), "--runs", str(tmp_path / "runs"), "--data.num_workers", "1"]
    assert main(["fit", "-c", str(fitted.recipe), *options]) == 2
    message = capsys.readouterr().err
    assert "the mask holds 9, outside the 3 classes" in message
    assert "Traceback" not in message


def test_missing_checkpoint(refuse, fitted):
    assert "no such checkpoint" in refuse("test", "--ckpt_path", "none.ckpt", "--data.root", fitted.data)


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_weights_are_asked_for(refuse, verb):
    assert f"{verb} needs the weights to use: --ckpt_path" in refuse(verb)


def test_other_classes_than_the_checkpoint(refuse, fitted, ade_root):
    root = ade_root(splits=("training", "validation", "test"))
    (root / "classes.txt").write_text("cat\ndog\nbird\nfish\n")
    message = refuse("test", "--ckpt_path", fitted.best, "--data.root", root)
    assert "the model was trained on 3 classes (cat, dog, bird)" in message
    assert "names 4" in message


def test_another_class_count_than_the_checkpoint(refuse, fitted):
    options = ["--ckpt_path", fitted.best, "--data.root", fitted.data, "--data.num_classes", "7"]
    assert "trained on 3 classes (cat, dog, bird), but --data.num_classes says 7" in refuse("test", *options)


def test_another_model_than_the_checkpoint(fitted, tmp_path, capsys):
    options = ["--data.root", str(fitted.data), "--runs", str(tmp_path), "--model.neck.init_args.out_channels", "8"]
    assert main(["test", "--ckpt_path", str(fitted.best), *options]) == 2
    assert "the checkpoint holds another model than the configuration describes" in capsys.readouterr().err


def test_predict_with_a_recipe(refuse, fitted):
    options = ["--ckpt_path", fitted.best, "--input", fitted.data, "--output", "out", "-c", fitted.recipe]
    assert "leave out -c" in refuse("predict", *options)


def test_unknown_length_of_training(fitted, tmp_path, capsys):
    options = ["--data.root", str(fitted.data), "--runs", str(tmp_path), "--trainer.max_steps", "-1"]
    assert main(["fit", "-c", str(fitted.recipe), *options]) == 2
    assert "set max_steps" in capsys.readouterr().err


def test_missing_photo(refuse, fitted):
    message = refuse("predict", "--ckpt_path", fitted.best, "--input", "nowhere.jpg", "--output", "out")
    assert "nowhere.jpg: no such file or folder" in message


def test_resume_outside_a_run_asks_for_the_recipe(refuse, fitted, tmp_path):
    shutil.copy(fitted.best, tmp_path / "copy.ckpt")
    assert "name its recipe too" in refuse("fit", "--ckpt_path", tmp_path / "copy.ckpt")


def test_error_of_a_loader_process_is_cut_to_its_message():
    error = ValueError(
        "Caught X in worker 0.\nOriginal Traceback (most recent call last):\n  File\nValueError: the mask"
    )
    assert plain_words(error).startswith("the mask")


def test_a_full_disk_is_named():
    assert plain_words(OSError(28, "No space left on device")).startswith("[Errno 28] No space left on device")


def test_our_own_mistakes_keep_their_traceback(monkeypatch):
    monkeypatch.setattr("flatten_dense.commands.recipes.recipe_names", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["recipes"])


def test_traceback_on_request(monkeypatch):
    monkeypatch.setenv("FLATTEN_DENSE_TRACEBACK", "1")
    with pytest.raises(ValueError, match="no such recipe"):
        main(["fit", "-c", SHAPES + "x"])
