"""A timm model inside a task: built by name for any size of image, frozen on demand."""

import difflib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import timm
import torch
from timm.layers.patch_embed import PatchEmbed
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from flatten_dense.backbones.depth import Depth, depth_of, pretrained_names

# What lets timm's transformers take images of other sizes than their own; most models take any and know neither word.
_ANY_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False})
_OF_FEATURES = ("features_only", "out_indices", "dense_maps")
_SIZE_COMPLAINTS = ("must match", "is invalid for input of size")  # PyTorch's, of sums and reshapes


class TimmModel(nn.Module):
    """What tasks ask of the timm model that they train.

    Args:
        name: a name of timm's registry, with or without a pretrained tag.
        pretrained: start from the weights that timm knows for this name.
        drop_path_rate: stochastic depth. 0 is not passed on, since not every model has it.
        options: further arguments of the model.

    Attributes:
        body: the model.
        is_pretrained: whether it started from timm's weights.
        resting_parameters: of the stages that are kept as they are.
        memory_format: that images are brought to.

    Raises:
        ValueError: for an unknown name, an argument that the model does not take, or weights that do not exist.
    """

    def __init__(self, name: str, pretrained: bool, drop_path_rate: float, options: dict[str, Any]) -> None:
        super().__init__()
        _check_name(name)
        self._name = name
        self.is_pretrained = pretrained
        self.resting_parameters: list[nn.Parameter] = []
        self._resting_modules: list[nn.Module] = []
        self._is_compiled = False
        self.memory_format: torch.memory_format = torch.preserve_format
        self._arguments = arguments = dict(options)
        if drop_path_rate:
            arguments["drop_path_rate"] = drop_path_rate
        try:
            self.body = _create(name, pretrained=pretrained, **arguments)
        except (TypeError, IndexError, RuntimeError, AssertionError) as error:
            raise ValueError(
                f"timm cannot build backbone {name!r} with pretrained={pretrained}, options={arguments}: {error}"
            ) from error

    def compile_training(self) -> None:
        """Compile the way of training images through ``body``; evaluation, and other ways, are not compiled."""
        if not self._is_compiled:
            self.body.compile()
        self._is_compiled = True

    def keep_fewer_activations(self) -> None:
        """Compute activations again in the backward pass instead of keeping them.

        Raises:
            ValueError: timm cannot do that with this model.
        """
        body: Any = self.body.model if isinstance(self.body, FeatureGetterNet) else self.body
        try:
            body.set_grad_checkpointing(True)
        except (AttributeError, AssertionError, NotImplementedError) as error:
            raise ValueError(
                f"--model.speed.checkpointing true: timm cannot do that with backbone {self._name!r}; leave it out, or "
                "make batches smaller (--data.batch_size) and accumulate them (--trainer.accumulate_grad_batches)"
            ) from error

    def run(self, images: Tensor, forward: Callable[[Tensor], Any] | None = None) -> Any:  # noqa: ANN401 - a tensor or several
        """What the model gives for images ``[B, 3, H, W]``.

        Args:
            images: as said.
            forward: another way through ``body`` than its own.

        Raises:
            ValueError: for images of a size that the model cannot take.
        """
        images = images.to(memory_format=self.memory_format)
        try:
            with self._compiling(self.training and forward is None):
                return (forward or self.body)(images)
        except (AssertionError, RuntimeError) as error:  # timm's words for a size that a model cannot take
            if isinstance(error, RuntimeError) and not any(words in str(error) for words in _SIZE_COMPLAINTS):
                raise
            height, width = images.shape[-2:]
            raise ValueError(
                f"backbone {self._name!r} cannot take images of {width}x{height} pixels ({error}): train, evaluate "
                "and predict at a size that it takes, or choose another backbone"
            ) from error

    @cached_property
    def depth(self) -> Depth:
        """Where the parameters of ``body`` lie.

        Raises:
            ValueError: timm does not say the layers of this model.
        """
        return depth_of(self.body, self.plain)

    def pretrained_names(self) -> list[str]:
        """Names of the parameters of ``body`` that can come with weights."""
        return pretrained_names(self.body)

    @property
    def num_stages(self) -> int:
        """How many stages there are to freeze; raises as :attr:`depth`."""
        return self.depth.num_stages

    def freeze(self, stages: int = -1) -> None:
        """Keep the first stages as they are: no gradients, no stochastic depth, fixed statistics; the others learn.

        A classifier, and a LayerNorm that a map of ours gets for dense heads, start fresh and always learn.

        Args:
            stages: how many, with the patch embedding; -1 for all.

        Raises:
            ValueError: the model has fewer stages, or timm does not say which they are.
        """
        self.rest(stages)
        resting = {id(parameter) for parameter in self.resting_parameters}
        for parameter in self._learnable:
            parameter.requires_grad_(id(parameter) not in resting)

    def rest(self, stages: int) -> None:
        """Keep the first stages in evaluation mode; what gets gradients stays as it is.

        Args:
            stages: as of :meth:`freeze`, and Raises as there.
        """
        names = self.pretrained_names()
        if stages != -1:
            if not 0 <= stages <= self.num_stages:
                raise ValueError(
                    f"freeze.stages must be from 0 to the {self.num_stages} stages of backbone {self._name!r}, or -1 "
                    f"for all of it, got {stages}"
                )
            names = [name for name in names if self.depth.stages[name] < stages]
        self.resting_parameters = [self.body.get_parameter(name) for name in names]
        self._resting_modules = resting_modules(self.body, {id(parameter) for parameter in self.resting_parameters})
        self.train(self.training)

    def train(self, mode: bool = True) -> "TimmModel":
        """Set the mode of all that is not frozen."""
        super().train(mode)
        for module in self._resting_modules:
            module.training = False
        return self

    @cached_property
    def _learnable(self) -> list[nn.Parameter]:
        """What freezing may switch: not what a model keeps fixed by itself."""
        parameters = (self.body.get_parameter(name) for name in self.pretrained_names())
        return [parameter for parameter in parameters if parameter.requires_grad]

    def _compiling(self, wanted: bool) -> AbstractContextManager[None]:
        if wanted or not self._is_compiled:
            return nullcontext()
        eager: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
        return eager

    def plain(self) -> nn.Module:
        """The model as a classifier; where ``body`` gives maps instead, one without numbers, on the meta device."""
        if "features_only" not in self._arguments:
            return self.body
        options = {name: value for name, value in self._arguments.items() if name not in _OF_FEATURES}
        with torch.device("meta"):
            return timm.create_model(self._name, **options)


def resting_modules(body: nn.Module, resting: set[int]) -> list[nn.Module]:
    """Modules whose parameters all rest, and those without any that lie between such, as dropout does.

    Args:
        body: a model whose modules are in the order of their use.
        resting: ids of its parameters that rest.
    """
    found: list[nn.Module] = []
    between: list[nn.Module] = []
    previous = False

    def visit(module: nn.Module) -> None:
        nonlocal previous
        inside = [id(parameter) in resting for parameter in module.parameters()]
        if not inside:
            between.append(module)
            return
        if inside[0] and previous:
            found.extend(between)
        between.clear()
        if all(inside):
            found.extend(module.modules())
        else:
            for child in module.children():
                visit(child)
        previous = inside[-1]

    visit(body)
    return [*found, *between] if previous else found


def _create(name: str, **arguments: Any) -> nn.Module:  # noqa: ANN401 - timm's
    """Create a timm model that takes any size of image, if it can."""
    for option in () if is_own(name) else _ANY_SIZE:
        try:
            body = timm.create_model(name, **{**option, **arguments})
        except TypeError as error:
            if not any(word in str(error) for word in option):
                raise
        else:
            for embed in (module for module in body.modules() if isinstance(module, PatchEmbed)):
                embed.dynamic_img_pad = True
            return body
    return timm.create_model(name, **arguments)


def is_own(name: str) -> bool:
    """Whether a name of timm's registry is one of ours."""
    return timm.is_model(name) and timm.model_entrypoint(name).__module__.startswith(f"{__package__}.")


def _check_name(name: str) -> None:
    if ":" in name or timm.is_model(name.partition(".")[0]):
        return
    close = difflib.get_close_matches(name, timm.list_models(), n=5)
    hint = f"did you mean {', '.join(close)}?" if close else "see timm.list_models() for the names"
    raise ValueError(f"unknown backbone name {name!r}: {hint}")
