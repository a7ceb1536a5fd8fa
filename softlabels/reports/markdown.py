"""GitHub-flavoured Markdown around texts of others, such as class names: they may contain the
characters that tables, links and HTML are made of, and must be shown as they are."""

import re
from collections.abc import Iterable

# text that Markdown shows as it is wherever it stands, and that is not an address
BEYOND = r"[^\x00-\x7f]"  # all of Markdown's signs are ASCII
PLAIN = re.compile(
    rf"(?!.*www\.)-?(?!_)(?:\w|{BEYOND})"
    rf"(?:(?:[\w .,;()/+%=:'\"!?-]|{BEYOND})*(?:[\w.,;()/+%'\"!?-]|{BEYOND}))?"
)
AT_AN_EDGE = re.compile(r"(?<!\w)_|_(?!\w)")  # of a word, where an underscore may be emphasis


def shown(text: object) -> str:
    """A text on one line: as it is where that is safe, else as a code span."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    if PLAIN.fullmatch(line) and "://" not in line and not AT_AN_EDGE.search(line):
        return line
    if "`" in line or "\\" in line:  # these are special in cells and in code spans
        return "".join(c if c.isalnum() or c == " " else f"&#{ord(c)};" for c in line)
    return f"`{line}`" if line else ""


def table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """A table. Cells are Markdown: texts of others must have gone through `shown`."""
    lines = [[str(cell).replace("|", "\\|") for cell in row] for row in (head, *rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def folded(summary: str, body: str) -> str:
    """A section that is closed until the reader opens it."""
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"
