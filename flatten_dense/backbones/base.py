"""Any timm model as a backbone: images in, a list of NCHW maps out."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from flatten_dense.backbones.dense_maps import DenseMaps
from flatten_dense.backbones.timm_model import TimmModel, is_own
from flatten_dense.layers import Size

_FINEST = 4  # stride of the first map that dense heads want


class TimmBackbone(TimmModel):
    """A timm model without its classifier, giving the maps of its stages from fine to coarse.

    Of our own families, PVTv2's maps are normalised by its own norms; Swin's and CSwin's by a LayerNorm per map, the
    last of which is the pretrained one; PVT's and DeiT's are as the blocks leave them.

    Timm's plain and Swin transformers are built to take any size of image, too: encodings are resized, and images
    padded at the right and bottom to whole patches. A plain transformer gives several maps of one stride: choose the
    last by ``out_indices=(-1,)``, and give it :class:`flatten_dense.necks.SimplePyramid`.

    Args:
        name: a name of timm's registry, ``flatten_pvt_tiny`` or ``resnet18``, with or without a pretrained tag.
        pretrained: start from the weights that timm knows for this name.
        drop_path_rate: stochastic depth. 0 is not passed on, since not every model has it.
        out_indices: stages to give, from fine to coarse; None for all that the model gives by itself, without those of
            a stride below 4 if there are coarser ones: dense heads begin there, and stride 2 would cost them fourfold.
        options: further arguments of the model, ``{"attention": "LLSS"}`` say.

    Attributes:
        channels: of each map.
        strides: of each map; it is ceil(H / stride) x ceil(W / stride), of some models of timm (ConvNeXt) rounded down.

    Raises:
        ValueError: for an unknown name, an argument that the model does not take, or weights that do not exist.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool = False,
        drop_path_rate: float = 0.0,
        out_indices: tuple[int, ...] | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        arguments = dict(options or {})
        if out_indices is not None:
            arguments["out_indices"] = tuple(out_indices)
            _check_order(arguments["out_indices"])
        own: dict[str, Any] = {"dense_maps": True} if is_own(name) else {}
        super().__init__(name, pretrained, drop_path_rate, {"features_only": True, **own, **arguments})
        info: Any = self.body.feature_info
        channels, strides = tuple(info.channels()), tuple(info.reduction())
        fine = sum(stride < _FINEST for stride in strides) if out_indices is None else 0
        self._skipped = fine if fine < len(strides) else 0
        self.channels: tuple[int, ...] = channels[self._skipped :]
        self.strides: tuple[int, ...] = strides[self._skipped :]
        output_format: Any = getattr(self.body, "output_fmt", "NCHW")  # convolutional models may not say
        self._to_nchw = _converter(name, str(getattr(output_format, "value", output_format)))

    @property
    def keeps_images_apart(self) -> bool:
        """Whether ``image_sizes`` can be given."""
        return isinstance(self.body, DenseMaps) and self.body.model.mixes_padding is None

    def leave_out(self, number: int) -> None:
        """Say that the finest maps are not used: a norm that only they have learns nothing, and DDP would wait for it.

        Args:
            number: how many of them.
        """
        if isinstance(self.body, DenseMaps):
            self.body.norms[:number].requires_grad_(False)

    def forward(self, images: Tensor, image_sizes: Sequence[Size] | None = None) -> list[Tensor]:
        """Map normalised images to one ``[B, channels[i], h, w]`` per stage.

        Args:
            images: ``[B, 3, H, W]``.
            image_sizes: (h, w) of each image in a batch that was padded at the right and bottom; the maps of an image
                then do not depend on the others, and are zero outside its own part.

        Raises:
            ValueError: for images or sizes that the model cannot take.
        """
        if image_sizes is None:
            return [self._to_nchw(feature) for feature in self.run(images)[self._skipped :]]
        if not isinstance(self.body, DenseMaps):
            raise ValueError(
                "image_sizes keep the images of a padded batch apart, which only FLatten backbones can; leave them out"
            )
        maps: list[Tensor] = self.run(images, lambda batch: self.body(batch, image_sizes))
        return maps

    def pooled(self, images: Tensor) -> Tensor:
        """Mean of the last map, ``[B, C]``, of images of one size; errors as :meth:`forward`."""
        return self.forward(images)[-1].mean((2, 3))


def _check_order(out_indices: tuple[int, ...]) -> None:
    """Channels are listed in the order asked for, maps in the order of the stages: the two must be one."""
    if list(out_indices) != sorted(set(out_indices)) or (min(out_indices) < 0 <= max(out_indices)):
        raise ValueError(
            f"out_indices must rise, each stage once, all counted from the front or all from the end; got {out_indices}"
        )


def _channels_last_to_first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def _unchanged(x: Tensor) -> Tensor:
    return x


def _converter(name: str, output_format: str) -> Callable[[Tensor], Tensor]:
    converters = {"NCHW": _unchanged, "NHWC": _channels_last_to_first}
    if output_format not in converters:
        raise ValueError(f"backbone {name!r} gives {output_format} features, a dense head needs maps: NCHW or NHWC")
    return converters[output_format]
