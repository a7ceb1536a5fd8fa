"""The options about data that `fit`, `dump`, `eval` and `import` share."""

from dataclasses import dataclass

from softlabels.options.objects import Preprocessing
from softlabels.options.option import Options, option


@dataclass(frozen=True, kw_only=True)
class SourceOptions(Options):
    """The data, its split and its columns."""

    split: str = option("The split of the data.", "train")
    revision: str | None = option("Branch, tag or commit of a Hub dataset.", None)
    input_column: str | None = option(
        "Column of the input; several number columns are joined by commas. Default: found by type.",
        None,
    )
    label_column: str | None = option(
        "Column of hard labels. Default: the ClassLabel, or one named label, target, class or y.",
        None,
    )
    id_column: str | None = option(
        "Column of ids, whole numbers or text. Default: the row's number.", None
    )
    preprocess: Preprocessing | None = option(
        "Steps from an input to numbers, such as 'rgb|resize(256)|scale(255)'.", None
    )
