"""The page of a comparison."""

from dataclasses import replace

import numpy as np
import pytest

import softlabels
from softlabels.errors import UsageError
from softlabels.pages.comparison import comparison_page
from softlabels.pages.pictures import ShownInput, ShownInputs
from softlabels.reports.comparison import nats
from softlabels.reports.page import Block, Chart, render
from softlabels.system.humanize import probability
from tests.conftest import Lines
from tests.dumps import make_dump
from tests.pages.browser import chromium
from tests.pages.html import check_nothing_is_asked_for, read
from tests.pages.test_frame import HOSTILE

CLASSES, WORST = 15, 4


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two dumps, what `compare` found, and its page."""
    place, draw = tmp_path_factory.mktemp("compared"), np.random.default_rng(0)
    z = draw.normal(size=(200, CLASSES)).astype(np.float32)
    folders = make_dump(place / "a", z), make_dump(place / "b", (z + 0.3 * z[::-1]))
    said, page = Lines(), place / "page.html"
    found = softlabels.compare(*folders, rows=WORST, out=page, progress=said)
    assert str(page) in said.lines[-1]
    return folders, found, page


def test_the_page_says_what_was_found(made):
    _, found, page = made
    root = read(page.read_text(encoding="utf-8"))
    check_nothing_is_asked_for(root)
    for sentence in found.summary:
        assert sentence in root.text
    tables = {table.all("caption")[0].text: table for table in root.all("table")}
    (distances,) = [table for caption, table in tables.items() if caption.startswith("KL(A")]
    for line, at in zip(distances.all("tbody")[0].all("tr"), found.temperatures, strict=True):
        cells = [cell.text for cell in line.children if not isinstance(cell, str)]
        expected = [*at.kl.values(), at.total_variation["mean"], at.storage]
        assert cells == [f"{at.T:g}", *map(nats, expected)]
    (matrix,) = root.all("table", class_="heat")
    names = [one.text for one in matrix.all("th", scope="row")]
    counts = {(pair["from_name"], pair["to_name"]): pair["rows"] for pair in found.flips.pairs}
    assert 2 < len(names) <= 12 < CLASSES
    for line in matrix.all("tbody")[0].all("tr"):
        for name, cell in zip(names, line.all("td"), strict=True):
            first = line.all("th")[0].text
            assert cell.text == ("" if (first, name) not in counts else str(counts[first, name]))
    assert sum(map(sum, (at.histogram for at in found.temperatures))) == 4 * found.rows


def test_the_worst_rows_have_both_soft_targets(made):
    _, found, page = made
    root = read(page.read_text(encoding="utf-8"))
    assert "The inputs are not shown" in root.text
    cards = root.all("li", class_="card")
    assert len(cards) == len(found.worst) == WORST
    for card, row in zip(cards, found.worst, strict=True):
        assert card.all("p", class_="name")[0].text == f"id {row.id}"
        tables = card.all("table", class_="paired")
        assert [one.all("caption")[0].text for one in tables] == ["T = 1", "T = 8"]
        for table, place in zip(tables, (0, -1), strict=True):
            cells = [[cell.text for cell in line.all("td", class_="number")]
                     for line in table.all("tbody")[0].all("tr")]  # fmt: skip
            both = [[probability(one.reference[place]), probability(one.other[place])]
                    for one in row.classes]  # fmt: skip
            assert cells == both[: len(cells)]
            assert len(cells) >= 3
        marked = [
            line.all("th")[0].text for line in card.all("tr") if line.all("span", class_="mark")
        ]
        assert {name.split()[0] for name in marked} <= {str(row.label)}


def test_names_from_outside_are_text(made):
    _, found, _ = made

    def page(text: str) -> str:
        pairs = [one | {"from_name": text, "to_name": text} for one in found.flips.pairs]
        classes = [one | {"name": text} for one in found.flips.classes]
        worst = [
            replace(row, id=text, label_name=text,
                    classes=[replace(one, name=text) for one in row.classes])
            for row in found.worst
        ]  # fmt: skip
        changed = replace(
            found,
            reference=replace(found.reference, name=text, teacher=text, dump=text),
            other=replace(found.other, name=text, teacher=text, dump=text),
            data=text, split=text, worst=worst,
            flips=replace(found.flips, pairs=pairs, classes=classes),
        )  # fmt: skip
        inputs = ShownInputs([ShownInput(lines=(text,)) for _ in worst], text)
        whole = comparison_page(changed, inputs)
        sections = [replace(section, blocks=list(map(as_table, section.blocks)))
                    for section in whole.sections]  # fmt: skip
        return render(replace(whole, sections=sections))

    def as_table(block: Block) -> Block:
        """A chart holds numbers alone, and takes seconds to draw."""
        return block.numbers if isinstance(block, Chart) and block.numbers else block

    root = read(page(HOSTILE))
    check_nothing_is_asked_for(root)
    assert not root.all("script") + root.all("img")
    assert [e.tag for e in root.all()] == [e.tag for e in read(page("plain")).all()]


def test_where_no_page_can_be(made, tmp_path):
    folders, _, page = made
    mine = tmp_path / "mine.html"
    mine.write_text("<p>my own")
    with pytest.raises(UsageError, match="no page of softlabels"):
        softlabels.compare(*folders, out=mine)
    assert mine.read_text() == "<p>my own"
    with pytest.raises(UsageError, match="--rows is 101; a page that stays small shows 100"):
        softlabels.compare(*folders, out=page, rows=101)


@pytest.mark.slow  # a browser
def test_in_a_browser(made, tmp_path):
    *_, page = made
    with chromium(tmp_path / "profile") as tab:
        for width in (400, 1400):
            for dark in (False, True):
                tab.open(page, width, dark)
                assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert not tab.complaints
        assert set(tab.requests) == {page.resolve().as_uri()}
