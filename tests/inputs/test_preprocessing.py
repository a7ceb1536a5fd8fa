"""Which preprocessing is in force is said, and what about it looks wrong."""

import re

import datasets
import numpy as np
import pytest
import torch

import softlabels
from softlabels.errors import UnreadableInput, UsageError
from softlabels.inputs.opening import open_source
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.preprocessing import choose, doubts
from tests.conftest import Lines, make_vectors, png, save_script

PICTURES = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
UNIT = torch.rand(64, 6)
IMAGENET = "normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))"


@pytest.mark.parametrize(
    ("words", "raw", "doubt"),
    [
        (IMAGENET, PICTURES, "pixels of 0 to 255 are normalized with mean 0.485 and std 0.229"),
        ("rgb|resize(2)|normalize(0.5, 0.5)", PICTURES, r"add scale\(255\) before normalize"),
        ("normalize(0, 0.02)", PICTURES, "0 to 255 are normalized with mean 0 and std 0.02"),
        (IMAGENET, PICTURES // 100, "pixels of 0 to 255"),  # dark pictures are bytes too
        ("normalize(0.1307, 0.3081)", (PICTURES.flatten(1)).float(), "numbers of 0 to 255"),
        ("scale(255)|scale(255)", PICTURES, "pixels of 0 to 1 are divided by 255"),
        (f"scale(255)|scale(255)|{IMAGENET}", PICTURES, "0 to 1 are divided by 255"),
        ("scale(255)", UNIT, "are divided by 255, which leaves 0.0039 at most"),
        ("scale(255)|normalize(123.675, 58.395)", PICTURES, "as if they were 0 to 255: leave"),
        ("normalize((123.7, 116.3, 103.5), (58.4, 57.1, 57.4))", torch.rand(9, 3, 2, 2), "leave"),
    ],
)
def test_what_looks_wrong(words, raw, doubt):
    (found,) = doubts(Preprocess.parse(words), raw)
    assert re.search(doubt, found)


@pytest.mark.parametrize(
    ("words", "raw"),
    [
        ("", PICTURES),
        ("scale(255)", PICTURES),
        (f"scale(255)|{IMAGENET}", PICTURES),
        ("scale(127.5)|normalize(1, 1)", PICTURES),
        ("normalize(127.5, 127.5)", PICTURES),
        ("normalize((123.7, 116.3, 103.5), (58.4, 57.1, 57.4))", PICTURES),
        ("normalize(0, 1)", PICTURES),
        ("normalize(0.5, 0.5)", UNIT),
        ("normalize(0.1, 2)", torch.randn(64, 6) * 40),
        ("scale(10)", torch.randn(64, 6) * 40),
        ("tokens", torch.randint(0, 200, (9, 5))),
    ],
)
def test_what_looks_right(words, raw):
    assert not list(doubts(Preprocess.parse(words), raw))


def test_every_verb_says_the_preprocessing_and_where_it_comes_from(tmp_path, teacher, dump_folder):
    def lines(verb, **options) -> list[str]:
        heard = Lines()
        verb(progress=heard, **options)
        return [line for line in heard.lines if "preprocessing" in line or "scale" in line]

    def first(*found) -> str:
        return lines(*found[:1], **found[1])[0]

    line = "preprocessing upright|scale(255)"
    out, short = str(tmp_path / "s.pt"), {"epochs": 1, "out": str(tmp_path / "s.pt")}
    fitted = first(softlabels.fit, {"data": "digits", "model": "linear"} | short)
    assert re.fullmatch(re.escape(line) + r", by default: inputs \[1, 8, 8\] from 0 to 1", fitted)
    trained = first(softlabels.train, {"dump": dump_folder, "student": "linear"} | short)
    assert trained.startswith(f"{line}, from the dump: inputs [1, 8, 8]")
    assert first(softlabels.evaluate, {"checkpoint": out}).startswith(f"{line}, from the checkpo")
    for verb in (softlabels.plan, softlabels.dump):
        options = {"teacher": teacher, "out": str(tmp_path / "d")}
        assert first(verb, options).startswith(f"{line}, from the teacher's checkpoint: inputs")
    options = {"teacher": teacher, "out": str(tmp_path / "e"), "preprocess": "normalize(0.02, 0.1)"}
    options["dtype"] = "float32"  # unscaled pixels make logits that float16 rounds too far
    given, warned, other = lines(softlabels.dump, **options)
    assert other == (
        "warning: --preprocess is normalize(0.02, 0.1), and the teacher's checkpoint says "
        "upright|scale(255): yours is used"
    )
    assert given.startswith("preprocessing normalize(0.02, 0.1): inputs [1, 8, 8] from -0.2 to ")
    assert warned.startswith("warning: pixels of 0 to 255 are normalized with mean 0.02")
    values = lines(softlabels.fit, data=make_vectors(tmp_path / "v.parquet"), **short)
    assert re.fullmatch(r"no preprocessing, by default: inputs \[6\] from -\S+ to \S+", values[0])


def test_words_on_pictures_are_not_dropped_in_silence_for_numbers(tmp_path, vectors):
    torch.manual_seed(0)
    teacher = save_script(torch.nn.Linear(6, 3), tmp_path / "t.pt")
    with pytest.raises(
        UsageError, match=r"resize\(4, bilinear, torch\) is for pictures; the inputs of .* numbers"
    ):
        softlabels.dump(
            teacher=teacher, data=vectors, out=str(tmp_path / "d"), preprocess="resize(4)|scale(2)"
        )


def test_the_default_brings_pictures_to_the_mode_of_their_column(tmp_path):
    cells = [{"bytes": png(np.full((4, 4, 3), i)), "path": None} for i in range(3)]
    features = datasets.Features({"image": datasets.Image(mode="L")})
    path = str(tmp_path / "grey.parquet")
    datasets.Dataset.from_dict({"image": cells}, features=features).to_parquet(path)
    chosen = choose(open_source(path), None)
    assert str(chosen) == "preprocessing upright|grey|scale(255), by default"


def test_a_crop_that_fits_no_picture_names_the_first(tmp_path, teacher):
    with pytest.raises(
        UnreadableInput, match=r"id 0 .*center_crop\(9\) is larger .* a resize before"
    ):
        softlabels.dump(teacher=teacher, preprocess="center_crop(9)", out=str(tmp_path / "d"))


def test_a_text_that_can_not_be_read_is_not_printed_whole():
    for text in ("x" * 3000, "scale(" * 3000):
        with pytest.raises(UsageError) as raised:
            Preprocess.parse(text)
        assert len(str(raised.value)) < 300
