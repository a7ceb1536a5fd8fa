"""Students that see changed pictures: which ones, whatever the batches, and what is refused."""

import threading
from io import BytesIO
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

import softlabels
from softlabels.errors import UsageError
from softlabels.inputs import decoding
from softlabels.inputs.decoding import decode_image
from softlabels.inputs.views.augment import parse_augment
from softlabels.inputs.views.chance import counters
from tests.conftest import Lines, make_vectors, save_script

RESIZED = "rgb|resize(12, bicubic, pillow)|center_crop(8)|scale(255)"


class Seeing(torch.nn.Module):
    """A student that keeps the pictures [3, 8, 8] which it was shown, as bytes, by mode."""

    trained: ClassVar[list[set[bytes]]] = []
    scored: ClassVar[set[bytes]] = set()

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(192, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shown = as_bytes(x)
        if not self.training:
            Seeing.scored |= shown
        elif torch.is_grad_enabled():
            Seeing.trained.append(shown)
        return self.layer(x.flatten(1))


def as_bytes(inputs: torch.Tensor) -> set[bytes]:
    return {(one * 255).round().to(torch.uint8).numpy().tobytes() for one in inputs}


def seen(epochs: int, verb, **words) -> tuple[list[set[bytes]], set[bytes]]:
    """What a student was shown in each epoch, and what it was scored on."""
    Seeing.trained, Seeing.scored = [], set()
    model = {"student" if verb is softlabels.train else "model": f"{__name__}:Seeing"}
    verb(epochs=epochs, out=words.pop("out", "s.pt"), **model, **words)
    steps = Seeing.trained[1:]  # the first time a model is only tried
    each = len(steps) // epochs
    assert len(steps) == each * epochs
    return [set().union(*steps[i * each : (i + 1) * each]) for i in range(epochs)], Seeing.scored


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> str:
    """Pictures of several sizes, in three classes; JPEG, PNG and one that its EXIF data turn."""
    folder = tmp_path_factory.mktemp("photos")
    chance = np.random.default_rng(0)
    for i in range(48):
        size = (14 + i % 5, 12 + i % 7, 3)
        image = Image.fromarray(chance.integers(0, 256, size, np.uint8))
        place = folder / "abc"[i % 3] / f"{i:02}.{'png' if i % 2 else 'jpg'}"
        place.parent.mkdir(exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = 6 if i == 8 else 1
        image.save(place, exif=exif)
    return str(folder)


@pytest.fixture(scope="module")
def squares(tmp_path_factory) -> str:
    """A Parquet file of 60 pictures of 8×8 pixels with text ids."""
    import datasets

    chance = np.random.default_rng(0)
    cells = []
    for _ in range(60):
        buffer = BytesIO()
        Image.fromarray(chance.integers(0, 256, (8, 8, 3), np.uint8)).save(buffer, "PNG")
        cells.append({"bytes": buffer.getvalue(), "path": None})
    features = datasets.Features({
        "image": datasets.Image(), "name": datasets.Value("string"),
        "label": datasets.ClassLabel(names=["a", "b", "c"]),
    })  # fmt: skip
    rows = {"image": cells, "name": [f"née-{i}" for i in range(60)], "label": [0, 1, 2] * 20}
    path = str(tmp_path_factory.mktemp("squares") / "squares.parquet")
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    return path


class Flat(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = torch.nn.Linear(192, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.flatten(1) * 4)


@pytest.fixture(scope="module")
def dump(squares, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("dump")
    teacher = save_script(Flat(), folder / "flat.pt")
    softlabels.dump(teacher=teacher, data=squares, id_column="name", out=str(folder / "d"))
    return str(folder / "d")


def clean(data: str, **words) -> dict[str, torch.Tensor]:
    """The inputs of a data set by id."""
    rows = softlabels.examples(data, **words)
    ids = rows[:]["id"]
    return dict(zip(ids if isinstance(ids, list) else ids.tolist(), rows[:]["input"], strict=True))


@pytest.mark.parametrize(
    "augment",
    [
        "random_crop(8, 3)|flip|color_jitter(0.4, 0.4, 0.4, 0.1)|grey(0.2)|erase(0.5)",
        "random_resized_crop(8)|flip",
    ],
)
def test_what_an_epoch_shows_does_not_depend_on_batches(squares, tmp_path, monkeypatch, augment):
    monkeypatch.chdir(tmp_path)
    words = {"data": squares, "id_column": "name", "augment": augment, "holdout": 0.2}
    first, scored = seen(3, softlabels.fit, batch_size=7, **words)
    monkeypatch.setattr(decoding, "PARALLEL_BYTES", 100)  # in threads
    second, _ = seen(3, softlabels.fit, batch_size=48, seed=5, **words)
    assert first == second
    assert [len(epoch) for epoch in first] == [48] * 3
    assert len(first[0] & first[1]) < 10
    other, _ = seen(1, softlabels.fit, batch_size=48, **words | {"data_seed": 1, "holdout": 0})
    assert len(other[0] & first[0]) < 10
    assert scored <= as_bytes(torch.stack(list(clean(squares, id_column="name").values())))


def by_hand(path: Path, text: str, augment: str, seed: int, id: str, epoch: int) -> torch.Tensor:
    """A picture as `random_resized_crop(8)|flip` of this preprocessing shows it."""
    parsed = parse_augment(augment)
    key = counters(np.array([id]))
    image = Image.open(path)
    if text.startswith("upright") and path.name == "08.jpg":
        image = image.transpose(Image.Transpose.ROTATE_270)
    image = image.convert("L" if "grey" in text else "RGB")
    chances = parsed.crop.chances(seed, key, epoch)[0].tolist()
    top, left, height, width = parsed.crop.box(chances, image.height, image.width)
    part = image.crop((left, top, left + width, top + height))
    filter = Image.Resampling.BICUBIC if "bicubic" in text else Image.Resampling.BILINEAR
    pixels = np.asarray(part.resize((8, 8), filter).convert("RGB")).transpose(2, 0, 1)
    if parsed.draw(seed, key, epoch)["flip"][0]:
        pixels = pixels[:, :, ::-1]
    return torch.from_numpy(pixels.copy())


@pytest.mark.parametrize(
    "text",
    [
        RESIZED,
        "upright|rgb|crop_pct(0.9, 8, pillow)|scale(255)",
        "grey|contain(8, pillow)|pad(8, (7,))|rgb|scale(255)",
    ],
)
def test_random_resized_crop_crops_the_source_picture(photos, tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    augment = "random_resized_crop(8)|flip"
    words = {"data": photos, "preprocess": text, "augment": augment, "data_seed": 3, "holdout": 0}
    shown, _ = seen(2, softlabels.fit, batch_size=9, **words)
    for epoch in (1, 2):
        expected = {
            by_hand(path, text, augment, 3, path.relative_to(photos).as_posix(), epoch)
            .numpy().tobytes()
            for path in Path(photos).rglob("*.*")
        }  # fmt: skip
        assert shown[epoch - 1] == expected


def test_training_pictures_are_decoded_once_an_epoch_and_held_out_ones_once(
    photos, tmp_path, monkeypatch
):
    decoded: list = []

    def decode(cell, preprocess, id):
        decoded.append(str(id))
        return decode_image(cell, preprocess, id)

    monkeypatch.setattr(decoding, "decode_image", decode)
    words = {"data": photos, "preprocess": RESIZED, "augment": "random_resized_crop(8)"}
    out = str(tmp_path / "t.pt")
    softlabels.fit(**words, epochs=3, holdout=0.25, batch_size=9, model="linear", out=out)
    assert 36 * 3 + 12 <= len(decoded) < 36 * 3 + 12 + 10, "a few more are tried at the beginning"


class Live:
    """A data set in memory that notes which threads read it."""

    def __init__(self) -> None:
        self.threads: set[str] = set()

    def __len__(self) -> int:
        return 40

    def __getitem__(self, row: int) -> tuple:
        self.threads.add(threading.current_thread().name)
        chance = np.random.default_rng(row)
        return Image.fromarray(chance.integers(0, 256, (9, 9, 3), np.uint8)), row % 3


def test_batches_are_decoded_ahead_but_no_code_of_the_users_is_run(photos, tmp_path, monkeypatch):
    threads: set[str] = set()

    def decode(cell, preprocess, id):
        threads.add(threading.current_thread().name)
        return decode_image(cell, preprocess, id)

    monkeypatch.setattr(decoding, "decode_image", decode)
    words = {"model": "linear", "epochs": 1, "batch_size": 8, "out": str(tmp_path / "t.pt")}
    words |= {"augment": "random_resized_crop(8)", "preprocess": RESIZED}
    softlabels.fit(data=photos, **words)
    assert any(name.startswith("ahead") for name in threads)
    live = Live()
    softlabels.fit(data=live, **words)
    assert live.threads == {threading.current_thread().name}


@pytest.mark.parametrize("augment", ["random_crop(8, 3)|flip", "random_resized_crop(8)"])
def test_a_student_of_a_dump_sees_the_same_as_one_of_its_source(
    dump, squares, tmp_path, monkeypatch, augment
):
    monkeypatch.chdir(tmp_path)
    lines = Lines()
    words = {"holdout": 0, "batch_size": 16, "augment": augment, "data_seed": 2}
    expected, _ = seen(2, softlabels.fit, data=squares, id_column="name", **words)
    for how in ({}, {"shuffle": "blocks(8, 2)"}, {"streaming": True}):
        found, _ = seen(2, softlabels.train, dump=dump, progress=lines, **how, **words)
        assert found == expected
    assert "warning: the stored soft targets answer clean inputs" in str(lines)
    assert f"augmented by {augment}, drawn for each epoch by data seed 2; held-out" in str(lines)


def test_targets_stay_those_of_their_rows(dump, tmp_path, monkeypatch):
    """A student that learned augmented pictures has the KL of the loss that it was shown."""
    monkeypatch.chdir(tmp_path)
    losses = [
        softlabels.train(dump=dump, T=2, alpha=1, student=f"{__name__}:Flat", epochs=1, lr=1e-9,
                         holdout=0, batch_size=15, **words).metrics["loss"]
        for words in ({}, {"augment": "random_crop(8, 1)"})
    ]  # fmt: skip
    assert losses[0] < 1e-5, "the teacher itself, on clean pictures"
    assert losses[1] > 1e-3


def test_what_is_said(photos, tmp_path):
    lines, words = Lines(), {"data": photos, "model": "linear", "epochs": 1}
    words |= {"preprocess": "rgb|resize(9, bicubic)|center_crop(8)|scale(255)"}
    words["out"] = str(tmp_path / "t.pt")
    softlabels.fit(augment="random_resized_crop(8)|flip", progress=lines, **words)
    assert (
        "random_resized_crop(8) crops source pictures, in the place of "
        "resize(9, bicubic, torch)|center_crop(8), bicubic by torch" in str(lines)
    )
    with pytest.raises(UsageError, match=r"--augment: no word 'flop'; did you mean flip\?"):
        softlabels.fit(augment="flop", **words)


def test_what_can_not_be_augmented_is_refused(dump, photos, squares, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arrays, floats = str(tmp_path / "arrays.parquet"), str(tmp_path / "floats.parquet")
    import datasets

    values = np.random.default_rng(0).integers(0, 256, (20, 3, 8, 8), np.uint8)
    for path, kind in ((arrays, "uint8"), (floats, "float32")):
        features = datasets.Features({
            "x": datasets.Array3D((3, 8, 8), kind), "label": datasets.ClassLabel(names=["a", "b"])
        })  # fmt: skip
        datasets.Dataset.from_dict(
            {"x": list(values.astype(kind)), "label": [0, 1] * 10}, features=features
        ).to_parquet(path)
    softlabels.fit(data=arrays, model="linear", epochs=1, augment="random_crop(8, 1)|flip", out="t")

    def to_numbers(picture):
        return np.asarray(picture.convert("RGB").resize((8, 8))).transpose(2, 0, 1)

    for words, message in (
        ({"data": make_vectors(tmp_path / "v.parquet"), "augment": "flip"},
         r"is for pictures \[C, H, W\]; these inputs are \[6\]"),
        ({"data": arrays, "augment": "random_resized_crop(8)"},
         "crops encoded pictures before they are resized; the inputs of .* are numbers. Use rand"),
        ({"data": photos, "preprocess": to_numbers, "augment": "flip"},
         "which works on pixels; what the function .*to_numbers.* gives may be none"),
        ({"data": photos, "preprocess": RESIZED, "augment": "random_resized_crop(9)"},
         "gives pictures of 9×9 pixels, and the preprocessing gives 8×8, as clean and held"),
        ({"data": squares, "augment": "random_crop(8)"}, "changes nothing"),
        ({"data": floats, "augment": "flip|color_jitter(0.4)"},
         r"color_jitter\(0.4\) is for pictures of 8 bits, from 0 to 255, and these are float32"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            softlabels.fit(**words, model="linear", epochs=1, out="never.pt")
    views = str(tmp_path / "views")
    teacher = save_script(Flat(), tmp_path / "flat.pt")
    softlabels.dump(teacher=teacher, data=squares, out=views, views=2, augment="jitter(2)")
    with pytest.raises(
        UsageError, match=r"has 3 views of each input, drawn by jitter\(2\): the stu"
    ):
        softlabels.train(dump=views, augment="flip", student="linear", epochs=1, out="never.pt")
    assert not Path("never.pt").exists()
