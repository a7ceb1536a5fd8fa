"""What several teachers are worth to one student.

    python -m benchmarks.ensemble --data FOLDER [--folder DIR] [--teachers 5] [--seeds 3]
                                  [--teacher-epochs 8] [--epochs 15] [--student mlp:300x300]

FOLDER holds MNIST as train.parquet and test.parquet. The teachers are those of the paper's section
3 with fewer epochs and other initial weights, dumped in one pass; all hold out the same tenth,
which no student is trained on. Students learn from the member with the fewest held-out errors, from
all by the mean of probabilities and of logits, by equal and by fitted weights, at T = 4 and 20, all
for as many updates. Errors are those of the test rows, counted once, at the end: nothing is chosen
by them. A folder that is given keeps teachers and dumps for the next run.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import datasets
import torch

import softlabels
from softlabels.measures import LabelScore

TEMPERATURES = 4.0, 20.0


def main() -> None:
    datasets.disable_progress_bars()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--teachers", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--teacher-epochs", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--student", default="mlp:300x300")
    given = parser.parse_args()
    torch.set_num_threads(1)
    load = f"load {os.getloadavg()[0]:.1f}"
    print(f"torch {torch.__version__}, one thread, {os.cpu_count()} cores, {load}", flush=True)
    with tempfile.TemporaryDirectory() as made:
        place = given.folder or Path(made)
        place.mkdir(parents=True, exist_ok=True)
        compare(place, given)


def compare(place: Path, given: argparse.Namespace) -> None:
    train, test = (str(given.data / f"{split}.parquet") for split in ("train", "test"))
    teachers = {f"t{seed}": fitted(place / f"t{seed}.pt", train, seed, given.teacher_epochs)
                for seed in range(given.teachers)}  # fmt: skip
    dumps = {}
    for split, data in (("train", train), ("test", test)):
        out = place / split
        softlabels.dump(teacher=teachers, data=data, out=str(out), device="cpu", resume=True)
        dumps[split] = {name: str(out / name) for name in teachers}
    held = softlabels.load(dumps["train"], inputs=False)
    fits = {space: held.fit_weights(space) for space in ("prob", "logit")}
    best = min(fits["prob"].alone, key=lambda name: fits["prob"].alone[name])
    print(f"best member by the held-out NLL: {best}")
    on_test = softlabels.load(dumps["test"], inputs=False)
    print("on the test rows:")
    for name in teachers:
        tell(name, on_test.only(name).mix())
    mixtures: dict[str, dict[str, Any]] = {"best member": {"dump": dumps["train"][best]}}
    for space, fit in fits.items():
        print(f"{space}: {fit}")
        for how, weights in (("equal", None), ("fitted", fit.weights)):
            tell(f"{space}, {how} weights", on_test.mix(space, weights))
            words = {"dump": dumps["train"], "mix": space, "mix_weights": weights}
            mixtures[f"{space}, {how} weights"] = words
    students(place, train, test, mixtures, given)


def fitted(path: Path, train: str, seed: int, epochs: int) -> str:
    if not path.exists():
        softlabels.fit(
            data=train, model="mlp:1200x1200", dropout=0.5, input_dropout=0.2, max_norm=3.87,
            epochs=epochs, seed=seed, device="cpu", out=str(path),
        )  # fmt: skip
    return str(path)


def tell(title: str, dataset: Any) -> None:
    """Errors, NLL and calibration error of what is stored, against its labels."""
    score = LabelScore()
    for batch in dataset.batches(4096):
        score += LabelScore.of(batch["targets"], batch["label"])
    found = score.measures
    measured = f"NLL {found['nll']:.4f}, ECE {found['ece']:.4f}"
    print(f"{title}: {found['errors']} errors, {measured}", flush=True)


def students(
    place: Path, train: str, test: str, mixtures: dict[str, dict[str, Any]],
    given: argparse.Namespace,
) -> None:  # fmt: skip
    out = str(place / "student.pt")
    recipe: dict[str, Any] = {"epochs": given.epochs, "device": "cpu", "out": out}
    print("| errors of 10,000 | mean | by seed |\n|---|---|---|")

    def row(name: str, learn: Any) -> None:
        found = []
        for seed in range(given.seeds):
            learn(seed)
            found.append(softlabels.evaluate(checkpoint=out, data=test, device="cpu")["errors"])
        listed = ", ".join(map(str, found))
        print(f"| {name} | {statistics.mean(found):.1f} | {listed} |", flush=True)

    row(
        "hard labels",
        lambda seed: softlabels.fit(data=train, model=given.student, seed=seed, **recipe),
    )
    for T in TEMPERATURES:
        for name, words in mixtures.items():
            row(
                f"{name}, T = {T:g}",
                lambda seed, words=words, T=T: softlabels.train(
                    T=T, alpha=0.9, student=given.student, source=train, seed=seed,
                    **recipe, **words,
                ),
            )  # fmt: skip


if __name__ == "__main__":
    main()
