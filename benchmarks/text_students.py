"""A two-layer student of texts, distilled from a four-layer teacher and beside hard labels.

    python -m benchmarks.text_students [--folder DIR] [--seeds 3]

The language is made up: each class draws from the same 300 words with odds of its own, and 0.35 of
the words of a text are drawn as another class would. Every fourth label of the teacher's texts and
of the student's is of a random class; those of the test texts are right. The steps are those of the
command line, in Python: fit, dump, train and fit again, eval.
"""

import argparse
import csv
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import transformers
from tokenizers import models, pre_tokenizers, processors, trainers

import softlabels

CLASSES, WORDS, SHARPNESS = 6, 300, 1.0
NOISE, FOREIGN = 0.25, 0.35
ROWS = {"teacher": 6000, "student": 800, "test": 2000}
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def odds(chance: np.random.Generator) -> np.ndarray:
    """How often each class draws each word, [CLASSES, WORDS]."""
    weights = np.exp(SHARPNESS * chance.normal(size=(CLASSES, WORDS)))
    return weights / weights.sum(1, keepdims=True)


def write_texts(path: Path, rows: int, noise: float, drawn: np.ndarray, seed: int) -> None:
    """A CSV of texts of 12 to 32 words and their labels, a share of them random."""
    chance = np.random.default_rng(seed)
    with open(path, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["uid", "text", "label"])
        for row in range(rows):
            own, other = chance.choice(CLASSES, 2, replace=False)
            share = (1 - FOREIGN) * drawn[own] + FOREIGN * drawn[other]
            words = chance.choice(WORDS, chance.integers(12, 33), p=share)
            label = chance.integers(CLASSES) if chance.random() < noise else own
            text = " ".join(f"w{word}" for word in words)
            table.writerow([f"{path.stem}-{row}", text, f"class {label}"])


def save_net(folder: Path, layers: int, width: int, texts: Path | None) -> None:
    """The configuration of a small BERT; with a tokenizer that is trained on these texts."""
    config = transformers.BertConfig(
        vocab_size=WORDS + len(SPECIAL), hidden_size=width, num_hidden_layers=layers,
        num_attention_heads=width // 32, intermediate_size=4 * width, max_position_embeddings=64,
        pad_token_id=0, architectures=["BertForSequenceClassification"],
    )  # fmt: skip
    config.save_pretrained(folder)
    if texts is None:
        return
    made = tokenizers.Tokenizer(models.WordLevel(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.train([str(texts)], trainers.WordLevelTrainer(
        vocab_size=WORDS + len(SPECIAL), special_tokens=SPECIAL, show_progress=False
    ))  # fmt: skip
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(folder)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        run(given.folder or Path(made), given.seeds)


def run(place: Path, seeds: int) -> None:
    place.mkdir(parents=True, exist_ok=True)
    drawn = odds(np.random.default_rng(0))
    for seed, (name, rows) in enumerate(ROWS.items(), 1):
        noise = 0.0 if name == "test" else NOISE
        write_texts(place / f"{name}.csv", rows, noise, drawn, seed)
    save_net(place / "large", 4, 64, place / "teacher.csv")
    save_net(place / "small", 2, 64, None)
    columns = {"input_column": "text", "id_column": "uid"}
    softlabels.fit(
        model=f"hf:{place / 'large'}", data=str(place / "teacher.csv"), epochs=8, batch_size=64,
        lr=1e-3, warmup=0.1, out=str(place / "t.pt"), **columns,
    )  # fmt: skip
    softlabels.dump(teacher=str(place / "t.pt"), data=str(place / "student.csv"),
                    out=str(place / "dump"), **columns)  # fmt: skip
    recipe = {"epochs": 20, "batch_size": 64, "lr": 1e-3, "warmup": 0.1}
    tokenizer = {"tokenizer": str(place / "large")}
    ways: dict[str, Any] = {
        "hard labels": lambda out, seed: softlabels.fit(
            model=f"hf:{place / 'small'}", data=str(place / "student.csv"), seed=seed, out=out,
            **columns, **tokenizer, **recipe),
        "soft targets, T=2": lambda out, seed: softlabels.train(
            dump=str(place / "dump"), student=f"hf:{place / 'small'}", T=2.0, alpha=1.0, seed=seed,
            out=out, **recipe),
        "both, T=2, alpha=0.9": lambda out, seed: softlabels.train(
            dump=str(place / "dump"), student=f"hf:{place / 'small'}", T=2.0, alpha=0.9, seed=seed,
            out=out, **recipe),
    }  # fmt: skip
    print(line("teacher", [measured(place, "t.pt")]))
    for name, train in ways.items():
        scores = []
        for seed in range(seeds):
            train(str(place / "s.pt"), seed)
            scores.append(measured(place, "s.pt"))
        print(line(name, scores), flush=True)


def measured(place: Path, checkpoint: str) -> tuple[float, float]:
    """(accuracy, NLL in nats) on the test texts, whose labels are right."""
    scores = softlabels.evaluate(checkpoint=str(place / checkpoint), data=str(place / "test.csv"),
                                 split="train", input_column="text", id_column="uid")  # fmt: skip
    return scores["accuracy"], scores["nll"]


def line(name: str, scores: list[tuple[float, float]]) -> str:
    accuracies, losses = zip(*scores, strict=True)
    each = ", ".join(f"{accuracy:.4f}" for accuracy in accuracies)
    return (
        f"{name:<22} accuracy {statistics.mean(accuracies):.4f} ({each}), "
        f"NLL {statistics.mean(losses):.3f} nats"
    )


if __name__ == "__main__":
    main()
