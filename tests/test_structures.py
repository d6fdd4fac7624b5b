import pytest
import torch

from flatten_dense.structures import InputFormat, LabelSpace, Normalization, default_palette


def space(num_classes: int = 3, **options) -> LabelSpace:
    return LabelSpace(tuple(f"c{i}" for i in range(num_classes)), default_palette(num_classes), **options)


def test_plain_labels_keep_their_values():
    values = torch.tensor([[0, 2], [1, 255]], dtype=torch.uint8)
    assert space().from_disk(values).tolist() == [[0, 2], [1, 255]]


def test_reduced_labels_start_at_one_on_disk():
    assert space(reduce_zero_label=True).from_disk(torch.tensor([0, 1, 3, 255])).tolist() == [255, 0, 2, 255]


@pytest.mark.parametrize("reduce_zero_label", [False, True])
def test_to_disk_inverts_from_disk(reduce_zero_label):
    labels = space(reduce_zero_label=reduce_zero_label)
    values = torch.arange(4 if reduce_zero_label else 3)
    written = labels.to_disk(labels.from_disk(values))
    assert written.dtype == torch.uint8
    assert written.tolist() == values.tolist()


def test_150_reduced_classes_fit_in_a_byte():
    labels = space(150, reduce_zero_label=True)
    assert labels.to_disk(torch.tensor([149])).tolist() == [150]


@pytest.mark.parametrize("reduce_zero_label", [False, True])
def test_label_space_survives_plain_types(reduce_zero_label):
    labels = space(reduce_zero_label=reduce_zero_label, ignore_index=254)
    assert LabelSpace.from_dict(labels.to_dict()) == labels


def test_palette_and_names_must_match():
    with pytest.raises(ValueError, match="palette has 2 colours for 3 classes"):
        LabelSpace(("a", "b", "c"), default_palette(2))


def test_no_classes():
    with pytest.raises(ValueError, match="at least one class"):
        LabelSpace((), ())


def test_too_many_classes_for_a_byte():
    with pytest.raises(ValueError, match="256 classes do not fit below ignore_index=255"):
        space(256)


def test_default_palette_has_no_black_and_no_repeat():
    colours = default_palette(255)
    assert len(set(colours)) == 255
    assert (0, 0, 0) not in colours


def test_default_palette_starts_as_pascal_voc():
    assert default_palette(4) == ((128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128))


def test_normalization_is_undone():
    normalization = Normalization()
    photo = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).repeat(3, 1, 1)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (normalization.mean, normalization.std))
    assert torch.equal(normalization.undo((photo / 255 - mean) / std), photo)


@pytest.mark.parametrize("scale", [None, (512, 256)])
def test_input_format_survives_plain_types(scale):
    given = InputFormat(scale, Normalization((0.5, 0.4, 0.3), (0.1, 0.2, 0.3)))
    assert InputFormat.from_dict(given.to_dict()) == given
