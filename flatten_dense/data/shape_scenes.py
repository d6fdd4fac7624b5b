"""Scenes of textured shapes over textured backgrounds, exactly labelled: the outline is the class, not the colour."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MIN_SIDE = 48
# The size of an object is the diameter of the disc of its area, so classes get equally many pixels.
MIN_OBJECT_SIZE = 18.0
MAX_OBJECT_SHARE = 0.5  # of the image's shorter side
NUM_OBJECTS = (5, 9)  # inclusive
MIN_VISIBLE = 0.6  # of an object's area; with much less in sight, a square may pass for a triangle
PLACEMENT_TRIES = 25
MAX_TURN = 0.25  # radians to either side
COLOUR_RANGE = (40.0, 255.0)  # per channel; shading does not show on black
TEXTURE_PERIOD = (5.0, 16.0)  # pixels
TEXTURE_CONTRAST = (30.0, 80.0)  # RGB distance of the two colours of one texture
MIN_CONTRAST = 110.0  # RGB distance of the mean colours of an object and of what it lies on
PIXEL_NOISE = 4.0
# Objects are shaded like pillows, dark at the edge: outlines show on any texture, and a small model learns in minutes.
EDGE_LIGHT = 0.25
CENTRE_LIGHT = 1.1
PILLOW_WIDTH = 0.35  # from the edge to full light, of the square root of the object's area
LIGHT_TILT = 0.15  # how much brighter one side of the scene may be than its middle

FloatArray = NDArray[np.float32]
MaskArray = NDArray[np.bool_]
Window = tuple[slice, slice]


class Instance(NamedTuple):
    """One object: ``category`` indexes CLASS_NAMES (never 0), ``mask`` ``[H, W]`` is its visible part."""

    category: int
    mask: MaskArray


@dataclass(frozen=True)
class Scene:
    """A drawn image and its labels.

    Attributes:
        image: ``[H, W, 3]`` uint8 RGB.
        semantic: ``[H, W]`` uint8, indices into CLASS_NAMES; 0 is the background.
        instances: the objects, the lowest first. Their masks are disjoint and make up ``semantic``.
    """

    image: NDArray[np.uint8]
    semantic: NDArray[np.uint8]
    instances: tuple[Instance, ...]


def _disc(radius: FloatArray, angle: FloatArray) -> FloatArray:
    return np.asarray(1 / math.sqrt(math.pi) - radius)


def _tips(radius: FloatArray, angle: FloatArray, num_tips: int, inner: float, turn: float = 0.0) -> FloatArray:
    """A star with its dents at ``inner`` times its radius; ``inner = cos(pi / n)`` gives the regular n-gon."""
    half = math.pi / num_tips
    outer = 1 / math.sqrt(num_tips * inner * math.sin(half))  # makes the area 1
    folded = np.abs((angle - turn + half) % (2 * half) - half)  # every edge runs from a tip at 0 to a dent at ``half``
    along, across = radius * np.cos(folded), radius * np.sin(folded)
    dent_along, dent_across = outer * inner * math.cos(half), outer * inner * math.sin(half)
    run_along, run_across = dent_along - outer, dent_across
    return np.asarray((across * run_along - (along - outer) * run_across) / math.hypot(run_along, run_across))


# How far inside an outline of area 1 around the origin a point lies, negative outside. Angles count from straight up.
_SHAPES: dict[str, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "circle": _disc,
    "triangle": partial(_tips, num_tips=3, inner=math.cos(math.pi / 3)),
    "square": partial(_tips, num_tips=4, inner=math.cos(math.pi / 4), turn=math.pi / 4),
    "star": partial(_tips, num_tips=5, inner=0.42),
}
_REACH = 1.0  # no outline goes further from its centre; the star's tips come closest, at 0.9
CLASS_NAMES: tuple[str, ...] = ("background", *_SHAPES)


def _stripes(rng: np.random.Generator, u: FloatArray, v: FloatArray) -> FloatArray:
    return np.asarray(0.5 + 1.5 * np.sin(2 * math.pi * u))


def _checkers(rng: np.random.Generator, u: FloatArray, v: FloatArray) -> FloatArray:
    return np.asarray(0.5 + 3 * np.sin(math.pi * u) * np.sin(math.pi * v))


def _dots(rng: np.random.Generator, u: FloatArray, v: FloatArray) -> FloatArray:
    return np.asarray(6 * (0.38 - np.hypot(u % 1 - 0.5, v % 1 - 0.5)))


def _gradient(rng: np.random.Generator, u: FloatArray, v: FloatArray) -> FloatArray:
    return np.asarray((u - u.min()) / (u.max() - u.min()))


def _noise(rng: np.random.Generator, u: FloatArray, v: FloatArray) -> FloatArray:
    """Random values on a grid, interpolated between, in two sizes of blotches."""
    size = 32
    grid = rng.uniform(-1, 1, (size, size)).astype(np.float32)
    total = np.full_like(u, 0.5)
    for frequency, strength in ((0.6, 0.9), (1.7, 0.6)):
        row, column = np.floor(v * frequency).astype(int), np.floor(u * frequency).astype(int)
        down, right = v * frequency - row, u * frequency - column
        row, column, below, beside = row % size, column % size, (row + 1) % size, (column + 1) % size
        top = grid[row, column] * (1 - right) + grid[row, beside] * right
        bottom = grid[below, column] * (1 - right) + grid[below, beside] * right
        total += strength * (top * (1 - down) + bottom * down)
    return total


# The share of the second colour, clipped to 0..1, at (u, v): coordinates in periods, turned at random.
_TEXTURES = (_stripes, _checkers, _dots, _gradient, _noise)


def _draw_colours(rng: np.random.Generator, avoid: FloatArray) -> FloatArray:
    """The two colours ``[2, 3]`` of a texture whose mean keeps MIN_CONTRAST from the colours ``avoid`` ``[N, 3]``."""
    candidates = 16
    first = rng.uniform(*COLOUR_RANGE, (candidates, 3))
    first += rng.uniform(0, 0.6, (candidates, 1)) * (first.mean(1, keepdims=True) - first)  # towards grey
    direction = rng.normal(size=(candidates, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    second = np.clip(first + direction * rng.uniform(*TEXTURE_CONTRAST, (candidates, 1)), *COLOUR_RANGE)
    pairs = np.stack([first, second], axis=1)
    distances = np.linalg.norm(pairs.mean(1)[:, None] - avoid, axis=2).min(axis=1, initial=np.inf)
    # The first that is far enough, else the farthest.
    return np.asarray(pairs[np.argmax(np.minimum(distances, MIN_CONTRAST))], dtype=np.float32)


def _positions(start: int, stop: int) -> FloatArray:
    """The centres of the pixels from ``start`` to ``stop``."""
    return np.arange(start, stop, dtype=np.float32) + 0.5


def _draw_texture(rng: np.random.Generator, window: Window, colours: FloatArray) -> FloatArray:
    """The pixels ``[h, w, 3]``, 0..255, of a window, with a random texture in two colours."""
    rows, columns = window
    period, turn = rng.uniform(*TEXTURE_PERIOD), rng.uniform(0, 2 * math.pi)
    y = _positions(rows.start, rows.stop)[:, None] / period + rng.uniform(0, 16)
    x = _positions(columns.start, columns.stop) / period + rng.uniform(0, 16)
    u, v = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    texture = _TEXTURES[rng.integers(len(_TEXTURES))]
    share = np.clip(texture(rng, u, v), 0, 1)[..., None]
    return np.asarray(colours[0] + share * (colours[1] - colours[0]))


def _draw_outline(rng: np.random.Generator, name: str, size: tuple[int, int]) -> tuple[Window, FloatArray, int]:
    """A shape of random size, turn and place: the part of the image that holds it, the depth there, its whole area.

    The depth is how far inside the outline a pixel's centre lies; from 0 up the pixel belongs to the shape. The whole
    area counts the pixels outside the image too.
    """
    diameter = rng.uniform(MIN_OBJECT_SIZE, MAX_OBJECT_SHARE * min(size))
    scale = diameter * math.sqrt(math.pi) / 2  # from area 1
    centre = rng.uniform(0, size)
    start = np.floor(centre - _REACH * scale).astype(int)
    stop = np.ceil(centre + _REACH * scale).astype(int)
    y = _positions(start[0], stop[0])[:, None] - float(centre[0])
    x = _positions(start[1], stop[1]) - float(centre[1])
    depth = scale * _SHAPES[name](np.hypot(y, x) / scale, np.arctan2(x, -y) + rng.uniform(-MAX_TURN, MAX_TURN))
    low, high = np.maximum(start, 0), np.minimum(stop, size)
    inside = depth[low[0] - start[0] : high[0] - start[0], low[1] - start[1] : high[1] - start[1]]
    return (slice(low[0], high[0]), slice(low[1], high[1])), inside, int((depth >= 0).sum())


def _place_object(
    rng: np.random.Generator, name: str, owner: NDArray[np.intp], areas: list[int]
) -> tuple[Window, FloatArray, int] | None:
    """An outline that leaves MIN_VISIBLE of itself and of every object below in sight; None if there is no room.

    Args:
        rng: the source of the scene.
        name: the class to draw.
        owner: ``[H, W]``, the number of the object seen at each pixel, 0 for the background.
        areas: the whole area per number.
    """
    visible = np.bincount(owner.ravel(), minlength=len(areas))
    needed = MIN_VISIBLE * np.asarray(areas)
    needed[0] = 0
    for _ in range(PLACEMENT_TRIES):
        window, depth, area = _draw_outline(rng, name, owner.shape)
        mask = depth >= 0
        covered = np.bincount(owner[window][mask], minlength=len(areas))
        if mask.sum() >= MIN_VISIBLE * area and np.all(visible - covered >= needed):
            return window, depth, area
    return None


def draw_scene(rng: np.random.Generator, size: tuple[int, int]) -> Scene:
    """Draw one scene; equal states of ``rng`` give equal scenes.

    Colours and textures of all shapes and of the background come from one distribution; only the shading, which is
    alike in all shapes, sets them off. The pixels of a label are exactly the painted ones: edges are not blended.

    Args:
        rng: every random choice comes from here.
        size: (H, W), each at least MIN_SIDE.

    Raises:
        ValueError: if ``size`` is too small to hold the objects.
    """
    if min(size) < MIN_SIDE:
        raise ValueError(f"a scene of shapes needs at least {MIN_SIDE} x {MIN_SIDE} pixels, got {tuple(size)} (H, W)")
    colours = _draw_colours(rng, np.empty((0, 3), dtype=np.float32))
    means = [colours.mean(0)]
    canvas = _draw_texture(rng, (slice(0, size[0]), slice(0, size[1])), colours)
    owner = np.zeros(size, dtype=np.intp)
    categories, areas = [0], [0]
    for _ in range(rng.integers(*NUM_OBJECTS, endpoint=True)):
        category = int(rng.integers(1, len(CLASS_NAMES)))
        placed = _place_object(rng, CLASS_NAMES[category], owner, areas)
        if placed is None:
            continue
        window, depth, area = placed
        mask = depth >= 0
        colours = _draw_colours(rng, np.asarray(means, dtype=np.float32)[np.unique(owner[window])])
        shade = EDGE_LIGHT + (CENTRE_LIGHT - EDGE_LIGHT) * np.minimum(depth / (PILLOW_WIDTH * math.sqrt(area)), 1)
        canvas[window][mask] = (_draw_texture(rng, window, colours) * shade[..., None])[mask]
        owner[window][mask] = len(categories)
        means.append(colours.mean(0))
        categories.append(category)
        areas.append(area)

    tilt = rng.uniform(-LIGHT_TILT, LIGHT_TILT, 2)
    light = 1 + tilt[0] * np.linspace(-1, 1, size[0])[:, None] + tilt[1] * np.linspace(-1, 1, size[1])
    canvas *= light[..., None].astype(np.float32)
    canvas += PIXEL_NOISE * rng.standard_normal(canvas.shape, dtype=np.float32)
    return Scene(
        image=np.clip(np.rint(canvas), 0, 255).astype(np.uint8),
        semantic=np.asarray(categories, dtype=np.uint8)[owner],
        instances=tuple(Instance(categories[n], owner == n) for n in range(1, len(categories))),
    )
