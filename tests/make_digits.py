"""Writes softlabels/embedded/digits-*.parquet from scikit-learn's copy.

Run: python -m tests.make_digits
"""

import io
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

FOLDER = Path(__file__).parents[1] / "softlabels" / "embedded"


def main() -> None:
    digits = load_digits()
    train, test = train_test_split(
        np.arange(len(digits.target)), train_size=1200, random_state=0, stratify=digits.target
    )
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list("0123456789"))}
    )
    for split, rows in (("train", train), ("test", test)):
        images = [{"bytes": png(digits.images[row]), "path": None} for row in rows]
        table = datasets.Dataset.from_dict(
            {"image": images, "label": digits.target[rows].tolist()}, features=features
        ).with_format("arrow")[:]
        pq.write_table(table, FOLDER / f"digits-{split}.parquet", compression="zstd")


def png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.round(values * 255 / 16).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    main()
