import pickle
from pathlib import Path

import pytest
import torch

from flatten_dense.data.images import read_image
from flatten_dense.tasks.checkpoint import AtomicCheckpointIO, load_task, read_checkpoint, read_recipe


@pytest.fixture
def changed(fitted, tmp_path):
    """Writes a copy of the checkpoint after a change to what it says of itself."""

    def write(change):
        checkpoint = read_checkpoint(fitted.best)
        change(checkpoint)
        torch.save(checkpoint, tmp_path / "changed.ckpt")
        return tmp_path / "changed.ckpt"

    return write


def test_load_task_restores_the_weights(fitted):
    saved = read_checkpoint(fitted.best)["state_dict"]
    task = load_task(fitted.best)
    assert task.state_dict().keys() == saved.keys()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in task.state_dict().items())
    assert not task.training


def test_load_task_knows_the_classes_and_the_format(fitted):
    task = load_task(str(fitted.best))
    assert task.labels.class_names == ("cat", "dog", "bird")
    assert task.input_format.scale == (64, 48)


def test_a_loaded_task_segments_a_photo(fitted):
    photo = read_image(fitted.data / "images/test/photo_0.jpg")
    assert load_task(fitted.best).segment(photo).shape == photo.shape[-2:]


def test_recipe_leaves_out_what_only_training_needs(fitted):
    arguments = read_recipe(fitted.best)["model"]["init_args"]
    assert not {"optimizer", "groups", "schedule", "freeze", "speed"} & set(arguments)
    assert "pretrained" not in arguments["backbone"]


def test_checkpoints_of_older_versions_load(changed):
    def write_as_before(checkpoint):
        arguments = checkpoint["flatten_dense"]["recipe"]["model"]["init_args"]
        del arguments["groups"], arguments["freeze"]
        arguments.update(no_decay=["norm"], freeze_backbone=True)

    assert not load_task(changed(write_as_before)).training


def test_recipe_does_not_ask_for_the_files_that_its_labels_came_from(changed):
    def name_files(checkpoint):
        checkpoint["flatten_dense"]["recipe"]["data"]["init_args"].update(classes="gone.txt", label_map="gone.csv")

    assert not {"classes", "label_map"} & set(read_recipe(changed(name_files))["data"]["init_args"])


def test_missing_checkpoint(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere.ckpt: there is no such checkpoint"):
        read_checkpoint(tmp_path / "nowhere.ckpt")


def test_truncated_checkpoint(fitted, tmp_path):
    whole = fitted.best.read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut.ckpt cannot be read as a checkpoint"):
        read_checkpoint(tmp_path / "cut.ckpt")


def test_code_in_a_checkpoint_is_never_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    for name, save in (("torch.ckpt", torch.save), ("plain.ckpt", lambda o, p: p.write_bytes(pickle.dumps(o)))):
        save({"state_dict": {}, "x": Evil()}, tmp_path / name)
        with pytest.raises(ValueError, match="never executed"):
            read_checkpoint(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_weights_without_a_recipe_ask_for_one(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(ValueError, match=r"foreign.ckpt does not say how its model is built.*-c RECIPE"):
        read_recipe(tmp_path / "foreign.ckpt")


def test_a_file_without_weights(tmp_path):
    torch.save({"model": {}}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="no 'state_dict'"):
        read_checkpoint(tmp_path / "other.pth")


@pytest.mark.parametrize("neck", [{"class_path": "subprocess.Popen"}, "subprocess.Popen"])
def test_foreign_classes_are_not_built_without_trust(changed, neck):
    def ask_for_popen(checkpoint):
        checkpoint["flatten_dense"]["recipe"]["model"]["init_args"]["neck"] = neck

    path = changed(ask_for_popen)
    with pytest.raises(ValueError, match=r"asks for the class subprocess.Popen.*--trust subprocess"):
        load_task(path)


def test_trusted_packages_are_exact(changed):
    def ask_for_neighbour(checkpoint):
        checkpoint["flatten_dense"]["recipe"]["model"]["class_path"] = "flatten_dense_evil.Task"

    with pytest.raises(ValueError, match="flatten_dense_evil"):
        load_task(changed(ask_for_neighbour))


def test_a_checkpoint_of_a_newer_format(changed):
    def from_the_future(checkpoint):
        checkpoint["flatten_dense"]["format"] = 99

    with pytest.raises(ValueError, match=r"newer flatten_dense \(format 99\)"):
        read_recipe(changed(from_the_future))


def test_a_kill_in_the_middle_of_saving_leaves_the_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"x": torch.zeros(1)}}, path)

    def die(checkpoint, draft, options=None):
        Path(draft).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("lightning.fabric.plugins.TorchCheckpointIO.save_checkpoint", lambda _, *args: die(*args))
    with pytest.raises(KeyboardInterrupt):
        AtomicCheckpointIO().save_checkpoint({"state_dict": {"x": torch.ones(1)}}, path)
    assert read_checkpoint(path)["state_dict"]["x"] == 0
