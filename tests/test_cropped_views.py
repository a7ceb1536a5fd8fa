"""Views that are cut from source pictures, over the whole road: what a dump stores of them is
enough to make them again, to the bit.

The teacher's logits are pixels of what it saw, so that they tell of any other picture.
"""

import hashlib
import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

import softlabels
from softlabels.errors import AlignmentError, SourceError, UsageError
from softlabels.inputs import rendering
from softlabels.inputs.rendering import Picture
from softlabels.store.folder import Folder
from softlabels.store.ledger import Ledger
from softlabels.store.names import commit_name
from softlabels.store.records import Manifest
from softlabels.targets import joining
from tests.capture import harm
from tests.conftest import save_script
from tests.dumps import rewrite

SIZE = 20, 24
COUNT, SHARD = 60, 24
STEPS = "upright|rgb|resize(30, bilinear, pillow)|center_crop(20, 24)|scale(255)"
FILL = 124, 116, 104
AUGMENT = (
    f"random_resized_crop({SIZE}, 0.2, 1)|random_crop({SIZE}, 3)|flip|jitter(1)|"
    f"color_jitter(0.4, 0.4, 0.4, 0.1)|grey(0.2)|erase(0.5, 0.05, 0.5, {FILL})"
)


class Pixels(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x[:, :, 3, 5], x[:, :, 15, 20]], 1) * 100


@cache
def photographs() -> list[np.ndarray]:
    from sklearn.datasets import load_sample_images

    return load_sample_images().images


@cache
def encoded(number: int) -> bytes:
    """Photographs of many sizes; some are grey, some lie on their side, some are PNGs."""
    chance = np.random.default_rng(number)
    photo = photographs()[number % 2]
    height, width = chance.integers(24, 70, 2)
    top, left = chance.integers(0, 300, 2)
    image = Image.fromarray(photo[top : top + height, left : left + width])
    image = image.convert("L") if number % 5 == 4 else image
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6 if number % 3 == 1 else 1
    image.save(buffer, "PNG") if number % 7 == 6 else image.save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with t.pt and photos.parquet."""
    import datasets

    folder = tmp_path_factory.mktemp("cropped")
    save_script(Pixels(), folder / "t.pt")
    features = datasets.Features({"image": datasets.Image(), "name": datasets.Value("string")})
    rows = {
        "image": [{"bytes": encoded(number), "path": None} for number in range(COUNT)],
        "name": [f"né-{number}" for number in range(COUNT)],
    }
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(folder / "photos.parquet"))
    return folder


def words(place: Path, **changes) -> dict:
    return {
        "teacher": str(place / "t.pt"), "data": str(place / "photos.parquet"), "id_column": "name",
        "views": 3, "augment": AUGMENT, "data_seed": 3, "shard_rows": SHARD, "batch_size": 16,
        "preprocess": STEPS, "dtype": "float32",
    } | changes  # fmt: skip


@pytest.fixture(scope="module")
def dump(place) -> Path:
    softlabels.dump(**words(place), out=str(place / "d"))
    return place / "d"


def rows_of(dump: Path) -> dict[tuple, dict]:
    """The columns of each row by id and view."""
    table = pq.read_table(dump / "data").to_pylist()
    return {(row["id"], row["view"]): row for row in table}


@cache
def documented() -> dict:
    """The functions of docs/format.md."""
    text = (Path(__file__).parent.parent / "docs" / "format.md").read_text()
    text = text.split("## Views", 1)[1].split("**Draws.**", 1)[0]
    names: dict = {"np": np, "io": io, "hashlib": hashlib, "itertools": itertools}
    names |= {"Image": Image, "ImageEnhance": ImageEnhance, "ImageOps": ImageOps}
    for block in text.split("```python")[1:]:
        exec(block.split("```", 1)[0], names)
    return names


def by_hand(cell: bytes, row: dict) -> np.ndarray:
    """What a row's columns say of its picture, by the code of the format: uint8 [C, H, W]."""
    (height, width), format = SIZE, documented()
    if not row["view"]:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(cell))).convert("RGB")
        scaled = [int(30 * side / min(image.size)) for side in image.size]
        image = image.resize(tuple(scaled), Image.Resampling.BILINEAR)
        top, left = round((image.height - height) / 2), round((image.width - width) / 2)
        return np.asarray(image)[top : top + height, left : left + width].transpose(2, 0, 1)
    picture = format["cropped"](cell, row | {"flip": False}, height, width)
    window = row["window_top"], row["window_left"]
    picture = format["window"](picture, *window, height, width, 3)
    picture = picture[:, :, ::-1] if row["flip"] else picture
    picture = format["shown"](picture, row["shift_down"], row["shift_right"])
    picture = format["recoloured"](picture, row)
    picture = format["greyed"](picture) if row["grey"] else picture
    return format["erased"](picture, row, FILL)


def seen(inputs: torch.Tensor) -> torch.Tensor:
    return Pixels()(inputs)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_view_is_made_of_its_columns_alone(dump, streaming):
    dataset, stored = softlabels.load(dump, streaming=streaming), rows_of(dump)
    assert len(dataset) == 4 * COUNT
    batch = dataset.take(np.random.default_rng(0).permutation(len(dataset))[:200])
    keys = list(zip(batch["id"], batch["view"].tolist(), strict=True))
    assert {view for _, view in keys} == {0, 1, 2, 3}
    for key, shown, logits in zip(keys, batch["input"], batch["logits"], strict=True):
        pixels = by_hand(encoded(int(key[0].removeprefix("né-"))), stored[key])
        assert np.array_equal((shown * 255).round().byte().numpy(), pixels), key
        assert torch.equal(seen(shown[None])[0], logits), key
    of_view = dataset.take(np.flatnonzero(dataset.views == 2)[:7])
    assert torch.equal(dataset.view(2)[:7]["input"], of_view["input"])


def test_boxes_and_flips_are_drawn_for_each_view(dump):
    rows = rows_of(dump)
    for name in ("crop_top", "window_left", "flip", "shift_down", "hue", "grey", "erase_top"):
        assert not any(row[name] for (_, view), row in rows.items() if not view)
        by_view = [[row[name] for (_, v), row in rows.items() if v == view] for view in (1, 2, 3)]
        assert len({tuple(values) for values in by_view}) == 3
    assert json.loads((dump / "plan.json").read_text())["augment"] == AUGMENT
    schema = pq.read_schema(dump / "data" / "train-00000-of-00003.parquet")
    names = schema.names[schema.names.index("view") + 1 : schema.names.index("input_hash")]
    kinds = [pa.int32()] * 4 + [pa.int16()] * 2 + [pa.bool_()] + [pa.int16()] * 2
    kinds += [pa.float32()] * 4 + [pa.uint8(), pa.bool_()] + [pa.int16()] * 4 + [pa.uint64()]
    assert [schema.field(name).type for name in names] == kinds
    assert names[-1] == "view_hash"


@pytest.mark.parametrize("change", [{"batch_size": 3}, {"batch_size": 60, "workers": 3}])
def test_how_a_dump_is_run_changes_no_byte(dump, place, change, tmp_path):
    softlabels.dump(**words(place, **change), out=str(tmp_path / "d"))
    ours, theirs = harm.contents(tmp_path / "d"), harm.contents(dump)
    rows = [name for name in theirs if not name.startswith("commits/")]  # which say the batch size
    assert [ours[name] for name in rows] == [theirs[name] for name in rows]


def test_a_picture_is_decoded_once_for_all_its_views(place, tmp_path, monkeypatch):
    decoded = Counter()
    decode = Picture._decoded

    def counting(self, *how):
        decoded[self.cell] += 1
        return decode(self, *how)

    out = tmp_path / "d"
    softlabels.dump(**words(place), out=str(out))
    (out / "softlabels.json").unlink()
    (out / "commits" / "00001.json").unlink()
    monkeypatch.setattr(rendering.Picture, "_decoded", counting)
    assert softlabels.dump(**words(place), out=str(out), resume=True).rows_run == SHARD
    tried = {encoded(number) for number in range(16)}  # before the dump begins
    assert {decoded[encoded(n)] for n in range(SHARD, 2 * SHARD) if encoded(n) not in tried} == {1}


@pytest.mark.parametrize("stored", ["original", "resized(40)", "resized(40, png)"])
def test_stored_pictures_show_what_the_teacher_saw(place, dump, stored, tmp_path):
    """Boxes are in pixels of the picture that is stored; who reads the source's makes it first."""
    out = tmp_path / "d"
    softlabels.dump(**words(place, store_inputs=stored), out=str(out))
    source = str(place / "photos.parquet")
    rows = np.random.default_rng(1).permutation(4 * COUNT)[:80]
    for how in ({}, {"streaming": True}, {"source": source}):
        batch = softlabels.load(out, **how).take(rows)
        assert torch.equal(seen(batch["input"]), batch["logits"]), how
    hashes = [row["view_hash"] for row in rows_of(out).values()]
    plain = [row["view_hash"] for row in rows_of(dump).values()]
    assert ([*map(bool, hashes)], hashes == plain) == ([*map(bool, plain)], stored == "original")
    verdict = softlabels.verify(dump=str(out), source=True)
    assert verdict.good
    assert verdict.views_made == len(plain) - plain.count(None)


def test_without_clean_and_with_few_bytes(place, tmp_path):
    out = tmp_path / "d"
    softlabels.dump(
        **words(place, clean=False, views=1, augment=f"random_resized_crop({SIZE})|flip"),
        out=str(out),
    )
    batch = softlabels.load(out)[:]
    assert torch.equal(seen(batch["input"]), batch["logits"])
    assert set(batch["view"].tolist()) == {1}


def changed(dump: Path, out: Path, name: str, value: object) -> Path:
    """A copy of a dump whose last row of shard 0 has another value there, as a stranger's might."""
    shutil.copytree(dump, out)
    ledger = Ledger(Folder(out))
    plan = ledger.plan = ledger.read_plan()

    def change(shard: int, table: pa.Table) -> pa.Table:
        values, place = table[name].to_pylist(), table.column_names.index(name)
        values[-1] = value if shard == 0 else values[-1]
        field = table.schema.field(name)
        return table.set_column(place, field, pa.array(values, field.type))

    commits = [rewrite(out, plan, commit, {}, change) for commit in ledger.commits.values()]
    for commit in commits:
        ledger.folder.write_json(commit_name(commit.shard), commit.as_json)
    manifest = Manifest.derive(plan, commits, {}).as_json
    (out / "softlabels.json").write_text(json.dumps(manifest))
    return out


@pytest.mark.parametrize(
    ("name", "value", "problem", "found"),
    [
        ("crop_top", -3, "cut from .* pixels at -3 down, .* are wrong", "crop_top -3, .* no negat"),
        ("crop_left", 2**31 - 1, "2147483647 right, and its picture has .* wrong", "not cut where"),
        ("crop_height", 2**31 - 1, "from 2147483647×", "are not cut where .* first id né-23 in vi"),
        ("crop_width", 0, "×0 pixels at", "crop_width 0: a part .* at least a pixel"),
        ("window_left", 32767, "window_left of a view is 32767, and a win", "window_left of vi"),
        ("view_hash", 7, None, "has a view_hash, and by the data seed 3 it is one .* without"),
    ],
)  # fmt: skip
def test_columns_that_lie_are_named(dump, tmp_path, name, value, problem, found):
    lying = changed(dump, tmp_path / "d", name, value)
    dataset = softlabels.load(lying)
    last = dataset.view(3).rows_of(["né-23"])
    if problem is not None:
        with pytest.raises(SourceError, match=problem):
            dataset.view(3).take(last)
        with pytest.raises(SourceError, match=problem):
            softlabels.load(lying, streaming=True).view(3).take(last)
    assert len(dataset.view(1)[:SHARD]["id"]) == SHARD, "others are read"
    findings = softlabels.verify(dump=str(lying), source="not cut" in found).findings
    assert any(re.search(found, finding.problem) for finding in findings), findings


def test_a_picture_that_changed_is_refused(dump, place, tmp_path):
    import datasets

    data = str(tmp_path / "photos.parquet")
    rows = datasets.Dataset.from_parquet(str(place / "photos.parquet"))
    rows = rows.cast_column("image", datasets.Image(decode=False))
    other = {"bytes": encoded(1000), "path": None}
    rows.map(
        lambda row, i: {"image": other if i == 5 else row["image"]},
        with_indices=True, features=rows.features,
    ).to_parquet(data)  # fmt: skip
    dataset = softlabels.load(dump, source=data)
    one = dataset.view(2)
    with pytest.raises(AlignmentError, match=r"1 of 2 inputs are not what .* with id né-5\."):
        one.take(one.rows_of(["né-4", "né-5"]))
    verdict = softlabels.verify(dump=str(dump), source=True, data=data)
    assert [
        "1 of 60 inputs are not what the teacher saw" in f.problem for f in verdict.findings
    ] == [True]


def test_other_pixels_are_refused_by_name(dump, place, monkeypatch, tmp_path):
    other = STEPS.replace("pillow", "torch")
    for how in ({}, {"streaming": True}):
        with pytest.raises(UsageError, match=r"made of pictures with the steps .*pillow\).*torch"):
            softlabels.load(dump, preprocess=other, **how)
    assert softlabels.load(dump, preprocess=STEPS.replace("255", "51"))[:2]["input"].max() > 1

    shift = rendering.resize
    monkeypatch.setattr(rendering, "resize", lambda pixels, *how: shift(pixels, *how) // 2)
    verdict = softlabels.verify(dump=str(dump), source=True)
    [finding] = verdict.findings
    hashed = sum(row["view_hash"] is not None for row in rows_of(dump).values())
    assert finding.problem.startswith(f"{hashed} of {hashed} views that were made again are not wh")
    assert "in view" in finding.problem

    monkeypatch.setattr(joining, "DECODER", "nvJPEG")
    message = "views of .* are made of pictures that libjpeg-turbo, .* decoded, and here nvJPEG dec"
    for how in ({}, {"streaming": True}):
        with pytest.raises(UsageError, match=message):
            softlabels.load(dump, **how)
    with pytest.raises(UsageError, match=message):
        softlabels.train(dump=str(dump), student="linear", out=str(tmp_path / "s.pt"))
    with pytest.raises(UsageError, match=message):
        softlabels.verify(dump=str(dump), replay=8, teacher=str(place / "t.pt"))
    [finding] = softlabels.verify(dump=str(dump), source=True).findings
    assert re.search(message, finding.problem)
    assert len(softlabels.load(dump, inputs=False)) == 4 * COUNT


@pytest.mark.slow
def test_eight_views_killed_and_resumed_by_two_ranks_have_the_same_bytes(place, tmp_path):
    given = words(place, views=8, shard_rows=20)
    softlabels.dump(**given, out=str(tmp_path / "whole"))
    out = tmp_path / "d"
    process = run("dump", *options(given), "--out", out)
    while not list(out.glob("commits/*.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(list(out.glob("commits/*.json"))) < 5
    process = run("dump", *options(given), "--out", out, "--resume", "--json", ranks=2)
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert len(said.splitlines()) == 2
    assert harm.contents(out) == harm.contents(tmp_path / "whole")
    batch = softlabels.load(out)[:]
    assert set(batch["view"].tolist()) == set(range(9))
    assert torch.equal(seen(batch["input"]), batch["logits"])


def options(given: dict) -> list[object]:
    return [word for key, value in given.items() for word in (f"--{key.replace('_', '-')}", value)]


def run(*given: object, ranks: int = 1) -> subprocess.Popen:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command = [sys.executable, *(launcher if ranks > 1 else []), "-m", "softlabels"]
    return subprocess.Popen(
        [*command, *map(str, given)], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
    )  # fmt: skip
