"""The source of somebody's code as text, to tell one state of it from another."""

import inspect
import re
from collections.abc import Callable
from types import CodeType
from typing import Any

PLAIN = (bool, int, float, str, bytes, tuple, list, dict, set, type(None))


def source_of(thing: type | Callable) -> str:
    """The source of a class or a function; where that is not known (typed into a prompt), the
    bytecode of its functions, which another version of Python may compile otherwise."""
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):
        functions = {n: f for n, f in vars(thing).items() if inspect.isfunction(f)}
        if inspect.isfunction(thing):
            functions = {thing.__name__: thing}
        return "\n".join(f"{name} {_bytecode(f.__code__)}" for name, f in functions.items())


def without_addresses(text: str) -> str:
    """A `repr` without addresses in memory, which are others in the next process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


def describe_callable(thing: Any) -> tuple[str, str]:
    """The name of a callable, and text that is another one where its code, its defaults, plain
    values that it encloses, or an object's `repr` are others."""
    function = getattr(thing, "__func__", thing)  # of a bound method
    if not inspect.isfunction(function):
        kind = type(thing)
        name = f"{kind.__module__}.{kind.__qualname__}"
        return name, f"{source_of(kind)}\n{without_addresses(repr(thing))}"
    enclosed = inspect.getclosurevars(function).nonlocals.values()
    values = [value for value in (*enclosed, function.__defaults__) if isinstance(value, PLAIN)]
    text = f"{source_of(function)}\n{without_addresses(repr(values))}"
    return f"{function.__module__}.{function.__qualname__}", text


def _bytecode(code: CodeType) -> str:
    constants = [_bytecode(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {constants}"
