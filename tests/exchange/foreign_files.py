"""Small files in the layouts of other projects, written record by record as those projects do."""

from pathlib import Path

import numpy as np
import torch


def soft(rows: int, classes: int, seed: int = 0, T: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Random logits float32 [rows, classes] and their probabilities at T, float64."""
    logits = np.random.default_rng(seed).normal(0, 2, (rows, classes)).astype(np.float32)
    p = np.exp(logits.astype(np.float64) / T)
    return logits, p / p.sum(1, keepdims=True)


def write_tinyvit(place: Path, keys: list[str], p: np.ndarray, kept: int, ranks: int = 2) -> Path:
    """An epoch as save_logits.py writes it: each rank a file of keys, and one of records."""
    folder = place / f"logits_top{kept}_epoch0"
    folder.mkdir(parents=True)
    for rank in range(ranks):
        with (
            (folder / f"rank{rank}-keys.txt").open("w") as names,
            (folder / f"rank{rank}-values.bin").open("wb") as values,
        ):
            for row in range(rank, len(keys), ranks):
                index = np.argsort(-p[row], kind="stable")[:kept]
                names.write(keys[row] + "\n")
                values.write(np.int32(1234 + row).tobytes())
                values.write(index.astype(np.int16).tobytes())
                values.write(p[row][index].astype(np.float16).tobytes())
    return folder


def write_fkd(place: Path, keys: list[str], labels: list[np.ndarray], **words) -> Path:
    """One file an image: coordinates, flips and soft labels of its crops, as arrays of numpy. One
    crop is the whole image."""
    for key, crops in zip(keys, labels, strict=True):
        path = place / f"{key}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        coordinates = np.random.default_rng(0).random((len(crops), 4)).astype(np.float32)
        if len(crops) == 1:
            coordinates[0] = [0, 0, 1, 1]
        torch.save([coordinates, np.zeros(len(crops), bool), crops], path, **words)
    return place


def marginal(p_VC: np.ndarray, kept: int) -> np.ndarray:
    """FKD's top-k labels of an image's crops: float32 [V, 2, K], classes above probabilities."""
    index = np.argsort(-p_VC, axis=1, kind="stable")[:, :kept]
    return np.stack([index, np.take_along_axis(p_VC, index, 1)], 1).astype(np.float32)
