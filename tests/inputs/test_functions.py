"""A function as `preprocess=`: its numbers reach the model, and it is asked for again."""

import json
import random
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import softlabels
from softlabels.errors import PlanMismatch, SourceError, UsageError
from softlabels.inputs.functions import Function
from tests.conftest import Linear, Lines, png, whole


class Mean(torch.nn.Module):
    """Logits are the mean of each channel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float().mean((2, 3))


def halved(picture: Image.Image) -> np.ndarray:
    """A picture in colour at 8×8, from −1 to 1."""
    values = np.asarray(picture.convert("RGB").resize((8, 8)))
    return values.transpose(2, 0, 1) / 127.5 - 1


def turned(picture: Image.Image) -> torch.Tensor:
    return -torch.from_numpy(halved(picture))


def squared(numbers: np.ndarray) -> np.ndarray:
    numbers *= numbers
    return numbers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    chance = np.random.default_rng(1)
    for row in range(20):
        place = tmp_path / "photos" / "abc"[row % 3]
        place.mkdir(parents=True, exist_ok=True)
        size = (10 + row, 12, 3)
        (place / f"{row:02}.png").write_bytes(png(chance.integers(0, 256, size)))
    return tmp_path / "photos"


@pytest.fixture
def dump(folder: Path, tmp_path: Path) -> str:
    out = str(tmp_path / "d")
    softlabels.dump(teacher=Mean(), data=str(folder), out=out, preprocess=halved, dtype="float32",
                    shard_rows=8)  # fmt: skip
    return out


def test_a_function_makes_what_the_teacher_sees_and_is_asked_for_again(folder, dump, tmp_path, cli):
    plan = json.loads(Path(dump, "plan.json").read_text())
    name, digits = Function(halved).name, Function(halved).hash
    assert name == "tests.inputs.test_functions.halved"
    assert plan["preprocess"] == f"opaque({name!r}, {digits!r})"
    with pytest.raises(UsageError, match=r"by the function tests\.inputs\.test_functions\.halved"):
        softlabels.load(dump)
    done = cli("train", dump, "--alpha", 1)
    assert (done.code, "with preprocess=FUNCTION" in done.err) == (2, True)
    loaded = softlabels.load(dump, preprocess=halved)
    by_hand = [halved(Image.open(path)) for path in sorted(folder.glob("*/*.png"))]
    expected = torch.tensor(np.stack(by_hand)).float()
    torch.testing.assert_close(loaded["input"], expected, atol=0, rtol=0)
    torch.testing.assert_close(whole(loaded), Mean()(expected))
    student = str(tmp_path / "s.pt")
    softlabels.train(dump=dump, preprocess=halved, student="linear", epochs=1, alpha=1, out=student)
    with pytest.raises(UsageError, match="give it again in Python"):
        softlabels.evaluate(checkpoint=student, data=str(folder), split="train")
    lines = Lines()
    softlabels.load(dump, preprocess=turned, progress=lines)
    assert "warning: the inputs are preprocessed by opaque(" in str(lines)
    assert "preprocess=FUNCTION" in Path(dump, "README.md").read_text()


def test_a_module_in_memory_does_not_guess_how_pictures_become_its_inputs(folder, tmp_path):
    out = str(tmp_path / "d")
    with pytest.raises(UsageError, match="the teacher Mean is in memory and does not say how"):
        softlabels.dump(teacher=Mean(), data=str(folder), out=out)
    with pytest.raises(UsageError, match="the model Mean is in memory"):
        softlabels.evaluate(checkpoint=Mean(), data=str(folder), split="train")
    assert not Path(out).exists()


def test_a_resume_and_a_replay_want_the_same_function(folder, dump):
    words = {"teacher": Mean(), "data": str(folder), "out": dump, "dtype": "float32"}
    assert softlabels.verify(dump=dump, replay=9, teacher=Mean(), preprocess=halved).good
    with pytest.raises(UsageError, match="the dump's is opaque"):
        softlabels.verify(dump=dump, replay=9, teacher=Mean(), preprocess=turned)
    min(Path(dump, "data").iterdir()).unlink()
    with pytest.raises(PlanMismatch, match=r"preprocess is .*turned"):
        softlabels.dump(**words, preprocess=turned, resume=True)
    assert softlabels.dump(**words, preprocess=halved, resume=True).rows_run == 8


def test_a_function_gets_a_copy_of_a_rows_numbers(vectors, tmp_path):
    raw = softlabels.examples(vectors)["input"]
    rows = softlabels.examples(vectors, preprocess=squared)
    torch.testing.assert_close(rows["input"], raw * raw, atol=0, rtol=0)
    softlabels.dump(teacher=Linear(), data=vectors, preprocess=squared, out=str(tmp_path / "d"))
    loaded = softlabels.load(str(tmp_path / "d"), preprocess=squared)
    torch.testing.assert_close(whole(loaded).float(), Linear()(raw * raw), atol=0.05, rtol=0.01)
    whole_numbers = softlabels.examples(vectors, preprocess=lambda x: (x > 0).astype(np.int32))
    assert whole_numbers["input"].dtype == torch.int64


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x / 0, "the row with id 0: .* gives NaN or infinity"),
        (lambda x: "cat", "gives a str; expected a tensor or an array"),
        (lambda x: np.float32(1), "expected a tensor or an array"),
        (lambda x: np.array(["a"]), r"gives an array of <U1 \[1\]"),
        (lambda x: x[: 1 + (x[0] > 0)], r"has the shape \[\d\], that of id 0"),
        (lambda x: x * random.random(), "gives something else each time"),
        (lambda x: x.missing, "failed: AttributeError, 'numpy.ndarray' object has no"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_a_function_that_gives_no_inputs_is_refused_in_words(function, message, vectors):
    with pytest.raises(SourceError, match=message):
        softlabels.examples(vectors, preprocess=function)["input"]


def test_a_failing_function_is_no_damaged_picture(folder, tmp_path):
    def wrong(picture):
        raise ValueError("too small")

    with pytest.raises(SourceError, match=r"the row with id .*00\.png: .*wrong failed: ValueError"):
        softlabels.dump(teacher=Mean(), data=str(folder), preprocess=wrong, on_error="skip",
                        out=str(tmp_path / "d"))  # fmt: skip
    with pytest.raises(UsageError, match="which works on pixels"):
        softlabels.dump(teacher=Mean(), data=str(folder), preprocess=halved, views=2,
                        augment="jitter(1)", out=str(tmp_path / "d"))  # fmt: skip


def test_the_hash_tells_code_values_and_objects_apart():
    def scaled(by: float):
        return lambda x: x * by

    class Scale:
        def __init__(self, by: float) -> None:
            self.by = by

        def __repr__(self) -> str:
            return f"Scale({self.by})"

        def __call__(self, x: np.ndarray) -> np.ndarray:
            return x * self.by

    made = [scaled(2), scaled(3), Scale(2), Scale(3), halved, turned, partial(halved)]
    assert len({Function(one).hash for one in made}) == len(made)
    assert Function(scaled(2)) == Function(scaled(2))
    assert Function(Scale(2)) == Function(Scale(2))
    assert Function(partial(halved)) == Function(partial(halved))
