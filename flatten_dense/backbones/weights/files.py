"""Checkpoint files as plain tensors, and what they say about themselves; nothing in a file is ever executed."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from torch import Tensor

from flatten_dense.layers import Size, as_size

_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:module|_orig_mod)\.")  # of DistributedDataParallel and torch.compile
_WEIGHTS = ("model", "state_dict")
_BOILERPLATE = re.compile(r"Weights only load failed|\s*\(\d\)|\s*$|Please file an issue")  # torch's own advice
_AVERAGED = ("state_dict_ema", "model_ema")


@dataclass(frozen=True)
class Weights:
    """What a source of weights holds.

    Attributes:
        tensors: by the names of the source, without those that DDP and torch.compile put in front.
        description: the source and its format in a few words.
        class_names: of its classifier, in order; None if it does not say.
        img_size: native (H, W) of its learned tables; None if it does not say.
    """

    tensors: dict[str, Tensor]
    description: str
    class_names: tuple[str, ...] | None = None
    img_size: Size | None = None


class _Record:
    """Stands in for a class of plain attributes, or of a dictionary: gives an empty one, whatever it is called with.

    An OrderedDict, since torch's reader adds items and attributes to one without calling anything of the class named.
    """

    def __new__(cls, *_: object) -> OrderedDict[str, Any]:  # type: ignore[misc]
        return OrderedDict()


class _Opaque:
    """Stands in for a value that nobody asks for."""

    def __new__(cls, *_: object) -> _Opaque:
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


# What training scripts leave in checkpoints beside tensors: yacs' configuration, command lines, scalars of metrics.
_STAND_INS: list[Any] = [
    (_Record, "yacs.config.CfgNode"),
    (_Record, "argparse.Namespace"),
    (_Opaque, "numpy.dtype"),
    (_Opaque, "numpy.core.multiarray.scalar"),
    (_Opaque, "numpy._core.multiarray.scalar"),
]


def read_weights(path: Path, ema: bool = False) -> Weights:
    """Read a checkpoint: of the official code, of Lightning, a plain state dict, a safetensors file.

    Args:
        path: of the file; its content decides how it is read, not its name.
        ema: take the averaged weights that the file keeps beside the trained ones.

    Raises:
        ValueError: the file is missing, damaged, no checkpoint, would run code, or lacks the weights asked for.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    checkpoint = _read_safetensors(path) if _is_safetensors(path) else read_torch_file(path)
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{path} holds a {type(checkpoint).__name__}, expected a checkpoint: a dictionary of tensors")
    key = _choose(checkpoint, path, ema)
    named = checkpoint if key is None else checkpoint[key]
    tensors = plain_tensors(named, str(path))
    return Weights(tensors, f"{path} ({_format(checkpoint, key)})", _class_names(checkpoint), _img_size(checkpoint))


def plain_tensors(state_dict: dict[str, Any], where: str) -> dict[str, Tensor]:
    """The tensors of a state dict, detached, under their names without those of wrappers.

    Args:
        state_dict: name to tensor; other values, such as a module's extra state, are left out.
        where: the source, for errors.

    Raises:
        ValueError: there are none, or a tensor is sparse or quantised.
    """
    tensors = {}
    for name, tensor in state_dict.items():
        if isinstance(name, str) and isinstance(tensor, Tensor):
            if tensor.layout != torch.strided or tensor.is_quantized:
                raise ValueError(f"{where}: tensor {name} is sparse or quantised, expected plain numbers")
            tensors[_WRAPPERS.sub("", name)] = tensor.detach()
    if not tensors:
        raise ValueError(f"{where} holds no tensors where its weights should be")
    return tensors


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(9)
    return path.suffix == ".safetensors" or (len(start) == 9 and start[8:] == b"{")


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        return dict(safetensors.torch.load_file(path))
    except Exception as error:  # its own type, and OSError
        raise ValueError(f"{path} cannot be read as safetensors ({error}): it may be cut short") from None


def read_torch_file(path: Path) -> object:
    """Read what torch.save wrote as plain data; settings of training scripts become dictionaries.

    Raises:
        ValueError: the file is damaged, of another kind, or would have to run code to be read.
    """
    try:
        with torch.serialization.safe_globals(_STAND_INS), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*pickle protocol.*")  # an error says what is wrong
            return torch.load(path, weights_only=True, map_location="cpu", mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch raises a dozen types for as many kinds of damage
        text = str(error)
        asked = re.search(r"GLOBAL ([\w.]+)|unrecognized function (\S+)", text)
        if asked:
            raise ValueError(
                f"{path} would run code to be opened ({asked[1] or asked[2]}): pickled objects are never executed "
                "here, expected numbers and plain settings. If you trust its maker, save the state_dict alone to a file"
            ) from None
        reason = next((line for line in text.strip().splitlines() if not _BOILERPLATE.match(line)), "")
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({reason[:120] or type(error).__name__}): it may be "
            "cut short, be another kind of file, or hold pickled objects, which are never executed here"
        ) from None


def _choose(checkpoint: dict[str, Any], path: Path, ema: bool) -> str | None:
    """Key of the wanted weights in a checkpoint; None for the dictionary itself."""
    held = [key for key in (*_WEIGHTS, *_AVERAGED) if isinstance(checkpoint.get(key), dict)]
    averaged = [key for key in held if key in _AVERAGED]
    if "current_model_state" in checkpoint:  # Lightning keeps its averaged weights in the usual place
        averaged.append("state_dict")
    trained = [key for key in held if key in _WEIGHTS]
    keys = ", ".join(repr(key) for key in list(checkpoint)[:6])
    if ema:
        if averaged:
            return averaged[0]
        raise ValueError(f"{path} holds no averaged weights, expected one of {', '.join(_AVERAGED)}; it has {keys}")
    if trained:
        return trained[0]
    if averaged:
        raise ValueError(
            f"{path} holds averaged weights only, under {averaged[0]!r}: ask for them by {path.name}#ema, in Python by "
            "ema=True"
        )
    if any(isinstance(value, Tensor) for value in checkpoint.values()):
        return None
    raise ValueError(
        f"{path} is no checkpoint of a known kind: it has {keys or 'nothing'}, expected {' or '.join(_WEIGHTS)} with "
        "the weights, or the tensors themselves"
    )


def _format(checkpoint: dict[str, Any], key: str | None) -> str:
    if "pytorch-lightning_version" in checkpoint:
        return (
            "Lightning checkpoint, averaged weights" if "current_model_state" in checkpoint else "Lightning checkpoint"
        )
    return "plain state dict" if key is None else f"checkpoint, its {key!r}"


def _class_names(checkpoint: dict[str, Any]) -> tuple[str, ...] | None:
    names = _dig(checkpoint, "flatten_dense", "labels", "class_names")
    valid = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    return tuple(names) if valid else None


def _img_size(checkpoint: dict[str, Any]) -> Size | None:
    """From the official configuration, or the recipe in a checkpoint of our tasks."""
    official = as_size(_dig(checkpoint, "config", "DATA", "IMG_SIZE"))
    if official:
        return official
    backbone = _dig(checkpoint, "flatten_dense", "recipe", "model", "init_args", "backbone", "init_args")
    name, chosen = _dig(backbone, "name"), _dig(backbone, "options", "img_size")
    if chosen is not None or not isinstance(name, str):
        return as_size(chosen)
    cfg = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return None if cfg is None else as_size(tuple(cfg.input_size[1:]))


def _dig(value: Any, *keys: str) -> Any:  # noqa: ANN401 - nested plain data
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
