"""Colours of classes."""

from __future__ import annotations

import math
from typing import TypeAlias

Colour: TypeAlias = tuple[int, int, int]


def pack_colour(colour: Colour) -> int:
    """An 8-bit RGB colour as one number, 0xRRGGBB."""
    red, green, blue = colour
    return red << 16 | green << 8 | blue


def unpack_colour(value: int) -> Colour:
    """The inverse of :func:`pack_colour`."""
    return value >> 16 & 255, value >> 8 & 255, value & 255


def default_palette(num_classes: int) -> tuple[Colour, ...]:
    """Distinct 8-bit RGB colours by spreading the bits of the index over the channels.

    Source: the colour map of the PASCAL VOC development kit, started at index 1 so that no class is black.
    """

    def colour(index: int) -> Colour:
        channels = [0, 0, 0]
        for shift in range(7, -1, -1):
            for channel in range(3):
                channels[channel] |= (index >> channel & 1) << shift
            index >>= 3
        return channels[0], channels[1], channels[2]

    return tuple(colour(index + 1) for index in range(num_classes))


def vivid_palette(num_classes: int) -> tuple[Colour, ...]:
    """Distinct 8-bit RGB colours, none of them dark, which thin lines on photos need.

    Hues are spread by the golden ratio, at four lightnesses by turns; red is left to what is wrong.

    Source: Björn Ottosson, Oklab; channels out of range are clipped.
    """

    def colour(index: int) -> Colour:
        hue = math.radians(50 + 315 * (index * 0.6180339887 % 1))
        lightness = (0.70, 0.82, 0.60, 0.75)[index % 4]
        a, b = 0.15 * math.cos(hue), 0.15 * math.sin(hue)
        long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
        medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
        short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
        linear = (
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        )
        red, green, blue = (round(255 * min(1.0, max(0.0, channel)) ** (1 / 2.2)) for channel in linear)
        return red, green, blue

    return tuple(colour(index) for index in range(num_classes))
