"""The commands that publish and fetch."""

from collections.abc import Callable
from dataclasses import asdict

from softlabels.cli.flags import Terminal
from softlabels.options import PullOptions, PushOptions
from softlabels.system.humanize import counted, size_words


def add_commands(command: Callable[[type], Callable]) -> None:
    """Register them with `command`, the decorator that `make_command` gives."""
    command(PushOptions)(push)
    command(PullOptions)(pull)


def push(terminal: Terminal, options: PushOptions) -> None:
    """Verify a dump and publish it on the Hugging Face Hub.

    Log in with `hf auth login`, or set HF_TOKEN.

    Examples:

    - `softlabels push data/digits-t ORG/digits-soft --license cc-by-4.0`
    - `softlabels push data/digits-t ORG/digits-soft --dry-run`
    - `softlabels push data/digits-test-t ORG/digits-soft/test`
    """
    import softlabels

    done = terminal.run(softlabels.push, options)
    if done.commit:
        text = f"{done.url}: {counted(len(done.files), 'file')}, {size_words(done.bytes)} sent"
        text += f"; {len(done.removed)} removed" if done.removed else ""
        text += f"; {terminal.took}"
    elif done.files or done.removed:
        names = [f"send    {name}" for name in done.files] + [f"remove  {n}" for n in done.removed]
        text = "\n".join([*names, f"{size_words(done.bytes)} would go to {done.url}"])
    else:
        text = f"{done.url}: nothing has changed, so nothing was sent"
    terminal.result(text, asdict(done))


def pull(terminal: Terminal, options: PullOptions) -> None:
    """Fetch a dump from the Hugging Face Hub, or any address, and check every file of it.

    Not needed before `softlabels train ORG/NAME`: commands fetch what they need.

    Examples:

    - `softlabels pull ORG/digits-soft`
    - `softlabels pull ORG/digits-soft --revision v1 --out data/digits-soft`
    - `softlabels pull ORG/digits-soft --shards 0-9`
    - `softlabels pull s3://BUCKET/digits-t --out data/digits-t`
    """
    import softlabels

    done = terminal.run(softlabels.pull, options)
    count, shards = len(done.manifest.shards), len(done.shards)
    how = "whole" if shards == count else f"{shards:,} of {counted(count, 'shard')}"
    text = f"{done.path}: {done.rows:,} rows, {size_words(done.bytes)}, {how}; {terminal.took}"
    terminal.result(text, {"path": done.path, "commit": done.commit, "rows": done.rows,
                           "bytes": done.bytes, "shards": done.shards})  # fmt: skip
