"""What a shard's commit says of its logits. N rows, C classes."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softlabels.errors import DamagedDump
from softlabels.logits import DenseLogits

COUNTS, MEASURES = ("rows", "labelled", "correct"), ("min", "max", "mean", "entropy", "accuracy")


def describe_logits(stored_NC: Tensor, labels: np.ndarray) -> dict[str, Any]:
    """Of stored logits: rows, labelled, correct, min, max, mean (of all N·C values) and the mean
    entropy at T = 1 in nats."""
    values_NC = stored_NC.float()
    known = torch.from_numpy(labels >= 0)
    correct = (values_NC.argmax(-1) == torch.from_numpy(labels))[known].sum()
    smallest, largest = values_NC.aminmax()
    return {
        "rows": len(labels),
        "labelled": int(known.sum()),
        "correct": int(correct),
        "min": float(smallest),
        "max": float(largest),
        "mean": float(values_NC.mean(dtype=torch.float64)),
        "entropy": float(DenseLogits(values_NC).temper(1).entropy().mean(dtype=torch.float64)),
    }


def merge_statistics(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Statistics of several disjoint sets of rows as those of all."""
    parts = [part for part in parts if part["rows"]]
    rows = sum(part["rows"] for part in parts)
    if not rows:
        return {"rows": 0}
    labelled = sum(part["labelled"] for part in parts)
    merged = {
        "rows": rows,
        "labelled": labelled,
        "correct": sum(part["correct"] for part in parts),
        "min": min(part["min"] for part in parts),
        "max": max(part["max"] for part in parts),
        "mean": sum(part["mean"] * part["rows"] for part in parts) / rows,
        "entropy": sum(part["entropy"] * part["rows"] for part in parts) / rows,
    }
    if labelled:
        merged["accuracy"] = merged["correct"] / labelled
    return merged


def check_statistics(value: dict[str, Any], where: str) -> None:
    """Raises DamagedDump unless these are statistics as `merge_statistics` gives them."""
    names = [name for name in (*COUNTS, *MEASURES) if name in value]
    wanted = ["rows"] if value.get("rows") == 0 else [*COUNTS, *MEASURES[:4]]
    missing = [name for name in wanted if name not in value]
    wrong = [name for name in names if not _is_fine(name, value[name])]
    if missing or wrong:
        name = (missing or wrong)[0]
        raise DamagedDump(f"{where}: statistics have {name} as {str(value.get(name))[:80]!r}")


def _is_fine(name: str, value: Any) -> bool:
    if name in COUNTS:
        return type(value) is int and value >= 0
    return type(value) in (int, float) and math.isfinite(value)
