"""Random numbers that are a function of (seed, id, view) alone, for N inputs.

A counter-based generator (SplitMix64 over these numbers) draws the same again in any order, on any
machine, by any program that has these few lines; docs/format.md states them. `stream` tells apart
what is drawn for one view.
"""

import hashlib

import numpy as np

_STEP = np.uint64(0x9E3779B97F4A7C15)


def counter_random(seed: int, ids_N: np.ndarray, view: int, stream: int | np.ndarray) -> np.ndarray:
    """Uniform uint64 [N], a function of its arguments alone. `ids_N` is int64 or uint64; ids [N, 1]
    and streams [S] give [N, S]."""
    state_N = np.full(ids_N.shape, seed, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for part in (ids_N.astype(np.uint64), np.uint64(view), np.uint64(stream)):
            state_N = _mix((state_N + _STEP) ^ _mix(np.asarray(part + _STEP)))
    return state_N


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def fractions(drawn: np.ndarray) -> np.ndarray:
    """Uniform float64 in [0, 1) of the upper 53 bits of each uint64."""
    return (drawn >> np.uint64(11)) * 2.0**-53


def counters(ids_N: np.ndarray) -> np.ndarray:
    """Ids as the generator takes them, uint64 [N]: of a text the first 8 bytes of the SHA-256 of
    its UTF-8, little-endian."""
    if ids_N.dtype.kind != "U":
        return ids_N.astype(np.uint64)
    digests = (hashlib.sha256(id.encode()).digest() for id in ids_N.tolist())
    return np.fromiter((int.from_bytes(d[:8], "little") for d in digests), np.uint64, len(ids_N))
