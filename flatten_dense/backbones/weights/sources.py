"""Where weights come from: a file, a URL, the Hugging Face hub, timm."""

from __future__ import annotations

import hashlib
import re
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import timm
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from flatten_dense.backbones.weights.files import Weights, plain_tensors, read_weights
from flatten_dense.layers import as_size

ACCEPTED = (
    "a file, an https:// URL with its sha256, hf-hub:OWNER/NAME (with @REVISION if wanted), or timm:NAME for the "
    "weights that timm knows; #ema after it takes the averaged weights of a file that keeps both"
)
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def fetch_weights(source: str | Path, ema: bool = False, sha256: str | None = None) -> Weights:
    """Find a source of weights and read it.

    Args:
        source: as :data:`ACCEPTED` says; ``#sha256=`` and the checksum, and ``#ema``, may follow.
        ema: take the averaged weights of a file that keeps both.
        sha256: of the file, in hexadecimal; a URL needs it.

    Raises:
        ValueError: the source is of no accepted kind, cannot be reached, is not the file whose checksum was given, or
            is no checkpoint.
    """
    if isinstance(source, str) and source.endswith("#ema"):
        source, ema = source.removesuffix("#ema"), True
    if isinstance(source, str) and "#sha256=" in source:
        source, _, sha256 = source.partition("#sha256=")
    if sha256 is not None:
        sha256 = sha256.lower()
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise ValueError(f"sha256 must be 64 hexadecimal digits, got {sha256!r}")
    kind, _, rest = str(source).partition(":")
    if isinstance(source, Path) or kind not in ("http", "https", "hf-hub", "timm"):
        return read_weights(_verified(_local(source), sha256), ema)
    if kind == "timm":
        if sha256 is not None or ema:
            raise ValueError(f"{source} is one set of weights, not a file: leave out sha256 and ema")
        return _from_timm(rest)
    if kind == "hf-hub":
        return read_weights(_verified(_from_hub(rest), sha256), ema)
    return read_weights(_from_url(str(source), sha256), ema)


def _local(source: str | Path) -> Path:
    path = Path(source).expanduser()
    if not path.is_file():
        raise ValueError(f"there is no file {str(source)!r}; weights come from {ACCEPTED}")
    return path


def _from_url(url: str, sha256: str | None) -> Path:
    """Download once, into torch's folder of checkpoints, under a name that holds the checksum."""
    if not url.startswith("https://"):
        raise ValueError(f"{url} is not encrypted: weights come from {ACCEPTED}")
    if sha256 is None:
        raise ValueError(
            f"{url} needs the checksum of the file, {url}#sha256=DIGITS with its 64 hexadecimal digits: they are "
            "published beside the file, or are what `sha256sum FILE` prints for a copy you trust"
        )
    name = Path(urlparse(url).path)
    path = Path(torch.hub.get_dir()) / "checkpoints" / f"{name.stem}-{sha256}{name.suffix}"
    if path.is_file() and _sha256(path) == sha256:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256, progress=False)
    except (OSError, HTTPException, RuntimeError) as error:
        raise ValueError(f"{url} could not be fetched with sha256 {sha256}: {error}") from None
    return path


def _from_hub(name: str) -> Path:
    match = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", name)
    if match is None:
        raise ValueError(f"hf-hub:{name} does not name a repository, expected hf-hub:OWNER/NAME or ...@REVISION")
    try:
        for file in _HUB_FILES:
            try:
                return Path(hf_hub_download(match[1], file, revision=match[2]))
            except LocalEntryNotFoundError:  # the hub cannot be reached: the other file neither
                raise
            except EntryNotFoundError:
                continue
    except Exception as error:  # of its own, of its HTTP client, of the disk
        raise ValueError(f"hf-hub:{name} could not be fetched: {_first_line(error)}") from None
    raise ValueError(f"hf-hub:{name} has no weights, expected {' or '.join(_HUB_FILES)} in it")


def _from_timm(name: str) -> Weights:
    if not timm.is_model(name.partition(".")[0]):
        raise ValueError(f"timm:{name} is no model of timm, expected a name of timm.list_models(pretrained=True)")
    try:
        model = timm.create_model(name, pretrained=True)
    except Exception as error:  # of timm, of its HTTP client, of the disk
        raise ValueError(f"timm:{name} could not be fetched: {_first_line(error)}") from None
    cfg: Any = model.pretrained_cfg
    size = as_size(tuple(cfg["input_size"][1:]))
    return Weights(plain_tensors(model.state_dict(), f"timm:{name}"), f"timm:{name}", img_size=size)


def _verified(path: Path, sha256: str | None) -> Path:
    if sha256 is not None and (received := _sha256(path)) != sha256:
        raise ValueError(f"{path} is not the file that was asked for: its sha256 is {received}, expected {sha256}")
    return path


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
