"""The commands `import` and `export`, which `app.py` registers."""

from collections.abc import Callable
from dataclasses import asdict

from softlabels.cli.flags import Body, Terminal
from softlabels.cli.listing import accuracy_words
from softlabels.options import ExportOptions, ImportOptions
from softlabels.system.humanize import counted, size_words


def add_commands(command: Callable[[type], Callable[[Body], Body]]) -> None:
    """Register them with `command`, the decorator that `make_command` gives."""
    command(ImportOptions)(import_)
    command(ExportOptions)(export)


def import_(terminal: Terminal, options: ImportOptions) -> None:
    """Make a dump from logits that another program stored, matched with their source by id.

    Reads .npy, .npz and .pt files, and those of TinyViT and FKD that hold all classes of images as
    they are.

    Examples:

    - `softlabels import logits.npy --data digits --out data/d`
    - `softlabels import logits.pt --ids ids.txt --data my.parquet --id-column name`
    - `softlabels import probs.npz --data digits --probabilities --floor 1e-7`
    """
    import softlabels

    imported = terminal.run(softlabels.import_logits, options)
    manifest = imported.manifest
    text = f"{imported.out}: {counted(manifest.rows, 'row')}, {size_words(manifest.bytes)}"
    statistics = manifest.statistics
    if statistics and statistics.accuracy is not None:
        text += f"; {accuracy_words(statistics)}"
    if manifest.skipped:
        text += f"; {counted(len(manifest.skipped), 'source row')} had none"
    text += f"; {terminal.took}"
    value = {"out": imported.out, "rows": manifest.rows, "bytes": manifest.bytes}
    value |= {name: manifest.as_json[name] for name in ("statistics", "skipped")}
    terminal.result(text, value)


def export(terminal: Terminal, options: ExportOptions) -> None:
    """Write a trained model for other programs, with the steps on numbers of its preprocessing.

    What is written gives the checkpoint's logits on random inputs, up to rounding; the largest
    difference is printed.

    Examples:

    - `softlabels export s.pt --to onnx`
    - `softlabels export s.pt --to pt2 --out nets/small.pt2`
    - `softlabels export s.pt --to hf`
    """
    import softlabels

    exported = terminal.run(softlabels.export, options)
    terminal.result("\n".join([*exported.lines, terminal.took]), asdict(exported))
