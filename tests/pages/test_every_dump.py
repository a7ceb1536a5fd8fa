"""A report of every kind of dump: what is there is shown, what is not is said."""

import os
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

import softlabels
from softlabels.errors import UsageError
from tests.conftest import Firsts, Linear
from tests.dumps import make_dump
from tests.pages.html import Element, check_nothing_is_asked_for, embedded_in, facts_of, read
from tests.pages.test_report import MOST_BYTES, cards, vectors_of

pytestmark = pytest.mark.slow


def page_of(dump: Path | str, place: Path, **words: object) -> Element:
    """Its page, which asks for nothing and says what `info` says."""
    page = place / "page.html"
    made = softlabels.report(dump=str(dump), out=str(page), **words)
    assert made.bytes == page.stat().st_size < MOST_BYTES
    root = read(page.read_text(encoding="utf-8"))
    check_nothing_is_asked_for(root)
    facts, info = facts_of(root), softlabels.info(str(dump)).readable
    assert {name: facts[name] for name in info} == {name: text[:500] for name, text in info.items()}
    return root


def titles(root: Element) -> list[str]:
    return [one.text for one in root.all("h2")]


def test_views_show_the_first_of_each_input(views_folder, tmp_path):
    root = page_of(views_folder, tmp_path, rows=3)
    facts = [one.text for one in root.all("p", class_="fact")]
    assert "view 0" in facts
    assert not any(text.startswith("view 1") for text in facts)
    assert "several views" in root.text
    (table,) = [one for one in root.all("table") if "View by view" in one.text]
    scores = [line.all("td")[1].text for line in table.all("tbody")[0].all("tr")]
    assert len(scores) > 1
    (accuracy,) = [tile.all("dd")[0].text for tile in root.all("div", class_="tile")
                   if tile.all("dt")[0].text == "accuracy"]  # fmt: skip
    assert accuracy == f"{100 * float(scores[0]):.2f} %"


def test_without_labels_nothing_is_scored(tmp_path):
    data = vectors_of(tmp_path / "v.parquet", [], labelled=False)
    softlabels.dump(teacher=Linear(), data=data, out=str(tmp_path / "d"))
    root = page_of(tmp_path / "d", tmp_path)
    assert "Class by class" not in titles(root)
    assert [one.text for one in root.all("h3")] == ["Examples", "The softest"]
    assert "no labels of the teacher's classes" in root.text
    assert "accuracy" not in [one.text for one in root.all("dt")]


def test_a_row_of_two_classes(tmp_path):
    features = datasets.Features({"x": datasets.List(datasets.Value("float32"), length=6)})
    data = datasets.Dataset.from_dict({"x": [[1.0] * 6]}, features=features)

    class Two(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :2] * torch.tensor([1.0, 2.0])

    softlabels.dump(teacher=Two(), data=data, out=str(tmp_path / "d"))
    root = page_of(tmp_path / "d", tmp_path)
    assert "The inputs are not shown" in root.text  # a data set in memory is gone
    expected = f"{1 / (1 + np.exp(-1 / 4)):.4f}"
    firsts = [next(iter(probabilities.values())) for _, _, probabilities in cards(root)]
    assert firsts == [expected] * 2


def test_several_labels(tmp_path):
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 6)).astype(np.float32)
    names = ["cat", "dog", "eel"]
    labels = [np.flatnonzero(row[:3] + random.normal(size=3) > 0).tolist() for row in x]
    features = {"x": datasets.List(datasets.Value("float32"), length=6),
                "label": datasets.List(datasets.ClassLabel(names=names))}  # fmt: skip
    data = datasets.Dataset.from_dict({"x": x, "label": labels}, datasets.Features(features))
    data.to_parquet(str(tmp_path / "v.parquet"))
    words = {"task": "multilabel", "data": str(tmp_path / "v.parquet")}
    softlabels.dump(teacher=Firsts(), out=str(tmp_path / "d"), **words)
    root = page_of(tmp_path / "d", tmp_path, rows=5)
    (data,) = embedded_in(root)
    assert data["link"] == "sigmoid"
    info = softlabels.info(str(tmp_path / "d"), per_class=True)
    tiles = [one.text for one in root.all("dd", class_="value")]
    assert f"{info['facts']['mean average precision']:.4f}" in tiles
    for _, title, probabilities in cards(root):
        id = title.removeprefix("id ")
        (row,) = softlabels.show(dump=str(tmp_path / "d"), id=[id], T=[4]).rows
        assert {one.name: f"{one.probabilities[0]:.4f}" for one in row.top} == probabilities


def test_pictures_of_a_folder_and_without_it(tmp_path):
    """Large ones are made small; where their folder is gone, rows are shown without."""
    random, folder = np.random.default_rng(0), tmp_path / "pictures"
    for name in ("red", "green", "blue"):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            values = random.integers(0, 256, (300, 400, 3)).astype(np.uint8)
            Image.fromarray(values).save(folder / name / f"{number}.png")

    class Mean(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.float().mean((2, 3)) * 20

    words = {"data": str(folder), "preprocess": "rgb|resize(32, 32)|scale(255)"}
    softlabels.dump(teacher=Mean(), out=str(tmp_path / "d"), **words)
    root = page_of(tmp_path / "d", tmp_path, rows=9)
    sources = [one.attributes["src"] or "" for one in root.all("img")]
    assert len(sources) == len(cards(root)) >= 9
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert max(map(len, sources)) < 40_000
    os.rename(folder, tmp_path / "elsewhere")
    root = page_of(tmp_path / "d", tmp_path, rows=9)
    assert not root.all("img")
    assert "--source COPY" in root.text
    root = page_of(tmp_path / "d", tmp_path, rows=9, source=str(tmp_path / "elsewhere"))
    assert len(root.all("img")) == len(cards(root))


@pytest.mark.parametrize("codec", ["dense", "int8"])
def test_a_thousand_classes_are_read_in_families(codec, tmp_path):
    """Of 1,000 classes in 250 families of 4, dealt out at random."""
    random, classes = np.random.default_rng(0), 1000
    family = np.empty(classes, int)
    family[random.permutation(classes)] = np.arange(classes) // 4
    centres = random.normal(size=(250, 48))[family] + random.normal(size=(classes, 48)) * 0.5
    labels = np.tile(np.arange(classes), 3)
    x = (centres[labels] + random.normal(size=(3000, 48))).astype(np.float32)
    names = [f"class {c}" for c in range(classes)]
    features = {"x": datasets.List(datasets.Value("float32"), length=48),
                "label": datasets.ClassLabel(names=names)}  # fmt: skip
    data = datasets.Dataset.from_dict({"x": x, "label": labels}, datasets.Features(features))
    data.to_parquet(str(tmp_path / "v.parquet"))
    teacher = torch.nn.Linear(48, classes)
    with torch.no_grad():
        teacher.weight.copy_(torch.from_numpy(centres))
        teacher.bias.copy_(-torch.from_numpy(centres**2).sum(1) / 2)
    out = str(tmp_path / "d")
    softlabels.dump(teacher=teacher, data=str(tmp_path / "v.parquet"), out=out, codec=codec)
    root = page_of(out, tmp_path, rows=100)
    heats = root.all("table", class_="heat")
    assert 1 <= len(heats) <= 6
    for heat in heats:
        names = [one.text for one in heat.all("tbody")[0].all("th")]
        assert 2 <= len(names) <= 10
        kin = {family[int(name.removeprefix("class "))] for name in names}
        assert len(kin) == 1, names
    assert ("The codec's error" in root.text) == (codec == "int8")
    assert len(cards(root)) > 150


def test_texts_are_shown_in_lines(tmp_path):
    lines = ["text,label", *[f'"a <b>{"long " * k}</b> text",{"ab"[k % 2]}' for k in range(30)]]
    (tmp_path / "t.csv").write_text("\n".join(lines))

    def letters(text: str) -> np.ndarray:
        return np.array([len(text), text.count("l")], np.float32)

    words = {"data": str(tmp_path / "t.csv"), "preprocess": letters}
    softlabels.dump(teacher=torch.nn.Linear(2, 2), out=str(tmp_path / "d"), **words)
    root = page_of(tmp_path / "d", tmp_path, rows=2)
    shown = [one.text for one in root.all("p", class_="line")]
    assert "a <b></b> text" in shown
    assert max(map(len, shown)) < 200


def test_a_dump_of_no_rows_is_refused(tmp_path):
    make_dump(tmp_path / "d", np.empty((0, 3), np.float16), shard_rows=1)
    with pytest.raises(UsageError, match="has no rows"):
        softlabels.report(dump=str(tmp_path / "d"), out=str(tmp_path / "page.html"))
