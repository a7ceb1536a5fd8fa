"""The options of the commands that look at dumps and at what is on this disk, and of the demo."""

from dataclasses import dataclass

from softlabels.options.option import Count, Options, option


@dataclass(frozen=True, kw_only=True)
class InfoOptions(Options):
    """Describe a dump."""

    dump: str = option("The dump's folder.", positional=True)


@dataclass(frozen=True, kw_only=True)
class LsOptions(Options):
    """List the dumps below a folder."""

    folder: str = option("Where to look, with what is in it.", "data", positional=True)


@dataclass(frozen=True, kw_only=True)
class CacheOptions(Options):
    """List the copies of remote dumps on this disk, or clear them."""

    clear: bool = option("Remove them all. They are fetched again where they are needed.", False)


@dataclass(frozen=True, kw_only=True)
class DemoOptions(Options):
    """All three stages on the embedded digits, in under a minute on two cores."""

    out: str = option("Folder for what it makes.", "data/demo")
    seeds: Count = option("Students trained for each row of the table.", 5)
    rows: Count = option("Labelled examples that a student sees.", 150)
    device: str = option("auto, cpu, cuda, cuda:1 or mps.", "auto")
