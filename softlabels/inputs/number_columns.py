"""Several columns of numbers that a model takes by name."""

from collections.abc import Sequence
from typing import Any

import datasets

from softlabels.errors import SourceError
from softlabels.inputs.token_columns import TAKEN


def check_numbers(features: dict[str, Any], named: Sequence[str], apart: bool) -> None:
    """Raises SourceError where one of these columns holds no numbers, or, if they stay apart, has a
    name that rows of a dump need themselves."""
    for name in named:
        if not _holds_numbers(features[name]):
            kind = getattr(features[name], "dtype", None) or type(features[name]).__name__
            raise SourceError(
                f"--input-column: {name!r} holds {kind}; of several columns each holds numbers, or "
                f"lists of numbers, of one shape"
            )
        if apart and name in TAKEN:
            raise SourceError(
                f"--input-column: rows of a dump have a column {name!r} of their own; rename it"
            )


def _holds_numbers(feature: Any) -> bool:
    if isinstance(feature, datasets.Array2D | datasets.Array3D | datasets.Array4D):
        return True
    while isinstance(feature, datasets.List):
        feature = feature.feature
    plain = isinstance(feature, datasets.Value)
    return plain and feature.dtype.startswith(("int", "uint", "float", "bool", "decimal"))
