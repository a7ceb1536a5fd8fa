"""The options of the commands that look at dumps and at what is on this disk, and of the demo."""

from dataclasses import KW_ONLY, dataclass

from softlabels.errors import UsageError
from softlabels.options.mixing import MixOptions
from softlabels.options.objects import Data, Names
from softlabels.options.option import Count, Natural, Options, Positive, option

MOST_ROWS = 100  # of each kind, on a page


@dataclass(frozen=True, kw_only=True)
class InfoOptions(MixOptions):
    """Describe a dump, list those in a folder, or measure several teachers over the same rows."""

    dump: Names = option(
        "A dump: folder, address or ORG/NAME; or a folder of dumps. Several are measured, each and "
        "how they differ; with --mix their mixture too.",
        positional=True,
    )
    per_class: bool = option(
        "Also measure the teacher class by class: rows, recall, precision; of several labels a row "
        "their average precision. Reads all logits.",
        False,
        flag="--per-class",
    )


@dataclass(frozen=True, kw_only=True)
class ShowOptions(Options):
    """Show some rows of a dump."""

    dump: str | None = option(
        "A dump: folder, address or ORG/NAME. Default: the newest complete one under data/.",
        None,
        positional=True,
    )
    rows: Count = option("How many rows, spread over the dump.", 5)
    T: tuple[Positive, ...] = option("Temperatures; say it again for each.", (1.0, 4.0))
    top: Count = option("How many classes of each row.", 5)
    id: tuple[str | int, ...] = option("Rows with this id; say it again for each.", ())
    class_: str | None = option(
        "Rows of this class, a name or a number: by their label, or where it is no class of the "
        "labels by the teacher's top class.",
        None,
        flag="--class",
    )
    wrong: bool = option(
        "Rows where the teacher's top class is not the label.", False, flag="--wrong"
    )


@dataclass(frozen=True)
class CompareOptions(Options):
    """Compare two dumps over the same rows."""

    a: str = option(
        "The reference, such as the float32 teacher's dump: folder, address or ORG/NAME.",
        positional=True,
    )
    b: str = option(
        "What is compared with it, such as the dump of the quantised, pruned or distilled model.",
        positional=True,
    )
    _: KW_ONLY
    T: tuple[Positive, ...] = option("Temperatures; say it again for each.", (1.0, 2.0, 4.0, 8.0))
    rows: Natural = option("How many rows of the largest KL at the first T are shown.", 5)
    out: str | None = option("Also write an HTML page: this file.", None)

    def check_together(self) -> None:
        if self.out is not None and self.rows > MOST_ROWS:
            raise UsageError(
                f"--rows is {self.rows:,}; a page that stays small shows {MOST_ROWS} at most. "
                f"--json without --out has more"
            )


@dataclass(frozen=True)
class ReportOptions(Options):
    """Write one HTML page about a dump, or about a sweep."""

    dump: str | None = option(
        "A dump: folder, address or ORG/NAME; or the folder of a sweep. Default: the newest "
        "complete dump under data/.",
        None,
        positional=True,
    )
    _: KW_ONLY
    source: Data | None = option(
        "Where the inputs are, to show them, if they are not in the dump and not where it says: a "
        "file, folder or Hub id.",
        None,
    )
    out: str | None = option(
        "The page, a file. Default: the dump's name with .html, in this folder.", None
    )
    rows: Count = option(
        f"How many rows of a dump to show of each kind: examples, errors, the softest; "
        f"{MOST_ROWS} at most.",
        12,
    )

    def check_together(self) -> None:
        if self.rows > MOST_ROWS:
            raise UsageError(
                f"--rows is {self.rows:,}; a page that stays small shows {MOST_ROWS} of each kind "
                f"at most. softlabels show prints more"
            )


@dataclass(frozen=True, kw_only=True)
class LsOptions(Options):
    """List the dumps below a folder."""

    folder: str = option("Folder to search, with its subfolders.", "data", positional=True)


@dataclass(frozen=True, kw_only=True)
class CacheOptions(Options):
    """List what is kept on this disk, or clear it."""

    clear: bool = option(
        "Remove all that is not in use; commands fetch or make it again when needed.", False
    )


@dataclass(frozen=True, kw_only=True)
class DemoOptions(Options):
    """All three stages on the embedded digits, in under a minute on two cores."""

    out: str = option("Output folder.", "data/demo")
    seeds: Count = option("Students for each row of the table.", 5)
    rows: Count = option("Labelled examples for each student.", 150)
    device: str = option("auto, cpu, cuda, cuda:1 or mps.", "auto")
