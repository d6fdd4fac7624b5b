import pytest

from flatten_dense.heads import FCNHead, SegmentationHead, SemanticFPNHead, UPerHead
from flatten_dense.heads.base import make_classifier

every_head = pytest.mark.parametrize("head", [SemanticFPNHead, UPerHead, FCNHead])


@every_head
def test_levels_from_coarse_to_fine_are_refused(head: type[SegmentationHead]) -> None:
    with pytest.raises(ValueError, match=rf"{head.__name__} expects levels from finest to coarsest.*\(8, 4\)$"):
        head((6, 6), (8, 4), 3)


@every_head
def test_maps_of_one_stride_are_led_to_the_simple_pyramid(head: type[SegmentationHead]) -> None:
    with pytest.raises(ValueError, match=r"strides=\(16, 16\)\. A plain .*out_indices \[-1\].*SimplePyramid"):
        head((6, 6), (16, 16), 3)


@every_head
def test_a_stride_for_every_level_is_asked_for(head: type[SegmentationHead]) -> None:
    with pytest.raises(ValueError, match="one stride per level"):
        head((6, 6), (4,), 3)


@every_head
def test_a_head_without_classes_is_refused(head: type[SegmentationHead]) -> None:
    with pytest.raises(ValueError, match="num_classes=0"):
        head((6, 6), (4, 8), 0)


@every_head
def test_no_parameter_is_taken_for_a_norm_by_the_published_no_decay_rule(head: type[SegmentationHead]) -> None:
    assert not [name for name, _ in head((6, 6), (4, 8), 3, channels=4).named_parameters() if "norm" in name]


def test_classifiers_start_with_standard_deviation_one_hundredth() -> None:
    classifier = make_classifier(256, 150)
    assert classifier.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert classifier.bias.abs().max() == 0
