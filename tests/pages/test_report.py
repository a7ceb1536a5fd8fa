"""`softlabels report`: one page that says what the dump and other commands say."""

import base64
import json
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch

import softlabels
from softlabels.errors import IncompleteDump, StoreError, UsageError
from softlabels.logits import DenseLogits
from softlabels.pages.example_rows import VALUES, WRITTEN, kept_values
from softlabels.reports.page import Chart
from softlabels.reports.page.soft_rows import TEMPERATURES, SoftRow, packed
from softlabels.reports.rows import ShownRow
from softlabels.system.humanize import shortened
from tests.conftest import Linear
from tests.pages.html import Element, check_nothing_is_asked_for, embedded_in, facts_of, read

MOST_BYTES = 5_000_000
HOSTILE = "</script><img src=x onerror=alert(1)>$a$\"'&amp;"


@pytest.fixture(scope="module")
def digits(dump_folder, tmp_path_factory) -> Element:
    """Without its charts, which take long to draw; `test_names_from_outside_are_text` has them."""
    out = tmp_path_factory.mktemp("page") / "digits.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Chart, "pictures", [])
        made = softlabels.report(dump_folder, out=str(out), rows=4)
    assert made.bytes == out.stat().st_size < MOST_BYTES
    return read(out.read_text(encoding="utf-8"))


def test_the_page_says_what_info_says(digits, dump_folder):
    facts, info = facts_of(digits), softlabels.info(dump_folder).readable
    assert {name: facts[name] for name in info} == info
    tiles = {
        tile.all("dt")[0].text: tile.all("dd")[0].text for tile in digits.all("div", class_="tile")
    }
    assert tiles["rows"] == "1,200"
    accuracy = softlabels.info(dump_folder)["facts"]["teacher's accuracy"]
    assert tiles["accuracy"] == f"{100 * accuracy:.2f} %"
    check_nothing_is_asked_for(digits)


def cards(root: Element) -> list[tuple[int, str, dict[str, str]]]:
    """Of each card the number of its row, its title, and the probabilities of its classes."""
    return [
        (
            int(card.attributes["data-row"]),
            card.all("p", class_="name")[0].text,
            {
                line.all("th")[0].text.removesuffix(" label"): line.all("td")[1].text
                for line in card.all("tbody")[0].all("tr")
            },
        )
        for card in root.all("li", class_="card")
    ]


def test_rows_have_the_soft_targets_of_show_and_the_logits_of_the_dump(digits, dump_folder):
    (data,) = embedded_in(digits)
    dataset = softlabels.load(dump_folder, inputs=False)
    found = cards(digits)
    assert len(found) >= 12
    assert data["temperatures"] == list(TEMPERATURES)
    for place, title, probabilities in found:
        id = int(title.removeprefix("id "))
        (row,) = softlabels.show(dump=dump_folder, id=[id], T=[4]).rows
        assert {one.name: f"{one.probabilities[0]:.4f}" for one in row.top}.items() <= {
            name: f"{float(text):.4f}" for name, text in probabilities.items()
        }.items()
        values = np.frombuffer(base64.b64decode(data["rows"][place]["logits"]), "<f4")
        shown = [one.number for one in row.top]
        assert values[: len(shown)].tolist() == dataset[id]["logits"][shown].tolist()
        assert sorted(values.tolist()) == sorted(dataset[id]["logits"].tolist())


def test_groups_are_the_rows_they_should_be(digits, dump_folder):
    headings = [one.text for one in digits.all("h3")]
    assert headings == ["Examples", "Where the teacher errs", "The softest"]
    groups = [cards(group) for group in digits.all("ul", class_="cards")]
    logits = torch.stack([row["logits"] for row in softlabels.load(dump_folder, inputs=False)])
    labels = np.array([row["label"] for row in softlabels.load(dump_folder, inputs=False)])
    q = logits.double().softmax(-1)
    confidence, top = q.max(-1)
    wrong = np.flatnonzero(top.numpy() != labels)
    ranked = wrong[np.argsort(-confidence.numpy()[wrong], kind="stable")][:4]
    assert [title for _, title, _ in groups[1]] == [f"id {row}" for row in ranked]
    entropy = -(q * q.clamp_min(1e-300).log()).sum(-1)
    softest = entropy.argsort(descending=True)[:4].tolist()
    assert [title for _, title, _ in groups[2]] == [f"id {row}" for row in softest]
    pictures = digits.all("img")
    assert len(pictures) == len(cards(digits))
    assert all(one.attributes["src"].startswith("data:image/png;base64,") for one in pictures)


def vectors_of(path: Path, names: list[str], labelled: bool = True) -> str:
    """30 vectors of 6 numbers, each with a label of these names."""
    random = np.random.default_rng(0)
    content = {"x": random.normal(size=(30, 6)).astype(np.float32)}
    features = {"x": datasets.List(datasets.Value("float32"), length=6)}
    if labelled:
        content["label"] = random.integers(0, len(names), 30)
        features["label"] = datasets.ClassLabel(names=names)
    made = datasets.Dataset.from_dict(content, features=datasets.Features(features))
    made.to_parquet(str(path))
    return str(path)


def test_names_from_outside_are_text(tmp_path):
    data = vectors_of(tmp_path / "v.parquet", [HOSTILE, "b", "c"])
    out, page = tmp_path / "d", tmp_path / "page.html"
    softlabels.dump(teacher=Linear(), name="<b>T</b>", data=data, out=str(out))
    softlabels.report(dump=str(out), out=str(page), rows=2)
    root = read(page.read_text(encoding="utf-8"))
    check_nothing_is_asked_for(root)
    assert not root.all("img")
    assert not root.all("b")
    assert len(root.all("script")) == 2
    shown = f"{HOSTILE[:16]}…{HOSTILE[-15:]}"
    assert any(shown in one.text for one in root.all("th"))
    assert any(shown in one.text for one in root.all("text"))
    assert HOSTILE in [one.attributes.get("title") for one in root.all("th")]


def test_the_rest_of_a_row_is_a_sum_of_its_own(digits, dump_folder):
    """1 less the top classes has no digits left in float32 where they are nearly all."""
    by_id = {row["id"]: row for row in softlabels.load(dump_folder, inputs=False)}
    for card in digits.all("li", class_="card"):
        id = int(card.all("p", class_="name")[0].text.removeprefix("id "))
        q = (by_id[id]["logits"].double() / 4).softmax(-1).numpy()
        (line,) = card.all("tr", class_="others")
        names = [one.all("th")[0].text.removesuffix(" label") for one in card.all("tr")]
        others = sum(p for c, p in enumerate(q) if str(c) not in names)
        share = float((line.attributes["style"] or "").removeprefix("--share: "))
        assert share == pytest.approx(others, rel=1e-5)


def test_what_a_page_writes_of_many_classes_is_bounded():
    random = np.random.default_rng(2)
    logits = DenseLogits(torch.from_numpy(random.normal(size=(60, 9000)).astype(np.float32)))
    shown = [ShownRow(id, None, None, None, None, None, [], None) for id in range(60)]
    assert logits.classes > VALUES / WRITTEN / len(shown)
    written = [SoftRow("", [], [], 0, *value).embedded for value in kept_values(logits, shown)]
    assert 0.7 * VALUES < len(json.dumps(written)) < VALUES + 60 * 60


def test_long_names_stay_different():
    names = ["a", "the same start of both, and the end, one", "the same start of both, and two"]
    twins = [f"{end}{middle}{end}" for end in ["x" * 20] for middle in "ab"]
    made = shortened([*names, *twins], 20)
    assert len(set(made)) == 5
    assert made[0] == "a"
    assert made[1] == "the same s… end, one"
    assert made[4].endswith("(4)")


@pytest.mark.parametrize("most", [400, 2000])
def test_packed_logits_have_the_soft_targets_of_all(most):
    random = np.random.default_rng(1)
    logits = (random.normal(size=1000) * 4).astype(np.float32)
    shown = [*np.argsort(-logits)[:5].tolist(), 17]
    values, counts = packed(logits, shown, most)
    assert len(values) <= most + 6
    counts = np.ones(len(values)) if counts is None else counts
    assert counts.sum() == 1000
    for T in TEMPERATURES:
        whole = np.exp(logits.astype(np.float64) / T)
        parts = np.exp(values.astype(np.float64) / T)
        found = parts[:6] / (parts * counts).sum()
        np.testing.assert_allclose(found, whole[shown] / whole.sum(), atol=1e-3)


def test_what_can_be_no_page_is_refused(dump_folder, tmp_path):
    with pytest.raises(UsageError, match=r"--rows is 101"):
        softlabels.report(dump=dump_folder, rows=101)
    mine = tmp_path / "mine.html"
    mine.write_text("<p>my own")
    with pytest.raises(UsageError, match="no page of softlabels"):
        softlabels.report(dump=dump_folder, out=str(mine))
    assert mine.read_text() == "<p>my own"
    with pytest.raises(UsageError, match="make it first"):
        softlabels.report(dump=dump_folder, out=str(tmp_path / "none" / "a.html"))
    assert not (tmp_path / "none").exists()
    with pytest.raises(UsageError, match="a folder"):
        softlabels.report(dump=dump_folder, out=str(tmp_path))
    with pytest.raises(StoreError, match="name one"):
        softlabels.report(dump=str(Path(dump_folder).parent), out=str(tmp_path / "a.html"))
    unfinished = tmp_path / "d"
    unfinished.mkdir()
    (unfinished / "plan.json").write_bytes(Path(dump_folder, "plan.json").read_bytes())
    with pytest.raises(IncompleteDump):
        softlabels.report(dump=str(unfinished), out=str(tmp_path / "a.html"))
