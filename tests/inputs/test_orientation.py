"""Pictures that a camera stored turned: fed upright by default, as `datasets` does, or counted."""

import io
import warnings

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import softlabels
from softlabels.inputs.preprocess import Preprocess
from tests.conftest import Lines, save_script

ORIENTATION = 0x0112
KINDS = {"PNG": {}, "JPEG": {"quality": 95}, "WEBP": {"lossless": True}, "TIFF": {}}


def turned(orientation: int | None, kind: str = "PNG", seed: int = 0, shape=(6, 8)) -> bytes:
    """An encoded picture that is to be turned when it is shown."""
    values = np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)
    exif = Image.Exif()
    if orientation is not None:
        exif[ORIENTATION] = orientation
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind, exif=exif, **KINDS[kind])
    return buffer.getvalue()


def pixels(cell: bytes, words: str) -> np.ndarray:
    with Image.open(io.BytesIO(cell)) as image:
        return Preprocess.parse(words).on_picture(image)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", [None, 1, 2, 3, 4, 5, 6, 7, 8])
def test_upright_pixels_are_those_of_datasets(kind, orientation):
    cell = turned(orientation, kind)
    expected = np.asarray(datasets.Image().decode_example({"bytes": cell, "path": None}))
    assert np.array_equal(pixels(cell, "upright"), expected.transpose(2, 0, 1))
    if kind == "PNG" and orientation == 6:  # known by hand: a quarter clockwise
        stored = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
        assert np.array_equal(expected, np.rot90(stored, -1))


def test_words_after_upright_see_the_turned_picture():
    assert pixels(turned(6), "upright|resize(3)").shape == (3, 4, 3)
    assert pixels(turned(6), "resize(3)").shape == (3, 3, 4)


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_orientation_that_is_none_turns_nothing(orientation):
    assert np.array_equal(pixels(turned(orientation), "upright"), pixels(turned(None), "upright"))


def test_damaged_exif_turns_nothing_and_stops_nothing():
    whole = turned(6, "JPEG")
    start = whole.index(b"Exif\0\0") + 6
    for cut in (b"XX", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff"):
        cell = whole[:start] + cut + whole[start + len(cut) :]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own
            assert pixels(cell, "upright").shape in ((3, 6, 8), (3, 8, 6))


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(192, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.flatten(1))


def photos(tmp_path, orientations: list[int | None]) -> str:
    cells = [
        {"bytes": turned(o, seed=i, shape=(8, 8)), "path": None} for i, o in enumerate(orientations)
    ]
    features = datasets.Features({"image": datasets.Image()})
    path = str(tmp_path / "photos.parquet")
    datasets.Dataset.from_dict({"image": cells}, features=features).to_parquet(path)
    return path


@pytest.mark.parametrize("words", [None, "scale(255)"])
def test_readers_of_a_dump_see_what_the_teacher_saw_or_are_told(tmp_path, words):
    data, out = photos(tmp_path, [6, None, 1, 3]), str(tmp_path / "d")
    teacher, heard = save_script(Flat(), tmp_path / "t.pt"), Lines()
    result = softlabels.dump(
        progress=heard, teacher=teacher, data=data, out=out, preprocess=words,
        store_inputs="original", shard_rows=2, dtype="float32",
    )  # fmt: skip
    rows = datasets.load_dataset(out, split="train", cache_dir=str(tmp_path / "hf"))
    theirs = torch.stack([torch.tensor(np.asarray(row)).permute(2, 0, 1) for row in rows["input"]])
    ours = softlabels.load(out, T=1).take([0, 1, 2, 3])
    with torch.no_grad():
        assert torch.allclose(Flat()(ours["input"]), ours["logits"], atol=1e-5)
        away = (Flat()(theirs / 255) - ours["logits"]).abs().amax(1)
    said = [line for line in heard.lines if "EXIF" in line]
    if words is None:
        first = "preprocessing upright|scale(255), by default: inputs [3, 8, 8]"
        assert any(line.startswith(first) for line in heard.lines)
        assert not said
        assert away.max() < 1e-5
        assert result.manifest.statistics.unturned == 0
    else:
        assert [line.split(";")[0] for line in said] == [
            "warning: 2 of 4 images carry an EXIF orientation and were fed as stored, as "
            "torchvision does"
        ]
        assert "`datasets` turns the inputs" in said[0]
        assert (away > 1e-3).tolist() == [True, False, False, True]
        assert softlabels.info(out)["facts"]["pictures not turned"] == 2
        assert softlabels.verify(dump=out).good
