import pytest

from flatten_dense.inference import Inference


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "whol"}, "auto, whole, slide, tiled, got 'whol'"),
        ({"max_pixels": 0}, "max_pixels must be at least 1, got 0"),
        ({"tile_size": 100}, "multiple of 32, got 100"),
        ({"overlap": -1}, "must not be negative, got -1"),
        ({"tile_size": 256, "overlap": 200}, "tile_size 256 is too small for overlap 200: neighbours share 320"),
        ({"stride": 600}, "from 1 to the window of 512 pixels"),
        ({"scales": ()}, "at least one"),
        ({"scales": (1.0, -0.5)}, "positive factors"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Inference(**options)


@pytest.mark.parametrize(
    ("options", "size", "mode"),
    [
        ({}, (2048, 2048), "whole"),
        ({}, (2048, 2049), "tiled"),
        ({"scales": (0.5, 1.5)}, (2048, 1500), "tiled"),
        ({"mode": "tiled"}, (1025, 8), "tiled"),
        ({"mode": "tiled"}, (1024, 1024), "whole"),  # one tile
        ({"mode": "whole"}, (9000, 9000), "whole"),
        ({"mode": "slide"}, (100, 100), "slide"),
    ],
)
def test_mode_follows_from_the_size(options, size, mode):
    assert Inference(**options).mode_for(size) == mode
