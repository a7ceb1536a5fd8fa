"""A page as a strict reader sees it: every element closed, every id once."""

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "link", "input", "img", "br", "hr", "col"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    children: list["Element | str"] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(c if isinstance(c, str) else c.text for c in self.children)

    def all(self, tag: str = "", **attributes: str) -> list["Element"]:
        """The elements below of this tag with these attributes; `class_` is one of its classes."""
        found = []
        for child in self.children:
            if isinstance(child, Element):
                classes = (child.attributes.get("class") or "").split()
                fits = all(
                    value in classes if name == "class_" else child.attributes.get(name) == value
                    for name, value in attributes.items()
                )
                found += [child] if fits and tag in ("", child.tag) else []
                found += child.all(tag, **attributes)
        return found


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in {tag}: {attrs}"
        element = Element(tag, dict(attrs))
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read(text: str) -> Element:
    """The document. Raises AssertionError where an element is not closed, an id stands twice, or
    a reference leads nowhere."""
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert len(reader.open) == 1, f"not closed: {[e.tag for e in reader.open[1:]]}"
    root = reader.open[0]
    ids = [e.attributes["id"] for e in root.all() if "id" in e.attributes]
    assert len(set(ids)) == len(ids), f"twice: {sorted({i for i in ids if ids.count(i) > 1})}"
    for element in root.all():
        for name in ("aria-labelledby", "aria-describedby", "for"):
            for id in (element.attributes.get(name) or "").split():
                assert id in ids, f"{name} of {element.tag} is {id}, which is nowhere"
        link = element.attributes.get("href") or ""
        assert not link.startswith("#") or link[1:] in ids, f"{link} leads nowhere"
    return root


def facts_of(root: Element) -> dict[str, str]:
    """What the lists of facts of a page say."""
    pairs = [
        (row.all("dt")[0].text, row.all("dd")[0].text)
        for facts in root.all("dl", class_="facts")
        for row in facts.all("div")
    ]
    return dict(pairs)


def embedded_in(root: Element) -> list[Any]:
    """The values that a page holds for its scripts."""
    return [json.loads(one.text) for one in root.all("script", type="application/json")]


def check_nothing_is_asked_for(root: Element) -> None:
    """No element names a file or an address, and no attribute holds code."""
    for element in root.all():
        for name, value in element.attributes.items():
            assert not name.startswith("on"), f"code in {element.tag} {name}"
            if name in ("src", "href", "xlink:href", "action", "srcset", "poster", "data"):
                assert (value or "").startswith(("#", "data:")), f"{element.tag} asks for {value}"
        assert element.tag not in ("iframe", "object", "embed", "base", "form")
    for style in root.all("style"):
        assert "url(" not in style.text
        assert "@import" not in style.text
