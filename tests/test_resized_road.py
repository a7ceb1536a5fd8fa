"""`dump --store-inputs 'resized(H)'`: what is stored of a picture is what the teacher sees, and all
that a student needs."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn

import softlabels
from softlabels.errors import AlignmentError, DamagedDump, PlanMismatch, UsageError
from softlabels.hub.labels_only import without_inputs
from softlabels.inputs.hashing import hash_bytes
from softlabels.store.folder import Folder
from softlabels.store.reader import DumpReader
from tests.conftest import Lines, make_vectors, save_script
from tests.inputs.test_preprocess import picture

STEPS = "rgb|resize(20)|center_crop(16)|scale(255)"
ROWS = 9


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3 * 16 * 16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.flatten(1))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """t.pt, a folder of pictures of two classes, and dumps of them: `jpeg` and `png`."""
    place = tmp_path_factory.mktemp("resized")
    save_script(Flat(), place / "t.pt")
    for row in range(ROWS):
        folder = place / "pictures" / "ab"[row % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image = picture(40 + 9 * row, 90 - 5 * row).convert("L" if row == 3 else "RGB")
        exif = Image.Exif()
        exif[0x0112] = 6 if row == 2 else 1
        image.save(folder / f"{row}.jpg", exif=exif, quality=90)
    for file in ("jpeg", "png"):
        dump(place, file, store_inputs=f"resized(20, {file})")
    return place


def dump(place: Path, out: str, **words) -> object:
    options = {"shard_rows": 4, "dtype": "float32", "preprocess": STEPS} | words
    return softlabels.dump(
        teacher=str(place / "t.pt"), data=str(place / "pictures"), out=str(place / out),
        labels=False, **options,
    )  # fmt: skip


def originals(place: Path) -> dict[str, bytes]:
    folder = place / "pictures"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("*/*.jpg")}


def expected(content: bytes) -> np.ndarray:
    """The original upright, in RGB, its shorter side 20, by torch as the plan says: uint8 HWC."""
    from softlabels.inputs.preprocess import Preprocess

    steps = Preprocess.parse("upright|rgb|resize(20)")
    with Image.open(io.BytesIO(content)) as image:
        return steps.on_picture(image).transpose(1, 2, 0)


@pytest.mark.parametrize("file", ["jpeg", "png"])
def test_the_teacher_sees_what_the_stored_pictures_hold(place, file):
    out, sources = place / file, originals(place)
    plan = json.loads((out / "plan.json").read_text())
    assert plan["store_inputs"] == f"resized(20, {file})"
    through = "jpeg(95)|" if file == "jpeg" else ""
    assert plan["preprocess"] == (
        f"upright|rgb|resize(20, bilinear, torch)|{through}center_crop(16)|scale(255)"
    )
    rows = pq.read_table(out / "data").to_pylist()
    for row in rows:
        content = row["input"]["bytes"]
        assert row["input_hash"] == hash_bytes(sources[row["id"]])
        assert row["stored_hash"] == hash_bytes(content)
        with Image.open(io.BytesIO(content)) as image:
            assert image.format == file.upper()
            assert not image.getexif()
            pixels = np.asarray(image)
        whole = expected(sources[row["id"]])
        assert pixels.shape == whole.shape
        assert min(pixels.shape[:2]) == 20
        away = np.abs(pixels.astype(int) - whole)
        assert away.max() == 0 if file == "png" else 0 < away.mean() < 4
        height, width = pixels.shape[:2]
        top, left = round((height - 16) / 2), round((width - 16) / 2)
        crop = torch.tensor(pixels[top : top + 16, left : left + 16]).permute(2, 0, 1)[None] / 255
        with torch.no_grad():
            assert torch.allclose(Flat()(crop)[0], torch.tensor(row["logits"]), atol=1e-5)


@pytest.mark.parametrize("streaming", [False, True])
def test_students_read_the_stored_pictures_without_the_source(place, tmp_path, streaming):
    alone = shutil.copytree(place / "jpeg", tmp_path / "d")
    (place / "pictures").rename(place / "away")
    try:
        dataset = softlabels.load(str(alone), streaming=streaming)
        rows = dataset.take(list(range(ROWS)))
        with torch.no_grad():
            assert torch.allclose(Flat()(rows["input"]), rows["logits"], atol=1e-5)
        # another preprocessing begins where the stored ones are, or says the same steps again
        for steps in (STEPS, "rgb|resize(20)|center_crop(8)|scale(255)", "center_crop(8)"):
            some = softlabels.load(str(alone), streaming=streaming, preprocess=steps)
            edge = 16 if steps == STEPS else 8
            assert list(some.take([0])["input"].shape) == [1, 3, edge, edge]
        with pytest.raises(UsageError, match=r"no more than 20×20 pixels.*center_crop\(24\)"):
            softlabels.load(str(alone), streaming=streaming, preprocess="center_crop(24)")
        verdict = softlabels.verify(
            dump=str(alone), source=True, replay=ROWS, teacher=str(place / "t.pt")
        )
        assert verdict.good
        assert verdict.replay.rows == ROWS
    finally:
        (place / "away").rename(place / "pictures")


def test_a_student_is_for_pictures_that_no_dump_stored(place, tmp_path):
    result = softlabels.train(
        dump=str(place / "jpeg"),
        student="mlp:8",
        epochs=1,
        alpha=1,
        holdout=0,
        out=str(tmp_path / "s.pt"),
    )
    assert result.checkpoint.preprocess == (
        "upright|rgb|resize(20, bilinear, torch)|center_crop(16)|scale(255)"
    )
    found = softlabels.evaluate(
        checkpoint=str(tmp_path / "s.pt"), data=str(place / "pictures"), split="train",
        labels=False, against=str(place / "jpeg"),
    )  # fmt: skip
    assert found["against"]


def test_a_model_of_whole_pictures_is_not_measured_on_stored_ones(place, tmp_path):
    dump(place, str(tmp_path / "raw"), preprocess="rgb|center_crop(16)|scale(255)")
    softlabels.train(
        dump=str(tmp_path / "raw"), student="linear", epochs=1, alpha=1, holdout=0,
        out=str(tmp_path / "s.pt"),
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"takes them as they come: .* is center_crop\(16\)"):
        softlabels.evaluate(
            checkpoint=str(tmp_path / "s.pt"), data=str(place / "pictures"), split="train",
            labels=False, against=str(place / "jpeg"),
        )  # fmt: skip


def test_a_function_is_told_which_pictures_it_gets(place):
    def widths(image: Image.Image) -> np.ndarray:
        return np.array([min(image.size)], np.int64)

    for source, width in ((None, 20), (str(place / "pictures"), 40)):
        heard = Lines()
        dataset = softlabels.load(
            str(place / "jpeg"), source=source, preprocess=widths, progress=heard
        )
        assert dataset.take(range(ROWS))["input"].min() == width
        assert ("stores, upright and after resize(20), not" in str(heard)) == (source is None)


def test_the_source_itself_gives_the_same_pixels(place, tmp_path):
    source = str(place / "pictures")
    rows = list(range(ROWS))
    stored = softlabels.load(str(place / "jpeg")).take(rows)["input"]
    assert torch.equal(softlabels.load(str(place / "jpeg"), source=source).take(rows)["input"],
                       stored)  # fmt: skip
    bare = without_inputs(DumpReader(Folder(str(place / "jpeg"))), Folder(str(tmp_path / "bare")))
    assert "stored_hash" not in pq.read_schema(next(Path(str(bare)).glob("data/*"))).names
    assert torch.equal(softlabels.load(str(bare), source=source).take(rows)["input"], stored)
    verdict = softlabels.verify(
        dump=str(place / "jpeg"), data=source, source=True, replay=ROWS, teacher=str(place / "t.pt")
    )
    assert verdict.good


def test_a_stored_picture_is_proven_by_its_own_hash(place, tmp_path):
    """Of a dump whose records agree with a changed picture, as another writer may leave it."""
    out = shutil.copytree(place / "png", tmp_path / "d")
    reader = DumpReader(Folder(str(out)))
    table = reader.table(["stored_hash"])
    wrong = table["stored_hash"].to_numpy().copy()
    wrong[3] += 1
    dataset = softlabels.load(str(out))
    dataset.examples.hashes = wrong
    with pytest.raises(AlignmentError, match=str(reader.ids[3])):
        dataset.take(list(range(ROWS)))


def test_views_crop_what_is_stored(place):
    dump(place, "views", store_inputs="resized(20)", views=2, augment="jitter(2)", data_seed=1)
    for streaming in (False, True):
        rows = softlabels.load(str(place / "views"), streaming=streaming).take(range(3 * ROWS))
        with torch.no_grad():
            assert torch.allclose(Flat()(rows["input"]), rows["logits"], atol=1e-5)
    assert softlabels.verify(dump=str(place / "views"), source=True).good


def test_it_is_resumed_and_kept_apart(place, tmp_path):
    dump(place, "again", store_inputs="resized(20)")
    bytes_before = (place / "again/data/train-00001-of-00003.parquet").read_bytes()
    (place / "again/data/train-00001-of-00003.parquet").unlink()
    plan = json.loads((place / "again/plan.json").read_text())
    # the plan's own words give the same plan
    dump(place, "again", store_inputs=plan["store_inputs"], preprocess=plan["preprocess"],
         resume=True)  # fmt: skip
    assert (place / "again/data/train-00001-of-00003.parquet").read_bytes() == bytes_before
    for other in ("original", "resized(18)", "resized(20, png)"):
        with pytest.raises((PlanMismatch, UsageError), match=r"store_inputs|resized"):
            dump(place, "again", store_inputs=other, resume=True)


def test_pictures_that_cannot_be_read_are_left_out(place, tmp_path):
    (place / "pictures/a/broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    try:
        result = dump(place, "some", store_inputs="resized(20)", on_error="skip")
    finally:
        (place / "pictures/a/broken.jpg").unlink()
    assert [entry.id for entry in result.manifest.skipped] == ["a/broken.jpg"]
    rows = softlabels.load(str(place / "some")).take(range(ROWS))
    with torch.no_grad():
        assert torch.allclose(Flat()(rows["input"]), rows["logits"], atol=1e-5)


def test_a_picture_too_long_for_a_jpeg_is_left_out(tmp_path, place):
    (tmp_path / "t.pt").write_bytes((place / "t.pt").read_bytes())
    (tmp_path / "pictures/a").mkdir(parents=True)
    for row, width in enumerate((30, 4000, 4000)):  # there are no two in a row to try a teacher on
        picture(1 if row else 30, width).save(tmp_path / f"pictures/a/{row}.png")
    result = dump(tmp_path, "d", store_inputs="resized(20)", on_error="skip")
    assert [entry.id for entry in result.manifest.skipped] == ["a/1.png", "a/2.png"]
    assert "20×80,000 pixels, and a JPEG at most 65,500 a side" in result.manifest.skipped[0].reason
    result = dump(tmp_path, "whole", store_inputs="resized(20, png)")
    assert result.manifest.skipped == []


@pytest.mark.parametrize(
    ("stored", "steps", "text"),
    [
        ("resized(20)", "rgb|center_crop(16)|scale(255)", "first step that does is center_crop"),
        ("resized(20)", "rgb|scale(255)", "no step changes the size.*--store-inputs original"),
        ("resized(12)", STEPS, r"no more than 12×12 pixels where resize\(20, bilinear, torch\)"),
        ("resized(20)", "resize(18)|center_crop(19)", r"no more than 18×18.*center_crop\(19\)"),
        ("resized(30, 20)", STEPS, r"the first step that does is resize\(20, bilinear, torch\)"),
        ("resized(0)", STEPS, "whole numbers from 1"),
        ("resized(20, gif)", STEPS, "then comes jpeg or png"),
        ("resized(20)", f"jpeg(30)|{STEPS}", r"jpeg\(30\) comes before all that resizes"),
        ("shrunk(20)", STEPS, r"use none, original, resized\(256\)"),
        ("resized(20)", lambda image: torch.zeros(3, 16, 16), "write the preprocessing as text"),
    ],
)
def test_what_can_not_be_stored_so_is_refused(place, tmp_path, stored, steps, text):
    with pytest.raises(UsageError, match=text):
        dump(place, str(tmp_path / "no"), store_inputs=stored, preprocess=steps)
    assert not (tmp_path / "no").exists()


def test_numbers_are_stored_as_they_are(tmp_path):
    data = make_vectors(tmp_path / "v.parquet")
    with pytest.raises(UsageError, match=r"inputs of .* are numbers: say --store-inputs original"):
        softlabels.dump(teacher=nn.Linear(6, 3), name="t", data=data, out=str(tmp_path / "d"),
                        store_inputs="resized(8)")  # fmt: skip


def test_other_sizes_and_smaller_crops_of_what_is_stored(place):
    """Larger pictures than the teacher's steps need may be stored, for students that crop."""
    dump(place, "larger", store_inputs="resized(24)")
    plan = json.loads((place / "larger/plan.json").read_text())
    assert plan["preprocess"].startswith(
        "upright|rgb|resize(24, bilinear, torch)|jpeg(95)|resize(20, bilinear, torch)|"
    )
    rows = softlabels.load(str(place / "larger")).take(range(ROWS))
    with torch.no_grad():
        assert torch.allclose(Flat()(rows["input"]), rows["logits"], atol=1e-5)


@pytest.mark.parametrize("stored", ["none", "resized(20)"])
def test_a_jpeg_that_the_user_asks_for_stays(place, tmp_path, stored):
    """In what the teacher sees, and in the student's preprocessing."""
    dump(place, str(tmp_path / "d"), store_inputs=stored,
         preprocess="upright|rgb|resize(20)|jpeg(10)|center_crop(16)|scale(255)")  # fmt: skip
    plan = json.loads((tmp_path / "d/plan.json").read_text())
    resize = "upright|rgb|resize(20, bilinear, torch)"
    through = "|jpeg(95)" if stored == "resized(20)" else ""
    assert plan["preprocess"] == f"{resize}{through}|jpeg(10)|center_crop(16)|scale(255)"
    rows = softlabels.load(str(tmp_path / "d")).take(range(ROWS))
    with torch.no_grad():
        assert torch.allclose(Flat()(rows["input"]), rows["logits"], atol=1e-5)
    without = softlabels.load(str(place / "png")).take(range(ROWS))["input"]
    assert (rows["input"] - without).abs().mean() > 0.02
    result = softlabels.train(
        dump=str(tmp_path / "d"), student="mlp:8", epochs=1, alpha=1, holdout=0,
        out=str(tmp_path / "s.pt"),
    )  # fmt: skip
    assert result.checkpoint.preprocess == f"{resize}|jpeg(10)|center_crop(16)|scale(255)"
    with pytest.raises(UsageError, match=r"jpeg\(10\) of the preprocessing, .* comes before that"):
        softlabels.train(
            dump=str(tmp_path / "d"), student="mlp:8", alpha=1, augment="random_resized_crop(16)",
            preprocess="jpeg(10)|resize(16, 16)|scale(255)", out=str(tmp_path / "no.pt"),
            source=str(place / "pictures"),
        )  # fmt: skip


def test_damage_is_found(place, tmp_path):
    out = shutil.copytree(place / "jpeg", tmp_path / "d")
    file = out / "data/train-00000-of-00003.parquet"
    content = bytearray(file.read_bytes())
    start = content.index(b"\xff\xd8\xff")
    content[start + 300] ^= 1
    file.write_bytes(bytes(content))
    assert not softlabels.verify(dump=str(out)).good
    with pytest.raises(DamagedDump):
        softlabels.load(str(out)).take(range(ROWS))
