"""Which columns of a `datasets` dataset are the input, the label and the id."""

from dataclasses import dataclass

import datasets

from softlabels.errors import SourceError

LABEL_NAMES = ("label", "labels", "target", "class", "y")


@dataclass(frozen=True)
class Columns:
    """`inputs` holds one column, or several scalar ones that are stacked into a vector."""

    inputs: tuple[str, ...]
    label: str | None
    id: str | None


def find_columns(
    features: datasets.Features, inputs: str | None, label: str | None, id: str | None
) -> Columns:
    """Named columns, checked; the others found by feature type.

    Raises SourceError where a column is missing, or where the types leave a choice.
    """
    named = tuple(name.strip() for name in inputs.split(",")) if inputs else ()
    for name, flag in [(n, "--input-column") for n in named] + [
        (label, "--label-column"),
        (id, "--id-column"),
    ]:
        if name is not None and name not in features:
            raise SourceError(f"{flag}: no column {name!r}; the data has {describe(features)}")
    label = label or _find_label(features, named + ((id,) if id else ()))
    rest = [name for name in features if name not in (label, id)]
    return Columns(named or _find_inputs(features, rest), label, id)


def _find_label(features: datasets.Features, taken: tuple[str, ...]) -> str | None:
    free = {name: f for name, f in features.items() if name not in taken}
    classes = [name for name, f in free.items() if isinstance(f, datasets.ClassLabel)]
    if len(classes) > 1:
        raise SourceError(
            f"several columns hold class labels: {', '.join(classes)}; choose with --label-column"
        )
    named = [name for name in LABEL_NAMES if name in free and is_scalar(free[name])]
    return (classes or named or [None])[0]


def _find_inputs(features: datasets.Features, rest: list[str]) -> tuple[str, ...]:
    images = [name for name in rest if isinstance(features[name], datasets.Image)]
    arrays = [name for name in rest if is_array(features[name])]
    scalars = [name for name in rest if is_number(features[name])]
    for found in (images, arrays):
        if len(found) == 1:
            return (found[0],)
        if found:
            raise SourceError(
                f"several columns could be the input: {', '.join(found)}; "
                f"choose with --input-column"
            )
    if scalars and len(scalars) == len(rest):
        return tuple(scalars)
    raise SourceError(
        "no column is an image or a list of numbers; the data has "
        f"{describe(features)}. Name the input with --input-column (several joined by commas)"
    )


def is_number(feature: object) -> bool:
    return isinstance(feature, datasets.Value) and feature.dtype.startswith(("int", "uint", "floa"))


def is_scalar(feature: object) -> bool:
    return isinstance(feature, datasets.ClassLabel | datasets.Value)


def is_array(feature: object) -> bool:
    if isinstance(feature, datasets.Array2D | datasets.Array3D | datasets.Array4D):
        return True
    return isinstance(feature, datasets.List) and (
        is_number(feature.feature) or is_array(feature.feature)
    )


def describe(features: datasets.Features) -> str:
    return ", ".join(f"{name} ({type(f).__name__})" for name, f in features.items())
