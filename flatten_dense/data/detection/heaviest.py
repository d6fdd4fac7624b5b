"""Which photos make the batch that costs the most time and memory."""

from __future__ import annotations

from collections.abc import Sequence


def heaviest_photos(sizes: Sequence[tuple[int, int]], objects: Sequence[int], batch_size: int) -> list[int]:
    """Indices of the photos that, padded to one size, make the largest batch with the most objects.

    A batch is as high as its highest image and as wide as its widest, so one of each is taken, of equal ones that with
    the most objects. Beside them the size of an image no longer matters: the others are those with the most objects.

    Args:
        sizes: (height, width) of the images, as the model gets them.
        objects: number of objects in each.
        batch_size: how many to choose; with fewer photos it is all of them.
    """
    photos = range(len(sizes))
    if batch_size == 1:
        return [max(photos, key=lambda index: (sizes[index][0] * sizes[index][1], objects[index]))]
    highest = max(photos, key=lambda index: (sizes[index][0], sizes[index][1], objects[index]))
    widest = max(photos, key=lambda index: (sizes[index][1], sizes[index][0], objects[index]))
    fullest = sorted(photos, key=objects.__getitem__, reverse=True)
    return list(dict.fromkeys([highest, widest, *fullest]))[:batch_size]
