"""Reader/comparer for the goldens; numpy + standard library only, written from FORMAT.md (shares no code with
make_golden.py).

    g  = load("data/flatten_swin_t.json.gz")
    sd = filled(g["state_dict"])            # {name: float32 ndarray}; rows with fill_rule F0 are absent
    x  = model_input(g)                     # float32 (1,3,S,S)
    compare(g, logits_1000, [stage1_nchw, ...])   # raises AssertionError listing what differs
"""

import gzip
import json
import zlib

import numpy as np


def load(path):
    with gzip.open(path, "rt", encoding="utf-8") as f:
        return json.load(f)


def _tensor(name, shape):
    leaf = name.split(".")[-1]
    n = int(np.prod(shape))
    # PCG64 raw 64-bit outputs, top 53 bits / 2**53: what Generator.random does, spelled out
    raw = np.random.PCG64(zlib.crc32(bytes(name, "utf-8"))).random_raw(n)
    u = ((raw >> np.uint64(11)).astype(np.float64) * 2.0**-53) * 2.0 - 1.0
    if leaf == "weight":
        v = 1.0 + 0.1 * u if len(shape) == 1 else np.sqrt(3.0 / np.prod(shape[1:])) * u
    elif leaf == "scale":
        v = 0.5 * u
    elif leaf in (
        "bias",
        "relative_position_bias_table",
        "positional_encoding",
        "absolute_pos_embed",
    ) or leaf.startswith("pos_embed"):
        v = 0.1 * u
    else:
        raise KeyError(name)
    return v.astype(np.float32).reshape(shape)


def filled(rows, check=True):
    out = {}
    for name, shape, _dtype, _kind, crc, rule in rows:
        if rule == "F0":
            continue
        a = _tensor(name, shape)
        if check and zlib.crc32(a.astype("<f4").tobytes()) != crc:
            raise AssertionError(f"fill of {name} differs from the golden's")
        out[name] = a
    return out


def normal(seed, shape):
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(tuple(shape)).astype(np.float32)


def model_input(g):
    x = normal(0, g["input"]["shape"])
    assert zlib.crc32(x.astype("<f4").tobytes()) == g["input"]["crc32"]
    return x


def compare(g, logits, stages=(), atol=1e-10):
    """float64 arrays; 1e-10 separates every deviation tried from rounding (see FORMAT.md)."""
    bad = []
    d = float(np.abs(np.asarray(logits, np.float64).reshape(-1) - np.array(g["logits"])).max())
    if not d <= atol:
        bad.append(f"logits differ by {d:.3e}")
    worst = d
    for s, a in zip(g["stages"], stages, strict=False):
        a = np.asarray(a, np.float64)
        if list(a.shape) != s["shape"]:
            bad.append(f"stage {s['stage']}: shape {a.shape} != {s['shape']}")
            continue
        d = float(np.abs(a.reshape(-1)[s["index"]] - np.array(s["value"])).max())
        worst = max(worst, d)
        if not d <= atol:
            bad.append(f"stage {s['stage']} differs by {d:.3e}")
    assert not bad, f"{g['name']}: " + "; ".join(bad)
    return worst
