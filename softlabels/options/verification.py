"""The options of `softlabels verify`."""

from dataclasses import dataclass

from softlabels.errors import UsageError
from softlabels.options.objects import Data, Preprocessing, Teacher
from softlabels.options.option import Count, Natural, Options, option


@dataclass(frozen=True, kw_only=True)
class VerifyOptions(Options):
    """Check a dump: its files, and on demand its source and its teacher's answers."""

    dump: str = option("A dump: folder, address or ORG/NAME.", positional=True)
    source: bool = option("Also hash the source's inputs again and compare them row by row.", False)
    data: Data | None = option(
        "Where the source is, if not where the dump says: a file, folder or Hub id.", None
    )
    replay: Count | None = option("Also run this many random rows through the teacher again.", None)
    teacher: Teacher | None = option("The teacher's file or name, for --replay.", None)
    model: str | None = option(
        "The model of a bare state dict, such as mlp:1200x1200 or timm:resnet50.", None
    )
    weights: str | None = option(
        "A file with the weights of a teacher by name, such as timm:resnet50.", None
    )
    key: str | None = option(
        "Which weights of a file that holds several, such as state_dict_ema.", None
    )
    logits: str | None = option(
        "Which tensor of an ONNX graph holds the logits; one inside it may be named.", None
    )
    seed: Natural = option("Seed of the rows for --replay.", 0)
    batch_size: Count = option("Rows in a forward pass.", 256)
    device: str = option("auto, cpu, cuda, cuda:1 or mps.", "auto")
    workers: Count | None = option("Files read at once. Default: the number of cores.", None)
    trust_pickle: bool = option("Load a teacher's file even if it could run code.", False)
    preprocess: Preprocessing | None = option(
        "The function that preprocessed the dump's inputs, for replay.", None, only_python=True
    )
    version: str | None = option(
        "Version of a callable's answers, for replay.", None, only_python=True
    )

    def check_together(self) -> None:
        if self.replay is not None and self.teacher is None:
            raise UsageError("--replay needs the teacher's file; name it with --teacher t.pt")
        if self.teacher is not None and self.replay is None:
            raise UsageError("--teacher is for --replay; add --replay 100")
        if self.data is not None and not (self.source or self.replay):
            raise UsageError("--data is for --source and --replay; add one of them")
