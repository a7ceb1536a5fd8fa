"""The small language that names things: `name`, `name:1200x1200`, `name(2)|other(0.1, word)`.

Literals and plain words only; nothing is evaluated.
"""

import ast
import keyword
import re
from dataclasses import dataclass
from typing import Any

from softlabels.errors import UsageError

# Up to a bar that is in no quotation marks: the name of a function or a folder may hold one.
PART = re.compile(r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^|])+""", re.DOTALL)


@dataclass(frozen=True)
class Call:
    """One word of a pipeline with its literal arguments; a word among them is a str."""

    name: str
    args: tuple

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(_shown, self.args))})" if self.args else self.name


def parse_pipeline(text: str, what: str) -> list[Call]:
    """`"grey|resize(28)"` → [Call("grey", ()), Call("resize", (28,))].

    what: the name of the option. Raises UsageError that quotes the word that can't be parsed, or
    what is no text.
    """
    if not isinstance(text, str):
        raise UsageError(f"{what} is {short(repr(text))}; it must be text: name or name(1, 2)")
    return [_parse_call(part.strip(), what) for part in PART.findall(text) if part.strip()]


def _parse_call(text: str, what: str) -> Call:
    try:
        node = ast.parse(text, mode="eval").body
        if isinstance(node, ast.Name):
            return Call(node.id, ())
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            return Call(node.func.id, tuple(map(_argument, node.args)))
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        pass
    raise UsageError(f"{what}: can't read {short(text)!r}; write name or name(1, 2), joined with |")


def short(text: str) -> str:
    """At most 80 characters of text that the user or a stranger's file gave."""
    return text if len(text) <= 80 else f"{text[:80]}…"


def _argument(node: ast.expr) -> Any:
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)


def _shown(arg: Any) -> str:
    if not isinstance(arg, str):
        return repr(arg)
    # Python normalises words beyond ASCII, and so would read another one
    is_word = arg.isascii() and arg.isidentifier() and not keyword.iskeyword(arg)
    return arg if is_word else repr(arg)


def parse_widths(text: str, what: str) -> list[int]:
    """`"1200x1200"` → [1200, 1200]. Raises UsageError unless all are whole numbers above 0."""
    try:
        widths = [int(part) for part in text.split("x")]
    except ValueError:
        widths = [0]
    if min(widths) < 1:
        raise UsageError(f"{what}: can't read {text!r}; write whole widths joined by x: 800x800")
    return widths
