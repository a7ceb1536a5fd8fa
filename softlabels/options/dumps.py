"""The options of the commands that look at dumps and at what is on this disk, and of the demo."""

from dataclasses import dataclass

from softlabels.options.option import Count, Options, option


@dataclass(frozen=True, kw_only=True)
class InfoOptions(Options):
    """Describe a dump."""

    dump: str = option("A dump: folder, address or ORG/NAME.", positional=True)


@dataclass(frozen=True, kw_only=True)
class LsOptions(Options):
    """List the dumps below a folder."""

    folder: str = option("Folder to search, with its subfolders.", "data", positional=True)


@dataclass(frozen=True, kw_only=True)
class CacheOptions(Options):
    """List the copies of remote dumps on this disk, or clear them."""

    clear: bool = option("Remove all copies; commands fetch them again when needed.", False)


@dataclass(frozen=True, kw_only=True)
class DemoOptions(Options):
    """All three stages on the embedded digits, in under a minute on two cores."""

    out: str = option("Output folder.", "data/demo")
    seeds: Count = option("Students for each row of the table.", 5)
    rows: Count = option("Labelled examples for each student.", 150)
    device: str = option("auto, cpu, cuda, cuda:1 or mps.", "auto")
