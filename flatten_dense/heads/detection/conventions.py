"""In what mmdet's detectors, which the published results were made with, differ from torchvision's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ConventionsName = Literal["mmdet", "torchvision"]


@dataclass(frozen=True)
class Conventions:
    """One set of answers to the questions on which implementations differ.

    Attributes:
        background_first: whether background is class 0 of the scores, with box and mask outputs of its own that nobody
            reads, instead of the class after the last.
        rounded_anchors: whether anchors around the origin are rounded to whole pixels.
        strides_of_image: whether the stride of a level is image size // map size, instead of the level's own.
        padding_is_image: whether the padding of a batch is treated as a part of each image: convolutions read it, and
            anchors there are background.
        smooth_l1_beta: where the box losses turn from quadratic to linear; 0 is L1.
        clamps_shrinking: whether the decoded change of a side is bounded below as it is above.
        low_quality_floor: least IoU by which the best anchor of an object is matched to it anyway, in the RPN.
        low_quality_takes_over: whether such an anchor is given to that object, instead of to its own best one.
        low_quality_regions: whether the same happens among the regions of interest.
        train_proposals: regions per image that the RPN passes on in training.
        least_proposal: side in pixels that a proposal must exceed or equal.
        least_detection: the same for a detection.
        sampling_ratio: samples per bin and direction in RoIAlign; 0 adapts to the size of the region.
        aligned: whether RoIAlign shifts by half a pixel.
        binary_masks: whether the truth of a mask is thresholded at one half.
        integer_paste: whether predicted masks are pasted into boxes of whole pixels.
        retinanet_detections: per image.
        losses_per_image: whether RetinaNet divides by the positives of each image, instead of those of the batch.
        published_weights: whether layers of the box head start as published (Xavier, 0.01, 0.001), instead of as torch
            starts them.
    """

    background_first: bool
    rounded_anchors: bool
    strides_of_image: bool
    padding_is_image: bool
    smooth_l1_beta: float
    clamps_shrinking: bool
    low_quality_floor: float
    low_quality_takes_over: bool
    low_quality_regions: bool
    train_proposals: int
    least_proposal: float
    least_detection: float
    sampling_ratio: int
    aligned: bool
    binary_masks: bool
    integer_paste: bool
    retinanet_detections: int
    losses_per_image: bool
    published_weights: bool

    def background_of(self, num_classes: int) -> int:
        """Index of the background among the ``num_classes`` + 1 scores of a region."""
        return 0 if self.background_first else num_classes

    def outputs_of(self, num_classes: int) -> int:
        """Number of boxes, or of masks, that a head predicts per region."""
        return num_classes + self.background_first


CONVENTIONS: dict[ConventionsName, Conventions] = {
    "mmdet": Conventions(
        background_first=False,
        rounded_anchors=False,
        strides_of_image=False,
        padding_is_image=False,
        smooth_l1_beta=0.0,
        clamps_shrinking=True,
        low_quality_floor=0.3,
        low_quality_takes_over=True,
        low_quality_regions=True,
        train_proposals=1000,
        least_proposal=0.0,
        least_detection=0.0,
        sampling_ratio=0,
        aligned=True,
        binary_masks=True,
        integer_paste=False,
        retinanet_detections=100,
        losses_per_image=False,
        published_weights=True,
    ),
    "torchvision": Conventions(
        background_first=True,
        rounded_anchors=True,
        strides_of_image=True,
        padding_is_image=True,
        smooth_l1_beta=1 / 9,
        clamps_shrinking=False,
        low_quality_floor=0.0,
        low_quality_takes_over=False,
        low_quality_regions=False,
        train_proposals=2000,
        least_proposal=1e-3,
        least_detection=1e-2,
        sampling_ratio=2,
        aligned=False,
        binary_masks=False,
        integer_paste=True,
        retinanet_detections=300,
        losses_per_image=True,
        published_weights=False,
    ),
}
"""Source: mmdet 2.25 and torchvision 0.29, ``models/detection``."""


def conventions_of(name: str) -> Conventions:
    """The conventions of this name.

    Raises:
        ValueError: there are none.
    """
    if name not in CONVENTIONS:
        raise ValueError(f"conventions must be one of {', '.join(CONVENTIONS)}, got {name!r}")
    return CONVENTIONS[name]
