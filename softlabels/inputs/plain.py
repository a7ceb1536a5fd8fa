"""Columns of other writers, brought to the few Arrow types that this package handles.

polars writes large lists and string views, pandas writes dictionaries, others write extension
types: the same values in other layouts.
"""

import json
from dataclasses import dataclass
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from datasets.features.features import generate_from_arrow_type, get_nested_type


@dataclass(frozen=True)
class OtherType:
    """The feature of a column whose Arrow type `datasets` does not know."""

    dtype: str


def plain_type(type: pa.DataType) -> pa.DataType:
    """The type without dictionary, view, run-length or foreign extension around it."""
    if isinstance(type, pa.FixedShapeTensorType):
        return _nested_type(type)
    if isinstance(type, pa.BaseExtensionType):
        return type if _is_array_of_datasets(type) else plain_type(type.storage_type)
    if pa.types.is_dictionary(type) or pa.types.is_run_end_encoded(type):
        return plain_type(type.value_type)
    if pa.types.is_string_view(type):
        return pa.large_string()
    if pa.types.is_binary_view(type):
        return pa.large_binary()
    if pa.types.is_large_list(type) or pa.types.is_list_view(type):
        return pa.list_(plain_type(type.value_type))
    if pa.types.is_list(type):
        return pa.list_(plain_type(type.value_type))
    return type


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column in its plain type. Large lists stay large, since 32-bit offsets might overflow."""
    type = column.type
    if isinstance(type, pa.FixedShapeTensorType):
        chunks = [_nested_array(chunk) for chunk in column.chunks]
        return pa.chunked_array(chunks, plain_type(type))
    if isinstance(type, pa.BaseExtensionType) and not _is_array_of_datasets(type):
        return plain(pa.chunked_array([c.storage for c in column.chunks], type.storage_type))
    if pa.types.is_run_end_encoded(type):
        chunks = [pc.run_end_decode(chunk) for chunk in column.chunks]
        return plain(pa.chunked_array(chunks, type.value_type))
    if pa.types.is_large_list(type):
        return column
    wished = plain_type(type)
    return column if wished.equals(type) else column.cast(wished)


def features_of(schema: pa.Schema) -> dict[str, Any]:
    """A `datasets` feature for each column: the one in the file's metadata where that agrees with
    the column's type (nullable or not), else the one that follows from the type."""
    described = _described(schema)
    features: dict[str, Any] = {}
    for field in schema:
        feature = described.get(field.name)
        if feature is not None and same_type(get_nested_type(feature), field.type):
            features[field.name] = feature
            continue
        try:
            features[field.name] = plain_feature(generate_from_arrow_type(plain_type(field.type)))
        except (ValueError, TypeError, NotImplementedError):
            features[field.name] = OtherType(str(field.type))
    return features


def plain_feature(feature: Any) -> Any:
    """The feature with large lists as lists: `datasets` distinguishes them, we need not."""
    if isinstance(feature, datasets.LargeList):
        return datasets.List(plain_feature(feature.feature))
    if isinstance(feature, datasets.List):
        return datasets.List(plain_feature(feature.feature), length=feature.length)
    return feature


def same_type(one: pa.DataType, other: pa.DataType) -> bool:
    """Whether both types hold the same values, whatever their layout, nullability and names of list
    items."""
    if one.equals(other):
        return True
    one, other = plain_type(one), plain_type(other)
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        names = [field.name for field in one]
        return names == [field.name for field in other] and all(
            same_type(one.field(name).type, other.field(name).type) for name in names
        )
    if pa.types.is_fixed_size_list(one) and pa.types.is_fixed_size_list(other):
        equal = one.list_size == other.list_size
        return equal and same_type(one.value_type, other.value_type)
    if pa.types.is_list(one) and pa.types.is_list(other):
        return same_type(one.value_type, other.value_type)
    return any(is_kind(one) and is_kind(other) for is_kind in (is_text, is_binary)) or one == other


def is_text(type: pa.DataType) -> bool:
    return pa.types.is_string(type) or pa.types.is_large_string(type)


def is_binary(type: pa.DataType) -> bool:
    return pa.types.is_binary(type) or pa.types.is_large_binary(type)


def _described(schema: pa.Schema) -> dict[str, Any]:
    text = (schema.metadata or {}).get(b"huggingface")
    try:
        content = json.loads(text)["info"]["features"] if text else None
        return dict(datasets.Features.from_dict(content)) if content else {}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}  # another program's words under this name


def _is_array_of_datasets(type: pa.BaseExtensionType) -> bool:
    return isinstance(type, datasets.features.features._ArrayXDExtensionType)


def _nested_type(type: pa.FixedShapeTensorType) -> pa.DataType:
    nested = type.value_type
    for length in reversed(_shape(type)):
        nested = pa.list_(nested, length)
    return nested


def _nested_array(chunk: pa.FixedShapeTensorArray) -> pa.Array:
    values = chunk.storage.flatten()
    if chunk.null_count:
        return pa.array(chunk.storage.to_pylist(), chunk.storage.type)
    for length in reversed(_shape(chunk.type)):
        values = pa.FixedSizeListArray.from_arrays(values, length)
    return values


def _shape(type: pa.FixedShapeTensorType) -> list[int]:
    order = type.permutation
    if order is not None and list(order) != sorted(order):
        raise ValueError(f"a tensor whose axes are stored in the order {list(order)}")
    return list(type.shape)
