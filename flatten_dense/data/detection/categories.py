"""The classes of a model, found again in the files of a data set that may number them otherwise."""

from __future__ import annotations

from dataclasses import replace

from flatten_dense.data.detection.annotations import DetectionAnnotations
from flatten_dense.data.images import DataError, first_few
from flatten_dense.structures import DetectionLabels


def align_labels(labels: DetectionLabels, annotations: DetectionAnnotations) -> DetectionLabels:
    """The same classes in the same order, with the category ids of a file that may number them otherwise.

    A class that the file does not name gets an id that is free there, so that results may hold it.

    Raises:
        DataError: if objects are of a class that ``labels`` lack.
    """
    theirs = {str(category["name"]): int(category["id"]) for category in annotations.categories}
    unknown = {identifier: name for name, identifier in theirs.items() if name not in labels.class_names}
    if unknown:  # spares looking at millions of annotations
        used = {int(annotation["category_id"]) for annotation in annotations.annotations}
        names = [name for identifier, name in unknown.items() if identifier in used]
        if names:
            raise DataError(
                f"{annotations.source}: holds objects of {len(names)} class(es) that the model or the training data do "
                f"not know: {first_few(names)}; known are {first_few(labels.class_names)}. Classes go by the names of "
                "the categories: use the same names, or the data that belong to the model"
            )
    taken = {*theirs.values(), *labels.category_ids}
    free = iter(range(max(taken, default=0) + 1, max(taken, default=0) + 1 + labels.num_classes))
    ids = [
        theirs[name] if name in theirs else own if own not in theirs.values() else next(free)
        for name, own in zip(labels.class_names, labels.category_ids, strict=True)
    ]
    return replace(labels, category_ids=tuple(ids))
