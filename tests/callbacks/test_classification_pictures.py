from types import SimpleNamespace

import torch
from PIL import Image

from flatten_dense.callbacks import ClassificationPlotter
from flatten_dense.structures import ClassLabels, InputFormat


def test_a_picture_of_the_first_image_of_each_batch(tmp_path):
    plotter = ClassificationPlotter(tmp_path, ClassLabels(("cat", "dog")), InputFormat(), num_images=4)
    trainer = SimpleNamespace(num_test_batches=[2], is_global_zero=True, sanity_checking=False, loggers=[])
    batch = {
        "image": torch.zeros(3, 3, 8, 8),
        "label": torch.tensor([1, 0, 0]),
        "path": [f"photos/{name}.png" for name in "abc"],
    }
    for index in range(2):
        plotter.on_test_batch_end(trainer, None, {"probabilities": torch.tensor([[0.3, 0.7]] * 3)}, batch, index)
    drawn = [(photo.name, photo.truth, photo.guesses[0][0]) for photo in plotter._samples]
    assert drawn == [("photos/a.png", "dog", "dog")] * 2
    plotter.on_test_end(trainer, None)
    assert Image.open(tmp_path / "test.png").width > 400
