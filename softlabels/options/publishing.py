"""The options of push and pull."""

from dataclasses import dataclass

from softlabels.errors import UsageError
from softlabels.options.option import Options, option


@dataclass(frozen=True, kw_only=True)
class PushOptions(Options):
    """Verify a dump, and publish it on the Hugging Face Hub."""

    dump: str = option("The dump's folder.", positional=True)
    repo: str = option("The dataset on the Hub, as ORG/NAME; made if it is not there. "
                       "ORG/NAME/FOLDER puts the dump into a folder, beside others.",
                       positional=True)  # fmt: skip
    private: bool = option("Make it private, if it is made now.", False)
    revision: str | None = option("The branch to push to; made if it is not there.", None)
    license: str | None = option("The licence of the labels, such as cc-by-4.0.", None)
    teacher_license: str | None = option(
        "The licence of the teacher, such as apache-2.0, for the card to name beside it.", None
    )
    include_inputs: bool = option("Publish the inputs too, where the dump holds them.", False)
    labels_only: bool = option("Publish the dump without the inputs that it holds.", False)
    replace: bool = option("Replace another dump that is there.", False)
    dry_run: bool = option("Say what would be sent; send nothing.", False)

    def check_together(self) -> None:
        if self.include_inputs and self.labels_only:
            raise UsageError("--include-inputs and --labels-only exclude each other; give one")


@dataclass(frozen=True, kw_only=True)
class PullOptions(Options):
    """Fetch a dump from the Hugging Face Hub and check every file of it."""

    repo: str = option("The dump on the Hub, as ORG/NAME or ORG/NAME@REVISION; ORG/NAME/FOLDER for "
                       "one of several.", positional=True)  # fmt: skip
    out: str | None = option(
        "A folder for it. Default: the Hub client's cache, from where it is used by its name.", None
    )
    revision: str | None = option("A branch, tag or commit.", None)
    shards: str | None = option(
        "Only these shards, such as 0-9 or 0-3,7; others can follow later.", None
    )
    labels_only: bool = option(
        "Leave out the inputs that the dump holds, which are not even fetched; needs --out.", False
    )

    def check_together(self) -> None:
        if self.labels_only and (self.out is None or self.shards is not None):
            raise UsageError("--labels-only needs --out, and all shards: leave out --shards")
        if self.revision is not None and "@" in self.repo:
            raise UsageError(f"{self.repo} names a revision already; leave out --revision")
