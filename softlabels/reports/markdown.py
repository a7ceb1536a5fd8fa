"""Text of anybody as it is, in a page of GitHub-flavoured Markdown: a name may hold what a table,
a link or HTML would be made of."""

import re
from collections.abc import Iterable

# what means nothing in Markdown wherever it stands, and is no address that would become a link
PLAIN = re.compile(r"(?!.*www\.)-?[^\W_](?:[\w .,;()/+%=:-]*[\w.,;()/+%-])?")


def shown(text: object) -> str:
    """Plain where it is harmless, else a code span; of several lines, one."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    harmless = PLAIN.fullmatch(line) and "://" not in line and "_ " not in line + " "
    if harmless and " _" not in line:
        return line
    if "`" in line or "\\" in line:  # which have their own meaning in a cell and in a code span
        return "".join(c if c.isalnum() or c == " " else f"&#{ord(c)};" for c in line)
    return f"`{line}`" if line else ""


def table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """Cells as they are; `shown` text goes in whole."""
    lines = [[str(cell).replace("|", "\\|") for cell in row] for row in (head, *rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def folded(summary: str, body: str) -> str:
    """Seen where somebody opens it."""
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"
