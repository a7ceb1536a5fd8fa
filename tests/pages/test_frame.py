"""The frame of a page: what comes from outside is text, and nothing leaves the page."""

import base64
import hashlib
import re

import pytest

from softlabels.errors import MissingExtra
from softlabels.reports.page import (
    Chart,
    Command,
    Facts,
    Heat,
    Page,
    Remark,
    Section,
    Table,
    Text,
    Tile,
    charts,
    render,
    write_page,
)
from tests.pages.html import check_nothing_is_asked_for, facts_of, read

HOSTILE = "</title></style></script><script>1</script><img src=x onerror=alert(1)>'\"&amp;$x$"


def draw(figure) -> None:
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], label="a line")
    axes.fill_between([0, 1], [0, 1], [1, 2], color=charts.SERIES[1], alpha=0.2)
    axes.text(0, 0, HOSTILE).set_in_layout(False)
    axes.legend()


def page(text: str) -> Page:
    table = Table(text, [text, "number"], [[text, 1234], [text, None], ["a", 0.25]], (1,))
    blocks = [
        Text(text),
        Remark(text),
        Remark(text, "warning"),
        Command(text),
        Facts({text: text}),
        table,
        Heat(text, text, [text, "b"], [text, "b"], [[9, 1], [2, 9]], [[text, "1"], ["2", text]],
             diagonal=False),
        Chart("A chart", text, draw, Table(text, [text], [[text]], folded=True), text),
    ]  # fmt: skip
    sections = [Section("First part", blocks), Section("Second part", [Chart("Two", text, draw)])]
    return Page(text, text, text, sections, [Tile(text, text, text)], [Remark(text)], text)


@pytest.fixture(scope="module")
def hostile() -> str:
    return render(page(HOSTILE))


def test_texts_from_outside_are_shown_as_they_are(hostile):
    root = read(hostile)
    assert not root.all("script")
    assert not root.all("img")
    assert [one.text for one in root.all("h1")] == [HOSTILE]
    assert facts_of(root) == {HOSTILE: HOSTILE}
    assert root.all("text")
    assert HOSTILE in [one.text.strip() for one in root.all("text")]
    plain = read(render(page("plain")))
    assert [e.tag for e in root.all()] == [e.tag for e in plain.all()]


def test_no_request_and_no_script_but_ours(hostile):
    root = read(hostile)
    check_nothing_is_asked_for(root)
    (policy,) = [
        one.attributes["content"]
        for one in root.all("meta")
        if one.attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none'; ")
    assert "script-src 'none'" in policy
    assert "http" not in re.sub(r"http://www\.w3\.org/\S+", "", hostile.replace("http-equiv", ""))


def test_a_policy_names_the_scripts_of_the_page(monkeypatch, tmp_path):
    from softlabels.reports.page import rendering

    monkeypatch.setattr(rendering, "_file", lambda name: f"/* {name} */")
    monkeypatch.setattr(Text, "scripts", ("one.js",))
    root = read(render(Page("a", "b", "c", [Section("d", [Text("e"), Text("f")])])))
    (script,) = root.all("script")
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    assert any(f"'sha256-{digest}'" in str(one.attributes.get("content")) for one in root.all())


def test_the_same_numbers_give_the_same_bytes(hostile):
    assert render(page(HOSTILE)) == hostile


def test_colours_of_charts_are_those_of_the_page(hostile):
    root = read(hostile)
    styles = " ".join(str(e.attributes.get("style")) for e in root.all("path"))
    assert "#" not in re.sub(r"url\(#[\w-]+\)", "", styles)
    (sheet,) = [one.text for one in root.all("style")]
    for name in re.findall(r"var\((--[\w-]+)\)", hostile):
        assert f"{name}:" in hostile if name == "--share" else f"{name}: #" in sheet


def test_a_reader_without_sight_has_the_numbers(hostile):
    root = read(hostile)
    pictures = root.all("svg")
    assert len(pictures) == 4  # two charts, each for wide and narrow screens
    for picture in pictures:
        assert picture.attributes["role"] == "img"
        assert [one.text for one in picture.all("desc")] == [HOSTILE]
    for place in root.all("div", class_="scroll"):
        assert place.attributes["tabindex"] == "0"
        assert place.attributes["aria-label"]
    (html,) = root.all("html")
    assert html.attributes["lang"] == "en"
    assert {"header", "nav", "main", "footer"} <= {e.tag for e in root.all()}
    cells = [one.text for one in root.all("td", class_="number")]
    assert cells == ["1,234", "–", "0.25"]


def test_without_matplotlib_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"softlabels\[plot\]"):
        write_page(page("plain"), tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_the_package_holds_the_templates():
    """A wheel has what lies in the package, unless git ignores it."""
    import subprocess
    from pathlib import Path

    import softlabels.reports.page as room

    place = Path(room.__file__).parent / "templates"
    done = subprocess.run(
        ["git", "check-ignore", *map(str, place.rglob("*.*"))], capture_output=True, cwd=place
    )
    if done.returncode == 128:
        pytest.skip("not in a git repository")
    assert done.returncode == 1, done.stdout.decode()
    assert (place / "page.css").stat().st_size
