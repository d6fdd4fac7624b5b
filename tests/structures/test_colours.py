import torch

from flatten_dense.structures import default_palette, pack_colour, unpack_colour, vivid_palette


def test_default_palette_has_no_black_and_no_repeat():
    colours = default_palette(255)
    assert len(set(colours)) == 255
    assert (0, 0, 0) not in colours


def test_vivid_palette_is_never_dark_and_tells_eighty_classes_apart():
    colours = torch.tensor(vivid_palette(80)).double()
    assert (colours @ torch.tensor([0.299, 0.587, 0.114]).double()).min() > 90
    assert torch.pdist(colours).min() > 10


def test_default_palette_starts_as_pascal_voc():
    assert default_palette(4) == ((128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128))


def test_packed_colours_read_as_in_html():
    assert pack_colour((0x12, 0x34, 0x56)) == 0x123456
    assert unpack_colour(0x123456) == (0x12, 0x34, 0x56)
