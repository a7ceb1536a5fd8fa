"""Several views of each input over the whole road: the student sees what the teacher saw.

What the Hub has to do with them is in tests/publishing/test_views.py, a shard of them in
tests/store/test_views.py.
"""

import json
import shutil
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import softlabels
from softlabels.errors import AlignmentError, PlanMismatch, UsageError
from softlabels.inputs.views.augmentations import draw_shifts, shift
from softlabels.targets.soft_dataset import SoftDataset
from softlabels.teachers import resolve
from tests import codecs
from tests.capture import harm
from tests.conftest import Lines, make_vectors, png, save_script

ROOT = Path(__file__).parent.parent
WORDS = {"views": 2, "augment": "jitter(2)", "data_seed": 5, "shard_rows": 100, "batch_size": 60}


@pytest.fixture(scope="module")
def dump(teacher, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("views") / "d"
    softlabels.dump(teacher=teacher, out=str(out), **WORDS)
    return out


def moved(pictures: torch.Tensor, shifts: np.ndarray) -> torch.Tensor:
    """Pictures [N, C, H, W] shifted one by one, by hand."""
    found = torch.zeros_like(pictures)
    _, _, height, width = pictures.shape
    for picture, out, (down, right) in zip(pictures, found, shifts.tolist(), strict=True):
        for row in range(max(0, down), min(height, height + down)):
            for column in range(max(0, right), min(width, width + right)):
                out[:, row, column] = picture[:, row - down, column - right]
    return found


def test_the_format_says_how_another_program_shows_a_view():
    text = (ROOT / "docs" / "format.md").read_text()
    code = "def shown" + text.split("def shown", 1)[1].split("```", 1)[0]
    names: dict = {"np": np}
    exec(code, names)
    pictures = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (60, 3, 5, 4), "uint8"))
    shifts = draw_shifts(3, 1, np.arange(60), 1)
    shown = [names["shown"](p.numpy(), *s) for p, s in zip(pictures, shifts.tolist(), strict=True)]
    assert np.array_equal(np.stack(shown), moved(pictures, shifts).numpy())
    assert np.array_equal(np.stack(shown), shift(pictures, shifts).numpy())


def shifts_of(ids: np.ndarray, views: np.ndarray, seed: int = 5) -> np.ndarray:
    pairs = zip(ids, views, strict=True)
    return np.array([draw_shifts(2, seed, np.array([i]), int(v))[0] * (v > 0) for i, v in pairs])


@pytest.mark.parametrize("streaming", [False, True])
def test_inputs_views_ids_and_targets_of_a_row_agree(dump, teacher, streaming):
    dataset = softlabels.load(dump, T=4, streaming=streaming)
    clean = softlabels.examples("digits")
    rows = np.random.default_rng(0).permutation(len(dataset))[:200]
    batch = dataset.take(rows)
    ids, views = batch["id"].numpy(), batch["view"].numpy()
    assert set(views) == {0, 1, 2}
    expected = moved(clean.take(ids)["input"], shifts_of(ids, views))
    assert torch.equal(batch["input"], expected)
    assert torch.equal(batch["label"], clean.take(ids)["label"])
    logits = resolve(teacher).logits(expected)
    torch.testing.assert_close(batch["logits"].float(), logits, rtol=1e-3, atol=1e-3)
    row = dataset[int(rows[3])]
    assert (row["id"], row["view"]) == (ids[3], views[3])
    assert torch.equal(row["input"], expected[3])
    one = dataset.view(2)
    assert torch.equal(one[:50]["input"], moved(clean[:50]["input"], shifts_of(*two(50))))


def two(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(count), np.full(count, 2)


def test_views_depend_on_the_data_seed_and_not_on_how_a_dump_is_run(dump, teacher, tmp_path):
    """Logits do a little: matrix products of other batches are rounded otherwise."""
    changes = {"same": {"batch_size": 7, "shard_rows": 333}, "other": {"data_seed": 6}}
    for name, change in changes.items():
        softlabels.dump(teacher=teacher, out=str(tmp_path / name), **WORDS | change)
    both = softlabels.load({"a": dump, "b": tmp_path / "same"})
    logits = both[:]["logits"]
    torch.testing.assert_close(logits["a"], logits["b"], rtol=1e-2, atol=1e-2)
    with pytest.raises(AlignmentError, match=r"same id and other shift_(down|right) of their view"):
        softlabels.load({"a": dump, "b": tmp_path / "other"})


def test_a_resume_draws_the_same_views_or_is_refused(dump, teacher, tmp_path):
    out = Path(shutil.copytree(dump, tmp_path / "d"))
    (out / "commits" / "00003.json").unlink()
    (out / "softlabels.json").unlink()
    words = {"teacher": teacher, "out": str(out), "resume": True}
    for change, message in (
        ({"data_seed": 6}, "data_seed is 6 and was 5"),
        ({"augment": "jitter(1)"}, r"augment is 'jitter\(1\)' and was 'jitter\(2\)'"),
        ({"views": 3}, r"views is \[0, 1, 2, 3\] and was \[0, 1, 2\]"),
        ({"clean": False}, r"views is \[1, 2\] and was \[0, 1, 2\]"),
    ):
        with pytest.raises(PlanMismatch, match=message):
            softlabels.dump(**words, **WORDS | change)
    assert softlabels.dump(**words, **WORDS).rows_run == 100
    assert harm.contents(out) == harm.contents(dump)


def test_verify_replays_each_view(dump, teacher, tmp_path):
    verdict = softlabels.verify(dump=str(dump), source=True, replay=300, teacher=teacher)
    assert verdict.good
    assert (verdict.rows, verdict.shards, verdict.replay.rows) == (3600, 12, 300)
    assert verdict.replay.agreement > 0.99
    assert "--views 2" in (dump / "README.md").read_text()
    damaged = Path(shutil.copytree(dump, tmp_path / "d"))
    [name] = harm.truncate(damaged)
    assert [f.file for f in softlabels.verify(dump=str(damaged)).findings] == [f"data/{name}"]


def test_the_command_on_the_card_makes_it_again(dump, teacher, cli, tmp_path):
    import shlex

    text = (dump / "README.md").read_text().split("    softlabels dump", 1)[1].split("\n\n", 1)[0]
    words = shlex.split(text.replace("\\\n", " ").replace("TEACHER", teacher))
    done = cli("dump", *words, "--batch-size", 60, "--out", tmp_path / "d")
    assert done.code == 0, done.err
    assert harm.contents(tmp_path / "d") == harm.contents(dump)


def seen(monkeypatch) -> list[list[tuple[int, int]]]:
    """What training takes: of each batch, ids and views."""
    batches = []
    take = SoftDataset.take

    def taking(self, rows):
        batch = take(self, rows)
        batches.append([*zip(batch["id"].tolist(), batch["view"].tolist(), strict=True)])
        return batch

    monkeypatch.setattr(SoftDataset, "take", taking)
    return batches


@pytest.mark.parametrize(
    "how", [{}, {"streaming": True}, {"shuffle": "blocks(8, 16)"}, {"keep": "disk", "rows": 300}]
)
def test_an_epoch_shows_each_input_once_and_what_is_held_out_in_no_view(
    dump, tmp_path, monkeypatch, how
):
    batches, lines = seen(monkeypatch), Lines()
    result = softlabels.train(
        dump=str(dump), epochs=4, student="linear", holdout=0.25, batch_size=100, lr=1e-2,
        out=str(tmp_path / "s.pt"), progress=lines, **how,
    )  # fmt: skip
    rows = how.get("rows", 900)
    each = rows // 100
    epochs = [[*chain(*batches[e * each : (e + 1) * each])] for e in range(4)]
    assert sum(map(len, epochs)) == 4 * rows
    trained = {id for id, _ in epochs[0]}
    for number, epoch in enumerate(epochs, 1):
        assert len(epoch) == rows, "each input once"
        assert {id for id, _ in epoch} == trained
        assert {view for _, view in epoch} == {number % 3}
    assert result.metrics["held_out"]["rows"] == 300
    assert "3 views of each input" in str(lines)


def test_held_out_scores_are_on_the_lowest_view(teacher, tmp_path):
    """Without the clean one too: the scores of the same student on view 1 alone."""
    out = tmp_path / "d"
    softlabels.dump(teacher=teacher, out=str(out), **WORDS | {"clean": False})
    plan = json.loads((out / "plan.json").read_text())
    assert (plan["views"], plan["inputs"], plan["shard_inputs"]) == ([1, 2], 1200, 100)
    words = {"epochs": 1, "student": "linear", "holdout": 0.5, "seed": 3}
    words |= {"dump": str(out), "out": str(tmp_path / "s.pt")}
    held = softlabels.train(**words).metrics["held_out"]
    student = resolve(str(tmp_path / "s.pt"))
    one = softlabels.load(out).view(1)
    order = np.random.default_rng([0, 0xDA7A]).permutation(1200)[:600]
    batch = one.take(order)
    errors = int((student.logits(batch["input"]).argmax(1) != batch["label"]).sum())
    assert held["errors"] == errors


def pictures(folder: Path, count: int = 40) -> str:
    """A Parquet file of pictures with text ids."""
    import datasets

    chance = np.random.default_rng(0)
    images = [png(chance.integers(0, 255, (9, 7, 3))) for _ in range(count)]
    features = datasets.Features({
        "image": datasets.Image(), "name": datasets.Value("string"),
        "label": datasets.ClassLabel(names=["a", "b", "c"]),
    })  # fmt: skip
    rows = {
        "image": [{"bytes": image, "path": None} for image in images],
        "name": [f"née-{i}" for i in range(count)],
        "label": [i % 3 for i in range(count)],
    }
    path = str(folder / "pictures.parquet")
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    return path


class Flat(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = torch.nn.Linear(3 * 9 * 7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.flatten(1) * 4)


@pytest.fixture
def flat(tmp_path) -> dict:
    return {
        "teacher": save_script(Flat(), tmp_path / "flat.pt"), "data": pictures(tmp_path),
        "id_column": "name", "views": 2, "augment": "jitter(3)", "shard_rows": 32,
        "batch_size": 9, "preprocess": "rgb|scale(255)",
    }  # fmt: skip


def test_text_ids_and_stored_inputs(flat, tmp_path):
    import datasets

    bare, whole = str(tmp_path / "bare"), str(tmp_path / "whole")
    softlabels.dump(**flat, out=bare)
    softlabels.dump(**flat, out=whole, store_inputs="original")
    # the first id and view by hand: the first 8 bytes of its SHA-256 are the generator's number
    import hashlib

    key = np.frombuffer(hashlib.sha256("née-0".encode()).digest()[:8], "<u8")
    drawn = draw_shifts(3, 0, key, 1)[0]
    table = pq.read_table(Path(bare, "data")).to_pydict()
    at = next(i for i, v in enumerate(table["view"]) if v == 1)
    assert (table["id"][at], table["shift_down"][at], table["shift_right"][at]) == (
        "née-0", *drawn.tolist(),
    )  # fmt: skip
    rows = datasets.load_dataset(whole)["train"]
    assert len(rows) == 120
    assert [row is None for row in rows["input"]] == [view != 0 for view in rows["view"]]
    chosen = np.random.default_rng(0).permutation(120)
    first = softlabels.load(bare, source=flat["data"]).take(chosen)
    for words in ({}, {"streaming": True}):
        batch = softlabels.load(whole, **words).take(chosen)
        assert batch["id"] == first["id"]
        for name in ("view", "input", "label", "logits"):
            assert torch.equal(batch[name], first[name]), name
    assert softlabels.verify(dump=whole, source=True, replay=120, teacher=flat["teacher"]).good
    assert "each once" in Path(whole, "README.md").read_text()


def test_a_student_with_other_pixels_is_refused(flat, tmp_path):
    """A shift by three of the teacher's pixels is another one in a picture of another size."""
    out = str(tmp_path / "d")
    softlabels.dump(**flat, out=out)
    with pytest.raises(UsageError, match=r"made of pictures with the steps rgb, and not rgb\|re"):
        softlabels.load(out, source=flat["data"], preprocess="rgb|resize(4)|scale(255)")
    scaled = softlabels.load(out, source=flat["data"], preprocess="rgb|scale(51)")
    plain = softlabels.load(out, source=flat["data"])
    torch.testing.assert_close(scaled[:]["input"], plain[:]["input"] * 5)
    assert len(softlabels.load(out, inputs=False, preprocess="grey")) == 120


def test_an_input_that_is_left_out_is_left_out_in_all_views(flat, tmp_path):
    import datasets

    rows = datasets.Dataset.from_parquet(flat["data"]).cast_column(
        "image", datasets.Image(decode=False)
    )
    spoilt = rows.map(
        lambda row, i: {"image": {"bytes": b"none" if i == 33 else row["image"]["bytes"]}},
        with_indices=True, features=rows.features,
    )  # fmt: skip
    spoilt.to_parquet(flat["data"])
    out = str(tmp_path / "d")
    result = softlabels.dump(**flat, out=out, on_error="skip", store_inputs="original")
    assert result.manifest.rows == 39 * 3
    assert len(result.manifest.skipped) == 1
    assert softlabels.verify(dump=out).good
    dataset = softlabels.load(out)
    assert "née-33" not in dataset.ids
    assert len(dataset.view(2)) == 39
    assert softlabels.dump(**flat, out=out, on_error="skip", store_inputs="original",
                           resume=True).rows_run == 0  # fmt: skip


def test_a_resume_samples_inputs_and_not_rows(flat, tmp_path):
    chance = np.random.default_rng(0)
    for number in range(70):
        path = tmp_path / "photos" / "abc"[number % 3] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(chance.integers(0, 255, (9, 7, 3))))
    out = tmp_path / "d"
    words = flat | {"data": str(tmp_path / "photos"), "id_column": None, "out": str(out)}
    softlabels.dump(**words)
    (out / "commits" / "00002.json").unlink()
    (out / "softlabels.json").unlink()
    assert softlabels.dump(**words, resume=True).rows_run == 6
    (out / "commits" / "00002.json").unlink()
    (out / "softlabels.json").unlink()
    (tmp_path / "photos" / "b" / "34.png").write_bytes(png(np.zeros((9, 7, 3))))
    with pytest.raises(PlanMismatch, match=r"of 32 rows of shard 1 .* 1 have changed, .*34.png"):
        softlabels.dump(**words, resume=True)


@pytest.mark.parametrize("codec", ["int8", "step:0.05"])
def test_a_codec_with_a_pilot(teacher, tmp_path, codec, dump):
    assert codecs.CODECS["step"]
    out = tmp_path / "d"
    words = WORDS | {"codec": codec, "views": 1}
    softlabels.dump(teacher=teacher, out=str(out), **words)
    exact = softlabels.load(dump, T=4, inputs=False)
    dataset = softlabels.load(out, T=4)
    for view in (0, 1):
        batch, same = dataset.view(view)[::7], exact.view(view)[::7]
        counts = batch["positions"] if "positions" in batch else torch.ones(len(same["id"])).int()
        expected = same["soft_target"].repeat_interleave(counts, 0)
        torch.testing.assert_close(batch["soft_target"], expected, atol=0.01, rtol=0)
        assert batch["view"].tolist() == [view] * 172
    streamed = softlabels.load(out, T=4, streaming=True)
    rows = [2399, 5, 150, 260]
    assert torch.equal(streamed.take(rows)["soft_target"], dataset.take(rows)["soft_target"])
    assert softlabels.verify(dump=str(out), replay=200, teacher=teacher).good
    (out / "commits" / "00003.json").unlink()
    (out / "softlabels.json").unlink()
    assert softlabels.dump(teacher=teacher, out=str(out), resume=True, **words).rows_run == 100


def save_numbers(path: Path) -> str:
    """A Parquet file of 40 pictures [1, 8, 8] that are numbers."""
    import datasets

    rows = datasets.List(datasets.List(datasets.Value("uint8"), length=8), length=8)
    features = datasets.Features({"x": datasets.List(rows, length=1)})
    values = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), np.uint8)
    datasets.Dataset.from_dict({"x": values}, features=features).to_parquet(str(path))
    return str(path)


def linear_of(inputs: int) -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Linear(inputs, 3)


def test_what_makes_no_views_is_refused_in_words(teacher, flat, tmp_path):
    words = {"teacher": teacher, "out": str(tmp_path / "d")}
    for change, message in (
        ({"views": 3}, "--views is 3, and nothing draws them; say what does, such as --augment"),
        ({"augment": "jitter(2)"}, "--augment is about views, and none are asked for"),
        ({"clean": False}, "--no-clean is about views, and none are asked for"),
        ({"data_seed": 1}, "--data-seed is about views, and none are asked for"),
        ({"views": 0}, "--views is 0; it must be a whole number, 1 or more"),
        ({"views": 10_000, "augment": "jitter(2)"}, "--views is 10000; use 9,999 or less"),
        (
            {"views": 1, "augment": "flop"},
            r"--augment: no word 'flop'; did you mean flip\? Use ra",
        ),
        ({"views": 1, "augment": "flip|random_resized_crop(8)"}, "random_resized_crop must come"),
        ({"views": 1, "augment": "random_crop(8)"}, "changes nothing, since pictures have 8×8 pix"),
        ({"views": 1, "augment": "random_crop(7)"}, "gives pictures of 7×7 pixels, and the prepro"),
        ({"views": 1, "augment": "jitter(0)"}, r"--augment: jitter\(0\) has not one whole number"),
        ({"views": 1, "augment": "jitter"}, "--augment: jitter has not one whole number"),
        ({"views": 1, "augment": "jitter(8)"}, "shift pictures of 8×8 pixels out of sight; use le"),
    ):
        with pytest.raises(UsageError, match=message):
            softlabels.dump(**words, **change)
    vectors = make_vectors(tmp_path / "v.parquet")
    linear = save_script(torch.nn.Linear(6, 3), tmp_path / "linear.pt")
    with pytest.raises(UsageError, match=r"is for pictures \[C, H, W\]; these inputs are \[6\]"):
        softlabels.dump(
            teacher=linear, data=vectors, out=words["out"], views=1, augment="jitter(1)"
        )
    numbers = save_numbers(tmp_path / "numbers.parquet")
    flat = save_script(torch.nn.Sequential(torch.nn.Flatten(), linear_of(64)), tmp_path / "f.pt")
    with pytest.raises(UsageError, match=r"crops encoded pictures .* are numbers. Use random_crop"):
        softlabels.dump(
            teacher=flat, data=numbers, out=words["out"], views=1, augment="random_resized_crop(8)"
        )
    assert not Path(words["out"]).exists()


def test_a_plan_counts_rows_of_views(teacher, tmp_path):
    found = softlabels.plan(teacher=teacher, out=str(tmp_path / "d"), **WORDS)
    assert (found.rows, found.shards, found.shard_rows) == (3600, 12, 100)
    lines = Lines()
    softlabels.dump(teacher=teacher, out=str(tmp_path / "d"), progress=lines, **WORDS)
    assert "3,600 rows of 1,200 inputs, 12 shards" in str(lines)
    size = sum(path.stat().st_size for path in (tmp_path / "d" / "data").iterdir())
    assert found.bytes == pytest.approx(size, rel=0.1)
    assert [one.rows for one in softlabels.list_dumps(tmp_path)] == [3600]
