"""The options about data that `fit`, `dump`, `eval` and `import` share."""

from dataclasses import dataclass

from softlabels.errors import UsageError
from softlabels.options.objects import Names, Preprocessing, TextTokenizer
from softlabels.options.option import Count, Options, option


@dataclass(frozen=True, kw_only=True)
class SourceOptions(Options):
    """The data, its split and its columns."""

    split: str = option("The split of the data.", "train")
    revision: str | None = option("Branch, tag or commit of a Hub dataset.", None)
    input_column: Names = option(
        "Column of the input. Columns of single numbers, joined by commas, are one vector; said "
        "again for each, columns are inputs of their own, which the model takes by name. Default: "
        "found by type.",
        (),
    )
    label_column: str | None = option(
        "Column of hard labels; with --task multilabel a list, or columns of 0 and 1 joined by "
        "commas. Default: the ClassLabel, or one named label, target, class or y.",
        None,
    )
    id_column: str | None = option(
        "Column of ids, whole numbers or text. Default: the row's number.", None
    )
    preprocess: Preprocessing | None = option(
        "Steps from an input to numbers, such as 'rgb|resize(256)|scale(255)'.", None
    )


@dataclass(frozen=True, kw_only=True)
class TextOptions(Options):
    """How a model that reads texts gets its tokens."""

    tokenizer: TextTokenizer | None = option(
        "The tokenizer of a model that reads texts: a folder or ORG/NAME. Default: its own; of a "
        "student without one the teacher's.",
        None,
    )
    max_length: Count | None = option(
        "Cut texts to so many tokens. Default: refuse texts that the model can't take whole; of a "
        "checkpoint, cut as in its training.",
        None,
    )
    truncate: bool = option("Cut texts to what the model takes.", False, flag="--truncate")


@dataclass(frozen=True, kw_only=True)
class LabelOptions(Options):
    """What the data's labels are to a dump, and what the teacher's classes are called."""

    labels: bool = option(
        "Take the data's labels; --no-labels leaves them out.", True, flag="--labels/--no-labels"
    )
    own_labels: bool = option(
        "The data's labels are of other classes than the teacher's: keep them apart, as "
        "label_source, and score nothing by them.",
        False,
        flag="--own-labels",
    )
    class_names: str | None = option(
        "A file that names the teacher's classes: one name a line, or JSON. Default: the data's or "
        "the model's own names.",
        None,
    )

    def check_labels(self, label_column: str | None) -> None:
        for name, given in (
            ("--own-labels", self.own_labels),
            (f"--label-column {label_column}", label_column is not None),
        ):
            if given and not self.labels:
                raise UsageError(
                    f"{name} says which labels to keep, and --no-labels keeps none; leave one out"
                )
