"""Padded batches of tokens from a CSV of texts, over `datasets.map` and DataCollatorWithPadding.

    python -m benchmarks.texts [--rows 100000] [--repeats 5] [--tokenizer FOLDER]

Ours: the file is opened, its texts are tokenised into the cache, and rows come back as a dump takes
them: windows of 16 batches of 256 rows, sorted by length, padded a batch at a time as int64 tensors
with a mask; each text is read and hashed. Unsorted are ours too, with the very batches of theirs.
Theirs: `load_dataset("csv")`,
`map(tokenizer, batched=True)`, and a DataLoader of 256 rows with the collator, in the file's order.
Cold, neither has a cache; warm, both have theirs. Each run is a process of its own, whose time is
counted from the first import on but for what both import. They run in turns; a ratio is the median
of the pairs' ratios, by the clock and by CPU time, with the smallest and the largest beside it.
Without --tokenizer a WordPiece of 8,192 tokens is trained on the texts, whose words are drawn by
Zipf's law. Nothing here is a test.
"""

import argparse
import csv
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

BATCH, WINDOW = 256, 16
WORDS, VOCABULARY = 30_000, 8192
LEAST, MEDIAN, SPREAD, MOST = 3, 45, 0.8, 400  # words of a text, of a log-normal distribution
GOAL = 0.8


def make_texts(path: Path, rows: int) -> None:
    """Of a few to some hundred words, as reviews have."""
    random = np.random.default_rng(0)
    letters = np.array(list("aabcdeeefghiiklmnnoooprrsstttuuvwy"))
    words = ["".join(random.choice(letters, n)) for n in random.integers(2, 11, WORDS)]
    lengths = random.lognormal(np.log(MEDIAN), SPREAD, rows).astype(int).clip(LEAST, MOST)
    drawn = (random.zipf(1.3, int(lengths.sum())) - 1) % WORDS
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        start = 0
        for row, length in enumerate(lengths.tolist()):
            chosen = [words[number] for number in drawn[start : start + length]]
            writer.writerow([" ".join(chosen).capitalize() + ".", row % 2])
            start += length


def make_tokenizer(path: Path, folder: Path) -> None:
    """As BERT's, of the first of these texts."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizerFast

    with path.open(newline="") as file:
        texts = [row["text"] for row, _ in zip(csv.DictReader(file), range(20_000), strict=False)]
    trained = BertWordPieceTokenizer()
    trained.train_from_iterator(texts, vocab_size=VOCABULARY)
    made = BertTokenizerFast(tokenizer_object=trained._tokenizer, model_max_length=512)
    made.save_pretrained(folder)


def ours(data: str, tokenizer: str, window: int = WINDOW) -> tuple[int, int]:
    from softlabels.inputs.opening import open_source
    from softlabels.inputs.preprocess import Preprocess
    from softlabels.inputs.token_inputs import open_tokens
    from softlabels.models.tokenizers import open_tokenizer
    from softlabels.models.tokens import alike
    from softlabels.system.progress import SILENT

    preprocess = Preprocess.tokenize(open_tokenizer(tokenizer), 512, True, False)
    source = open_source(data)
    inputs = open_tokens(source, preprocess, SILENT)
    positions = read = 0
    for start in range(0, len(inputs), BATCH * window):
        rows = source.read(start, min(start + BATCH * window, len(inputs)))
        tokens, _ = inputs.tokens_of(rows)
        for few in alike(tokens.lengths, BATCH):
            batch = tokens[few].padded("right", 0)
            positions += batch["input_ids"].numel()
            read += int(batch["attention_mask"].sum())
    return positions, read


def theirs(data: str, tokenizer: str) -> tuple[int, int]:
    import datasets
    from torch.utils.data import DataLoader
    from transformers import AutoTokenizer, DataCollatorWithPadding

    datasets.disable_progress_bars()
    made = AutoTokenizer.from_pretrained(tokenizer)
    rows = datasets.load_dataset("csv", data_files=data, split="train")

    def tokenize(batch: dict[str, Any]) -> Any:
        return made(batch["text"], truncation=True, max_length=512)

    rows = rows.map(tokenize, batched=True, remove_columns=["text"])
    loader: Any = DataLoader(rows, BATCH, collate_fn=DataCollatorWithPadding(made))
    positions = read = 0
    for batch in loader:
        positions += batch["input_ids"].numel()
        read += int(batch["attention_mask"].sum())
    return positions, read


def unsorted(data: str, tokenizer: str) -> tuple[int, int]:
    return ours(data, tokenizer, 1)


WAYS = {"ours": ours, "unsorted": unsorted, "theirs": theirs}


def run_here(way: str, data: str, tokenizer: str) -> None:
    """Both import torch, transformers and datasets, which takes seconds and is left out."""
    import datasets  # noqa: F401
    import transformers  # noqa: F401

    import softlabels.inputs.token_inputs  # noqa: F401

    began = time.perf_counter(), time.process_time()
    positions, read = WAYS[way](data, tokenizer)
    taken = time.perf_counter() - began[0], time.process_time() - began[1]
    print(json.dumps({"clock": taken[0], "cpu": taken[1], "positions": positions, "read": read}))


def run(way: str, place: Path, cache: Path) -> dict[str, Any]:
    places = {"SOFTLABELS_CACHE": cache / way, "HF_DATASETS_CACHE": cache / "theirs"}
    environ = os.environ | {"HF_HUB_OFFLINE": "1"} | {n: str(p) for n, p in places.items()}
    words = ["--run", way, str(place / "texts.csv"), str(place / "tokenizer")]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.texts", *words],
        env=environ, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokenizer")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_here(*options.run)
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        make_texts(place / "texts.csv", options.rows)
        if options.tokenizer:
            (place / "tokenizer").symlink_to(Path(options.tokenizer).absolute())
        else:
            make_tokenizer(place / "texts.csv", place / "tokenizer")
        measured: dict[str, list[dict[str, Any]]] = {}
        for number in range(options.repeats):
            for state in ("cold", "warm"):
                for way in WAYS:
                    result = run(way, place, place / f"cache-{number}")
                    measured.setdefault(f"{state} {way}", []).append(result)
                    print(f"{number} {state} {way}: {result}", file=sys.stderr, flush=True)
        report(measured, options.rows)


def report(measured: dict[str, list[dict[str, Any]]], rows: int) -> None:
    for way in WAYS:
        first = measured[f"cold {way}"][0]
        share = 1 - first["read"] / first["positions"]
        print(f"{way}: {first['read']:,} tokens, {share:.1%} of the positions are padding")
    for state in ("cold", "warm"):
        for way, time_ in itertools.product(("ours", "unsorted"), ("clock", "cpu")):
            own, other = (
                [one[time_] for one in measured[f"{state} {name}"]] for name in (way, "theirs")
            )
            ratios = [b / a for a, b in zip(own, other, strict=True)]
            print(
                f"{state}, {way}, by {time_}: {statistics.median(ratios):.2f} ({min(ratios):.2f} "
                f"to {max(ratios):.2f}); {rows / statistics.median(own):,.0f} over "
                f"{rows / statistics.median(other):,.0f} texts/s (goal {GOAL})"
            )


if __name__ == "__main__":
    main()
