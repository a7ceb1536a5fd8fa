"""Why code that is not ours failed, in one line."""

import re


def cause(error: BaseException) -> str:
    """The first line of what a model's own code raised, with the kind of error where its
    message alone may say little."""
    line = (str(error).strip() or "no message").splitlines()[0]
    return line if isinstance(error, RuntimeError) else f"{type(error).__name__}, {line}"


def first_line(error: BaseException) -> str:
    """The line that says why: TorchScript's own message comes last, below its stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    traced = "TorchScript interpreter" in lines[0]
    return re.sub(r"^(\w+\.)*\w*(Error|Exception): ", "", lines[-1]) if traced else lines[0]
