"""The report in a browser: nothing asked for, nothing wrong in the console, and on every screen its
soft targets are Python's."""

from pathlib import Path

import pytest

import softlabels
from tests.pages.browser import Tab, chromium
from tests.pages.test_report import vectors_of

pytestmark = pytest.mark.slow

SCREENS = [(400, False), (400, True), (1400, False), (1400, True)]
# Of the texts that a person reads the one with the least contrast (WCAG 2.2, 1.4.3), and where.
# Colours are painted on a canvas, since the style may say them in any colour space.
LEAST_CONTRAST = """(() => {
  const canvas = Object.assign(document.createElement("canvas"), {width: 1, height: 1});
  const brush = canvas.getContext("2d", {willReadFrequently: true});
  const levels = (colour) => {
    brush.clearRect(0, 0, 1, 1);
    brush.fillStyle = colour;
    brush.fillRect(0, 0, 1, 1);
    return [...brush.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) =>
      v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = levels(getComputedStyle(e).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255];
  };
  let least = [Infinity, ""];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility() || element.closest("script, title, desc"))
      continue;
    const style = getComputedStyle(element);
    const colour = levels(element instanceof SVGElement ? style.fill : style.color);
    const [dark, bright] = [light(colour), light(behind(element))].sort((a, b) => a - b);
    const contrast = (bright + 0.05) / (dark + 0.05);
    if (contrast < least[0]) least = [contrast, node.data.trim().slice(0, 40)];
  }
  return least;
})()"""
# Of each card that is seen the name of each class and its probability.
CARDS = """[...document.querySelectorAll(".card")].map((card) => [
  card.querySelector(".name").textContent,
  Object.fromEntries([...card.querySelectorAll("tbody tr")].map((line) => [
    line.querySelector("th").firstChild.data.trim(),
    Number(line.querySelector(".number").textContent)
  ]))])"""


@pytest.fixture(scope="module")
def page(dump_folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("page") / "digits.html"
    softlabels.report(dump=dump_folder, out=str(out), rows=3)
    return out


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


def check_page(tab: Tab, page: Path) -> None:
    """On every screen: no request but for the page and what it holds, no complaint, no sideways
    scrolling, enough contrast; in the dark other colours than in the light."""
    colours = {}
    for width, dark in SCREENS:
        tab.requests.clear()
        tab.open(page, width, dark)
        where = f"{width} pixels, {'dark' if dark else 'light'}"
        asked = [url for url in tab.requests if not url.startswith("data:")]
        assert asked == [page.resolve().as_uri()], where
        assert tab.complaints == [], where
        wide = tab.evaluate("document.documentElement.scrollWidth")
        assert wide == width, where
        tab.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
        contrast, text = tab.evaluate(LEAST_CONTRAST)
        assert contrast >= 4.5, f"{where}: {contrast:.2f} of {text!r}"
        assert tab.evaluate("document.documentElement.scrollWidth") == width, where
        colours[dark] = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colours[True] != colours[False]


def test_the_report_on_every_screen(tab, page):
    check_page(tab, page)


def test_the_slider_makes_the_soft_targets_of_python(tab, page, dump_folder):
    """By the keyboard, from T = 4 to its ends."""
    tab.open(page, 1400)
    tab.evaluate("document.getElementById('temperature').focus()")
    seen = set()
    for key, code in (("ArrowRight", 39), ("ArrowRight", 39), ("End", 35), ("Home", 36)):
        tab.press(key, code)
        text = tab.evaluate("document.getElementById('temperature-shown').textContent")
        T = float(text.removeprefix("T = "))
        assert tab.evaluate("document.activeElement.getAttribute('aria-valuetext')") == text
        cards = tab.evaluate(CARDS)
        assert len(cards) >= 6
        ids = list(dict.fromkeys(int(name.removeprefix("id ")) for name, _ in cards))
        shown = softlabels.show(dump=dump_folder, id=ids, T=[T], top=10).rows
        expected = {f"id {row.id}": {one.name: one.probabilities[0] for one in row.top}
                    for row in shown}  # fmt: skip
        for name, probabilities in cards:
            others = [q for text, q in probabilities.items() if text.endswith(("other", "others"))]
            own = {text: q for text, q in probabilities.items() if text in expected[name]}
            assert own == pytest.approx({text: expected[name][text] for text in own}, abs=1e-3)
            assert sum(own.values()) + sum(others) == pytest.approx(1, abs=1e-3)
        seen.add(T)
    assert seen == {5, 6, 100, 0.5}
    assert tab.complaints == []


def test_a_keyboard_reaches_all_that_moves(tab, page):
    tab.open(page, 1400)
    reached = []
    for _ in range(200):
        tab.press("Tab", 9)
        name = tab.evaluate("document.activeElement.tagName + '.' + document.activeElement.id")
        if name.startswith("BODY"):
            break
        reached.append(name)
    assert reached[0].startswith("A.")  # to the content
    assert "INPUT.temperature" in reached
    assert {"A", "DIV", "SUMMARY", "PRE"} <= {name.split(".")[0] for name in reached}


def test_a_hostile_dump_runs_nothing(tab, tmp_path):
    hostile = "</script><script>document.title = 1</script><img src=x onerror='document.title = 1'>"
    data = vectors_of(tmp_path / "v.parquet", [hostile, "<svg onload=alert(1)>", "\u202eabc"])
    from tests.conftest import Linear

    out, page = tmp_path / "d", tmp_path / "page.html"
    softlabels.dump(teacher=Linear(), name=hostile, data=data, out=str(out))
    softlabels.report(dump=str(out), out=str(page), rows=2)
    check_page(tab, page)
    assert "softlabels" not in tab.evaluate("document.title")
    assert tab.evaluate("document.title") == f"{out}: Dump of soft targets"
