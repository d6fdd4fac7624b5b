"""Any timm model with its own classifier: images in, logits out."""

from typing import Any

from torch import Tensor

from flatten_dense.backbones.timm_model import TimmModel


class TimmClassifier(TimmModel):
    """A timm model as it classifies: with its own pooling, norm and linear layer.

    Args:
        name: a name of timm's registry, ``flatten_pvt_tiny`` or ``resnet18``, with or without a pretrained tag.
        pretrained: start from the weights that timm knows for this name.
        drop_path_rate: stochastic depth. 0 is not passed on, since not every model has it.
        options: further arguments of the model, ``{"attention": "LLSS", "drop_rate": 0.1}`` say.

    Raises:
        ValueError: for an unknown name, an argument that the model does not take, or weights that do not exist.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool = False,
        drop_path_rate: float = 0.0,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(name, pretrained, drop_path_rate, options or {})

    def set_num_classes(self, num_classes: int) -> None:
        """Give the model a fresh classifier, unless it has one of as many classes."""
        body: Any = self.body
        if body.num_classes != num_classes:
            body.reset_classifier(num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[B, K]`` of normalised images ``[B, 3, H, W]``.

        Raises:
            ValueError: for images of a size that the model cannot take.
        """
        logits: Tensor = self.run(images)
        return logits

    def pooled(self, images: Tensor) -> Tensor:
        """What the linear layer sees, ``[B, C]``: arguments and errors as :meth:`forward`."""
        features: Tensor = self.run(images, self._before_logits)
        return features

    def _before_logits(self, images: Tensor) -> Tensor:
        body: Any = self.body
        features: Tensor = body.forward_head(body.forward_features(images), pre_logits=True)
        return features
