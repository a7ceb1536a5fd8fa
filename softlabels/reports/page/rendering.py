"""From a page to HTML: one file, whose texts are escaped and which asks for nothing."""

import base64
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from softlabels.reports.page.blocks import Page
from softlabels.system.humanize import probability
from softlabels.system.local_files import appearing, needing_space

TEMPLATES = Path(__file__).parent / "templates"


def render(page: Page) -> str:
    """The page as HTML. Raises MissingExtra for a page with charts without matplotlib."""
    scripts = {name: _file(name) for name in page.scripts}
    return _environment().get_template("page.html").render(
        page=page,
        style=Markup(_file("page.css")),
        scripts=[Markup(text) for text in scripts.values()],
        policy=_policy(list(scripts.values())),
    )  # fmt: skip


def write_page(page: Page, path: str | Path) -> int:
    """Write the page to a file of this disk, whole or not at all; how many bytes it has. Raises
    DiskFull, and what `render` does."""
    content = render(page).encode()
    with needing_space(str(path)), appearing(path) as file:
        file.write(content)
    return len(content)


def embedded(value: Any) -> Markup:
    """A value as JSON for a `script` element of the type application/json, which `<` could end."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _policy(scripts: list[str]) -> str:
    """What a browser lets the page do: show pictures that it holds, and run the scripts named here
    by their hashes; no other script, and no request to anywhere."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    run = " ".join(f"'sha256-{one}'" for one in hashes) or "'none'"
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {run}; "
        f"base-uri 'none'; form-action 'none'"
    )


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"embedded": embedded, "probability": probability}
    return environment


def _file(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
