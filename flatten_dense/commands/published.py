"""The ImageNet figures of the paper, of the code it released and of its baselines, as printed; nothing here is ours.

Sources: "FLatten Transformer", arXiv 2308.00442, Fig. 6, unless an attribute of :class:`PublishedModel` says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_FINAL_NORM = (1_024, "a final norm that it never calls")
_PVT_TOKEN_AND_NORM = (2_048, "a class token, its row in the table of positions, and a final norm")


@dataclass(frozen=True)
class PublishedModel:
    """A row of the paper.

    Attributes:
        label: what the paper calls the model, with the input's side where it has two.
        name: the registered variant that is this model, or that ``options`` make into it.
        options: arguments of the variant; the softmax baselines have softmax attention in every stage.
        size: side of the input.
        parameters: as printed; None where no figure is established.
        flops: multiply-accumulates as printed; with "~" read off a chart to 0.1 G.
        top1: accuracy as printed; with "~" read off a chart to 0.03.
        log: top-1 / top-5 of the log in the README of github.com/LeapLabTHU/FLatten-Transformer.
        readme: parameters as the README of the model's own authors prints them.
        calculated: parameters or multiply-accumulates that follow from the released code, to the digits given.
        left_out: parameters that the published model has and ours does not, and what they are.
        remarks: for a printed figure that ours does not round to, what is known of the reason.
    """

    label: str
    name: str
    parameters: str | None = None
    flops: str | None = None
    top1: str | None = None
    size: int = 224
    options: Mapping[str, Any] = field(default_factory=dict)
    log: str | None = None
    readme: str | None = None
    calculated: tuple[str, ...] = ()
    left_out: tuple[int, str] | None = None
    remarks: Mapping[str, str] = field(default_factory=dict)


def of_variant(name: str) -> PublishedModel | None:
    """The paper's row of a registered variant as it is, None if the paper has none."""
    return next((row for row in PUBLISHED if row.name == name and not row.options), None)


_SOFTMAX = {"attention": "SSSS"}
# CSWin Transformer, arXiv 2107.00652, has other depths than FLatten-CSwin, but for the small one.
_CSWIN_TINY = {**_SOFTMAX, "depths": (1, 2, 21, 1)}
_CSWIN_BASE = {**_SOFTMAX, "depths": (2, 4, 32, 2)}
_ROUNDED_UP = "our count rounded up; so are all parameters of the softmax CSwin rows"

_DEIT = (
    PublishedModel("DeiT-T", "flatten_deit_tiny", "5.7M", "1.2G", "72.2", options={"attention": "S"}),
    PublishedModel(
        "FLatten-DeiT-T",
        "flatten_deit_tiny",
        "6.1M",
        "1.1G",
        "74.1",
        remarks={"6.1M": "the authors' script was never released; our count cut off after one decimal is 6.1M"},
    ),
)

_PVT = (
    PublishedModel(
        "PVT-T",
        "flatten_pvt_tiny",
        "13.2M",
        "1.9G",
        "75.1",
        options=_SOFTMAX,
        calculated=("13.229M",),
        left_out=_PVT_TOKEN_AND_NORM,
    ),
    PublishedModel(
        "FLatten-PVT-T",
        "flatten_pvt_tiny",
        "12.2M",
        "2.0G",
        "77.8",
        log="77.758 / 93.910",
        calculated=("12,150,504",),
        left_out=_FINAL_NORM,
    ),
    PublishedModel(
        "PVT-S",
        "flatten_pvt_small",
        "24.5M",
        "3.8G",
        "79.8",
        options=_SOFTMAX,
        calculated=("24.486M",),
        left_out=_PVT_TOKEN_AND_NORM,
    ),
    PublishedModel(
        "FLatten-PVT-S",
        "flatten_pvt_small",
        "21.7M",
        "4.0G",
        "81.7",
        calculated=("21,670,248",),
        left_out=_FINAL_NORM,
    ),
    PublishedModel(
        "PVT-M",
        "flatten_pvt_medium",
        None,
        "~6.7G",
        "81.2",
        options=_SOFTMAX,
        readme="44.2M",
        left_out=_PVT_TOKEN_AND_NORM,
    ),
    PublishedModel(
        "FLatten-PVT-M",
        "flatten_pvt_medium",
        None,
        "~7.0G",
        "~83.0",
        calculated=("37,242,216",),
        left_out=_FINAL_NORM,
    ),
    PublishedModel(
        "PVT-L",
        "flatten_pvt_base",
        None,
        "~9.8G",
        "81.7",
        options=_SOFTMAX,
        readme="61.4M",
        left_out=_PVT_TOKEN_AND_NORM,
    ),
    PublishedModel(
        "FLatten-PVT-B",
        "flatten_pvt_base",
        None,
        None,
        "~83.45",
        calculated=("50,649,192", "10.4G"),
        left_out=_FINAL_NORM,
    ),
)

_PVT_V2 = (
    PublishedModel(
        "PVTv2-B0",
        "flatten_pvt_v2_b0",
        None,
        None,
        "70.5",
        options=_SOFTMAX,
        readme="3.7M",
        calculated=("3.667M",),
    ),
    PublishedModel(
        "FLatten-PVTv2-B0", "flatten_pvt_v2_b0", None, None, "71.1", log="71.098 / 90.596", calculated=("3.595M",)
    ),
    PublishedModel(
        "PVTv2-B1",
        "flatten_pvt_v2_b1",
        "13.1M",
        "2.1G",
        "78.7",
        options=_SOFTMAX,
        readme="14.0M",
        calculated=("14.009M",),
        remarks={"13.1M": "PVT's own README prints 14.0M"},
    ),
    PublishedModel("FLatten-PVTv2-B1", "flatten_pvt_v2_b1", "12.9M", "2.2G", "79.5", calculated=("12.931M",)),
    PublishedModel("PVTv2-B2", "flatten_pvt_v2_b2", "25.4M", "4.0G", "82.0", options=_SOFTMAX, calculated=("25.363M",)),
    PublishedModel("FLatten-PVTv2-B2", "flatten_pvt_v2_b2", "22.6M", "4.3G", "82.5", calculated=("22.548M",)),
    PublishedModel("FLatten-PVTv2-B3", "flatten_pvt_v2_b3", None, "~7.3G", "~83.67", calculated=("38.27M",)),
    PublishedModel("FLatten-PVTv2-B4", "flatten_pvt_v2_b4", None, "~10.7G", "~84.01", calculated=("51.84M",)),
)

_SWIN = (
    PublishedModel(
        "Swin-T",
        "flatten_swin_tiny",
        "29M",
        "4.5G",
        "81.3",
        options=_SOFTMAX,
        readme="28M",
        calculated=("28,288,354",),
        remarks={"29M": "Swin's own README prints 28M"},
    ),
    PublishedModel(
        "FLatten-Swin-T",
        "flatten_swin_tiny",
        "29M",
        "4.5G",
        "82.1",
        log="82.106 / 95.900",
        calculated=("29,192,384",),
    ),
    PublishedModel("Swin-S", "flatten_swin_small", "50M", "8.7G", "83.0", options=_SOFTMAX, calculated=("49,606,258",)),
    PublishedModel("FLatten-Swin-S", "flatten_swin_small", "51M", "8.7G", "83.5", calculated=("50,510,288",)),
    PublishedModel("Swin-B", "flatten_swin_base", "88M", "15.4G", "83.5", options=_SOFTMAX, calculated=("87,768,224",)),
    PublishedModel("FLatten-Swin-B", "flatten_swin_base", "89M", "15.4G", "83.8", calculated=("88,972,488",)),
    PublishedModel(
        "Swin-B 384",
        "flatten_swin_base_384",
        "88M",
        "47.0G",
        "84.5",
        size=384,
        options=_SOFTMAX,
        calculated=("87,903,584",),
        remarks={"47.0G": "Swin's own README prints 47.1G"},
    ),
    PublishedModel(
        "FLatten-Swin-B 384",
        "flatten_swin_base_384",
        "91M",
        "46.5G",
        "85.0",
        size=384,
        calculated=("91,433,928",),
    ),
)

_CSWIN = (
    PublishedModel(
        "CSwin-T",
        "flatten_cswin_tiny",
        "23M",
        "4.3G",
        "82.7",
        options=_CSWIN_TINY,
        remarks={"23M": _ROUNDED_UP},
    ),
    PublishedModel("FLatten-CSwin-T", "flatten_cswin_tiny", "21M", "4.3G", "83.1", log="83.130 / 96.376"),
    PublishedModel("CSwin-S", "flatten_cswin_small", "35M", "6.9G", "83.6", options=_SOFTMAX),
    PublishedModel("FLatten-CSwin-S", "flatten_cswin_small", "35M", "6.9G", "83.8"),
    PublishedModel(
        "CSwin-B",
        "flatten_cswin_base",
        "78M",
        "15.0G",
        "84.2",
        options=_CSWIN_BASE,
        remarks={"78M": _ROUNDED_UP},
    ),
    PublishedModel("FLatten-CSwin-B", "flatten_cswin_base", "75M", "15.0G", "84.5"),
    PublishedModel(
        "CSwin-B 384",
        "flatten_cswin_base_384",
        "78M",
        "47.0G",
        "85.4",
        size=384,
        options=_CSWIN_BASE,
        remarks={"78M": _ROUNDED_UP},
    ),
    PublishedModel("FLatten-CSwin-B 384", "flatten_cswin_base_384", "78M", "46.4G", "85.5", size=384),
)

PUBLISHED = (*_DEIT, *_PVT, *_PVT_V2, *_SWIN, *_CSWIN)
