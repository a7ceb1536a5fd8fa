"""The options of push and pull."""

from dataclasses import dataclass

from softlabels.errors import UsageError
from softlabels.options.option import Options, option


@dataclass(frozen=True, kw_only=True)
class PushOptions(Options):
    """Verify a dump, and publish it on the Hugging Face Hub."""

    dump: str = option("The dump's folder.", positional=True)
    repo: str = option(
        "ORG/NAME on the Hub, or ORG/NAME/FOLDER beside other dumps; created if missing.",
        positional=True,
    )
    private: bool = option("Make the repository private, if it is created now.", False)
    revision: str | None = option("The branch to push to; created if missing.", None)
    license: str | None = option("Licence of the labels, such as cc-by-4.0.", None)
    teacher_license: str | None = option(
        "Licence of the teacher for the card, such as apache-2.0.", None
    )
    include_inputs: bool = option("Also publish the inputs that the dump holds.", False)
    labels_only: bool = option("Publish without the inputs that the dump holds.", False)
    replace: bool = option("Replace another dump in the same place.", False)
    dry_run: bool = option("Show what would be sent; send nothing.", False)

    def check_together(self) -> None:
        if self.include_inputs and self.labels_only:
            raise UsageError("--include-inputs and --labels-only exclude each other; give one")


@dataclass(frozen=True, kw_only=True)
class PullOptions(Options):
    """Fetch a dump from the Hugging Face Hub, or any address, and check every file of it."""

    repo: str = option(
        "ORG/NAME on the Hub, or ORG/NAME/FOLDER for one of several, with @REVISION if needed; or "
        "an address such as s3://BUCKET/d.",
        positional=True,
    )
    out: str | None = option(
        "Target folder. Default: the Hub client's cache; an address of another store needs one.",
        None,
    )
    revision: str | None = option("A branch, tag or commit.", None)
    shards: str | None = option(
        "Fetch only these shards, such as 0-9 or 0-3,7; later pulls may add others.", None
    )
    labels_only: bool = option("Don't fetch the inputs that the dump holds; needs --out.", False)

    def check_together(self) -> None:
        if self.labels_only and (self.out is None or self.shards is not None):
            raise UsageError("--labels-only needs --out, and all shards: leave out --shards")
        if self.revision is not None and "@" in self.repo:
            raise UsageError(f"{self.repo} names a revision already; leave out --revision")
