"""The options about data that `fit`, `dump`, `eval` and `import` share."""

from dataclasses import dataclass

from softlabels.options.option import Options, option


@dataclass(frozen=True, kw_only=True)
class SourceOptions(Options):
    """The data, its split and its columns."""

    split: str = option("Which split of the data.", "train")
    revision: str | None = option("A Hub dataset's revision (branch, tag or commit).", None)
    input_column: str | None = option(
        "Column that the model sees; several number columns joined by commas. "
        "Default: the image, or the fixed-length numbers.",
        None,
    )
    label_column: str | None = option(
        "Column of the hard label. Default: the ClassLabel, or a column named label.", None
    )
    id_column: str | None = option(
        "Column that names each row, whole numbers or text. Default: the row's number.", None
    )
    preprocess: str | None = option(
        "What turns an input into numbers, such as 'rgb|resize(256)|scale(255)'.", None
    )
