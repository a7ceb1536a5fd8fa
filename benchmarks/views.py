"""What views are worth to a student, and what they cost a dump.

    python -m benchmarks.views mnist --data FOLDER [--folder DIR] [--seeds 3] [--epochs 20]
                                      [--teacher-epochs 20] [--rows N]
    python -m benchmarks.views photographs [--folder DIR] [--seeds 3] [--epochs 60]
    python -m benchmarks.views speed [--pictures 512] [--repeats 5]
    python -m benchmarks.views bytes

Students are trained on a dump's clean inputs and V of its drawn views, one an epoch in turn, and on
the clean inputs alone; all for as many epochs, that is updates, and each teacher answers the very
pictures that its students see. Errors are those of test rows, counted once, at the end: nothing is
chosen by them. A folder that is given keeps teachers and dumps for the next run.

mnist: FOLDER holds train.parquet and test.parquet. The teacher is that of the paper's section 3
with fewer epochs, the students 800-800 at T = 20, α = 0.9; views are jitter(2).

photographs: which photograph is a part of 32×32 pixels from? They are those that scikit-learn,
matplotlib and, where it is installed, scikit-image carry, in colour; half of the places in a
photograph are for training, half for the test, and no two parts share a pixel. A small
convolutional net teaches a smaller one; views are those of VIEWS.

speed: a teacher that computes nothing, JPEGs of 500×375, two threads; rows a second of a dump of
views over those of the clean dump, in turn, by the clock and by CPU time.

bytes: of the parameters of a view, in the files, with every word that there is.
"""

import argparse
import io
import os
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import datasets
import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

import softlabels
from benchmarks.pictures import PREPROCESS, Null, save, timed

COUNTS = 1, 2, 4, 8
SIDE, SCALED = 32, 384  # pixels: of a part, and of a photograph's shorter side
CROPPED = "random_resized_crop(224)|flip"
EVERY_WORD = (
    "random_resized_crop(256)|random_crop(224)|flip|jitter(4)|color_jitter(0.4, 0.4, 0.4, 0.1)|"
    "grey(0.2)|erase(0.25)|mixup(0.2)|cutmix(1.0)"
)
VIEWS = "random_crop(32, 4)|flip|color_jitter(0.4, 0.4, 0.4, 0.05)"
OF_SCIKIT_IMAGE = (
    "astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "ihc.png",
    "motorcycle_left.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip


def main() -> None:
    datasets.disable_progress_bars()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["mnist", "photographs", "speed", "bytes"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--teacher-epochs", type=int)
    parser.set_defaults(batch_size=64)
    parser.add_argument("--rows", type=int, help="of the students; the teacher learns from all")
    parser.add_argument("--pictures", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    load = f"load {os.getloadavg()[0]:.1f}"
    print(f"torch {torch.__version__}, one thread, {os.cpu_count()} cores, {load}", flush=True)
    with tempfile.TemporaryDirectory() as made:
        place = given.folder or Path(made)
        place.mkdir(parents=True, exist_ok=True)
        if given.what == "mnist":
            mnist(place, given.data, given)
        elif given.what == "photographs":
            photographs(place, given)
        elif given.what == "speed":
            speed(place, given.pictures, given.repeats)
        else:
            sizes(place, given.pictures)


def mnist(place: Path, data: Path, given: argparse.Namespace) -> None:
    train, test = (str(data / f"{split}.parquet") for split in ("train", "test"))
    teacher: dict[str, Any] = {
        "model": "mlp:1200x1200", "augment": "jitter(2)", "dropout": 0.5, "input_dropout": 0.2,
        "max_norm": 3.5,
    }  # fmt: skip
    student: dict[str, Any] = {"student": "mlp:800x800", "T": 20.0, "alpha": 0.9}
    teacher["epochs"] = given.teacher_epochs or 20
    student["epochs"] = given.epochs or 20
    compare(place, train, test, teacher, student, "jitter(2)", given)


def photographs(place: Path, given: argparse.Namespace) -> None:
    train, test = (str(place / f"{split}.parquet") for split in ("train", "test"))
    save_parts(train, test)
    teacher: dict[str, Any] = {"model": "cnn:32x64", "augment": VIEWS}
    teacher["epochs"] = given.teacher_epochs or 60
    student = {"student": "cnn:8x16", "T": 4.0, "alpha": 0.9, "epochs": given.epochs or 60}
    given.batch_size = 32
    compare(place, train, test, teacher, student, VIEWS, given)


def compare(
    place: Path, train: str, test: str, teacher: dict[str, Any], student: dict[str, Any],
    augment: str, given: argparse.Namespace,
) -> None:  # fmt: skip
    """Errors of a teacher, of students of hard labels and of students of its views."""
    recipe = {"holdout": 0.0, "device": "cpu", "batch_size": given.batch_size}
    checkpoint, out = str(place / "teacher.pt"), str(place / "student.pt")
    if not Path(checkpoint).exists():
        softlabels.fit(data=train, out=checkpoint, **recipe, **teacher)
    print(f"teacher: {errors(checkpoint, test)} errors of {len(softlabels.examples(test)):,}")
    if given.rows:
        few = str(place / "few.parquet")
        every = datasets.Dataset.from_parquet(train)
        every.shuffle(seed=0).select(range(given.rows)).to_parquet(few)
        train = few
    kept = {"teacher": checkpoint, "data": train, "device": "cpu", "batch_size": 256}
    clean, views = place / "clean", place / "views"
    if not clean.exists():
        softlabels.dump(**kept, out=str(clean))
    if not views.exists():
        softlabels.dump(**kept, out=str(views), views=max(COUNTS), augment=augment)
    ways: dict[str, dict[str, Any]] = {"clean alone": {"dump": str(clean)}}
    ways |= {f"clean and V = {v}": {"dump": str(views), "views": v} for v in COUNTS}
    found: dict[str, list[int]] = {name: [] for name in ["hard labels", *ways]}
    for seed in range(given.seeds):
        hard = {"model": student["student"], "epochs": student["epochs"], "data": train}
        softlabels.fit(**hard, **recipe, seed=seed, out=out)
        found["hard labels"].append(errors(out, test))
        for name, way in ways.items():
            softlabels.train(**way, **student, **recipe, seed=seed, out=out)
            found[name].append(errors(out, test))
        for name, counts in found.items():
            each = ", ".join(map(str, counts))
            print(f"{name:18} {statistics.mean(counts):8.1f} errors ({each})", flush=True)


def errors(checkpoint: str, test: str) -> int:
    scores = softlabels.evaluate(checkpoint=checkpoint, data=test, split="train", device="cpu")
    return int(scores["errors"])


def save_parts(train: str, test: str) -> None:
    """Parquet files of PNGs: of each photograph half of the parts, by chance."""
    chance = np.random.default_rng(0)
    photos = pictures()
    rows: dict[str, list[tuple[bytes, int]]] = {train: [], test: []}
    for label, picture in enumerate(photos.values()):
        tall, wide = (side // SIDE for side in (picture.height, picture.width))
        for number, cell in enumerate(chance.permutation(tall * wide)):
            top, left = divmod(int(cell), wide)
            box = left * SIDE, top * SIDE, (left + 1) * SIDE, (top + 1) * SIDE
            rows[train if number % 2 else test].append((encoded(picture.crop(box)), label))
    features = datasets.Features({
        "image": datasets.Image(), "label": datasets.ClassLabel(names=list(photos))
    })  # fmt: skip
    for path, cells in rows.items():
        images = [{"bytes": cell, "path": None} for cell, _ in cells]
        table = {"image": images, "label": [label for _, label in cells]}
        datasets.Dataset.from_dict(table, features=features).to_parquet(path)
    counts = " and ".join(f"{len(cells):,}" for cells in rows.values())
    print(f"{len(photos)} photographs: {', '.join(photos)}; {counts} parts to train and to test")


def pictures() -> dict[str, Image.Image]:
    """The photographs in colour that packages carry, their shorter side scaled to SCALED."""
    from matplotlib import get_data_path
    from sklearn import datasets as of_scikit_learn

    folder = Path(of_scikit_learn.__file__).parent / "images"
    paths = [folder / "china.jpg", folder / "flower.jpg"]
    paths.append(Path(get_data_path()) / "sample_data" / "grace_hopper.jpg")
    try:
        import skimage

        paths += [Path(skimage.__file__).parent / "data" / name for name in OF_SCIKIT_IMAGE]
    except ImportError:
        print("scikit-image is not installed: three photographs alone, too few to tell much")
    shown = {}
    for path in paths:
        image = Image.open(path).convert("RGB")
        scale = SCALED / min(image.size)
        size = round(image.width * scale), round(image.height * scale)
        shown[path.stem] = image.resize(size, Image.Resampling.LANCZOS)
    return shown


def speed(place: Path, count: int, repeats: int) -> None:
    """Rows a second of dumps with views over images a second of the clean one."""
    data = str(place / "pictures.parquet")
    save(data, count)
    ways: dict[str, dict[str, Any]] = {"clean": {}}
    for augment in (CROPPED, f"{CROPPED}|color_jitter(0.4, 0.4, 0.4)|grey(0.1)|erase(0.25)"):
        ways[f"1 view, {augment}"] = {"views": 1, "clean": False, "augment": augment}
        ways[f"clean and 4 views, {augment}"] = {"views": 4, "augment": augment}
    rates: dict[str, list[list[float]]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            words = {"teacher": Null().eval(), "name": "null", "data": data, "device": "cpu"}
            words |= {"preprocess": PREPROCESS, "workers": 2, "out": str(place / f"{turn} {name}")}
            seconds = timed(lambda words=words | way: softlabels.dump(**words))
            rows = count * (way.get("views", 0) + way.get("clean", True))
            shutil.rmtree(words["out"])
            if turn:  # the first one meets cold files
                rates[name].append([rows / each for each in seconds])
    for name, found in rates.items():
        clock, used = (statistics.median(rate[by] for rate in found) for by in (0, 1))
        print(f"{name}: {clock:,.0f} rows/s, {1000 / used:.2f} ms of CPU a row")
        for by, kind in enumerate(("clock", "CPU time")):
            pairs = zip(found, rates["clean"], strict=True)
            ratios = sorted(ours[by] / theirs[by] for ours, theirs in pairs)
            spread = f"{ratios[0]:.3f} to {ratios[-1]:.3f}"
            print(f"    over clean by {kind}: {statistics.median(ratios):.3f} ({spread})")


def sizes(place: Path, count: int) -> None:
    """Bytes a row of each column of a dump's parameters, as the file has them."""
    data = str(place / "pictures.parquet")
    save(data, count)
    softlabels.dump(teacher=Null().eval(), name="null", data=data, preprocess=PREPROCESS, views=8,
                    augment=EVERY_WORD, out=str(place / "d"), device="cpu")  # fmt: skip
    stored: dict[str, int] = {}
    rows = 0
    for path in sorted((place / "d" / "data").glob("*.parquet")):
        footer = pq.read_metadata(path)
        rows += footer.num_rows
        for group in range(footer.num_row_groups):
            for column in range(footer.num_columns):
                chunk = footer.row_group(group).column(column)
                name = chunk.path_in_schema.split(".")[0]
                stored[name] = stored.get(name, 0) + chunk.total_compressed_size
    others = ("id", "view", "input_hash", "label", "logits", "input")
    parameters = {name: size / rows for name, size in stored.items() if name not in others}
    for name, size in parameters.items():
        print(f"{name:20} {size:6.2f} bytes a row")
    print(f"{sum(parameters.values()):.1f} bytes a row, of {rows:,} rows, {EVERY_WORD}")


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    main()
