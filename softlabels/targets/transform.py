"""Soft targets for those who stay with `datasets`. N rows of a batch, C classes."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from datasets import formatting
from datasets.formatting.formatting import Formatter
from torch import Tensor

from softlabels.errors import AlignmentError, UsageError
from softlabels.store.inputs import find_ids
from softlabels.targets.loading import load
from softlabels.targets.soft_dataset import Dump, OneView, SoftDataset

FORMAT = "soft_targets"
COMPOSED = (None, "python", "custom", "torch", "numpy", "pandas", "arrow")
NEW = ("logits", "soft_target")


def with_soft_targets(
    dataset: datasets.Dataset,
    dump: str | Path,
    T: float,
    *,
    view: int | None = None,
    **options: Any,
) -> datasets.Dataset:
    """The same dataset with `logits` (stored dtype [N, C]) and `soft_target` (float32 [N, C]) of a
    dump. Nothing is computed before a row is read.

    dataset: `datasets.load_dataset(DIR)` of the dump, or any dataset with its column `id`, in any
    order. Its transform or format works as before; soft targets are added to what it returns, as
    torch tensors or in the format's own type (numpy, pandas, arrow). Logits are read from the
    dump's mapped files, not through Python lists. A column `logits` is replaced. Without a
    transform, `input_hash` is left out, since torch can't collate it.

    options: those of `load`, such as `keep`

    view: the view of the soft targets, if the dump was made with views; rows of
    `datasets.load_dataset(DIR)` of such a dump have to be of this view too. Their column `input` is
    the picture as it is: to change it as the columns of a drawn view say is left to you

    Rows may be selected, shuffled, filtered, split and mapped afterwards, as long as `id` stays.
    `with_transform`, `set_transform` and `with_format` afterwards put another format in the place
    of this one: `datasets` keeps one only, and says nothing. So they come first:
    `with_soft_targets(dataset.with_transform(augment), …)`.

    Raises UsageError for something else than a Dataset with ids, for a format that can't be kept,
    and for a dump with several views of which none is named; AlignmentError in a batch that has ids
    which the dump has not, or rows of another view.
    """
    if not isinstance(dataset, datasets.Dataset):
        raise UsageError(f"dataset is a {type(dataset).__name__}; {_remedy(dataset)}")
    if not isinstance(dump, str | Path):
        raise UsageError(f"dump is a {type(dump).__name__}; name one, by its folder or address")
    if "id" not in dataset.column_names:
        raise UsageError(f"dataset has no column id; it has {', '.join(dataset.column_names)}")
    before = dataset.format
    if before["type"] == FORMAT or "soft_target" in dataset.column_names:
        raise UsageError(
            "dataset has soft targets already; give the one without, such as "
            "dataset.with_format(None)"
        )
    if before["type"] not in COMPOSED:
        raise UsageError(
            f"dataset has the format {before['type']!r}, beside which soft targets can't stand; "
            f"use torch, numpy, pandas, arrow, or dataset.with_format(None)"
        )
    opened = load(dump, T, inputs=False, **options)
    assert isinstance(opened, Dump), "one folder was named"
    shown = _one_view(opened, view)
    plain = set(dataset.column_names) - set(before["columns"])
    joined = SoftTargets(
        shown, before["type"], before["format_kwargs"], plain, before["output_all_columns"]
    )
    _register()
    return dataset.with_format(FORMAT, joined=joined)


def _one_view(dump: Dump, view: int | None) -> SoftDataset:
    """Raises UsageError where an id has several rows, for a view that is not there, and for drawn
    ones that were not named."""
    plan = dump.reader.plan
    if len(plan.views) > 1 and view is None:
        raise UsageError(
            f"{dump.reader.folder} has {len(plan.views)} views of each input, and an id is to have "
            f"one row: name a view, such as view={plan.views[0]}"
        )
    if plan.has_views and view is None:
        raise UsageError(
            f"{dump.reader.folder} has view {plan.views[0]} alone, drawn by {plan.augment}: a "
            f"dataset's pictures, its own column input too, are not changed so, and not what the "
            f"teacher saw. softlabels.load gives what it saw; where you make the view from its "
            f"columns, name view={plan.views[0]}"
        )
    return dump if view is None else dump.view(view)


def _remedy(dataset: Any) -> str:
    if isinstance(dataset, datasets.IterableDataset):
        return "of a stream, softlabels.load(dump, T, streaming=True) gives inputs and soft targets"
    return "give one split, such as dataset['train']"


@dataclass(frozen=True, eq=False)
class SoftTargets:
    """A dump's rows by id, and the format of the dataset that they come beside.

    plain: columns that this format leaves alone; they come along only with `every`.
    """

    dump: SoftDataset
    type: str | None
    kwargs: dict[str, Any]
    plain: set[str]
    every: bool

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """The places of these ids in the dump. Raises AlignmentError for ids that it lacks."""
        known = self.dump.ids
        if ids.dtype.kind != known.dtype.kind:
            rows = np.full(len(ids), -1)
        elif self._order is not None:
            rows = find_ids(known, ids, self._order)
        else:
            rows = np.where((ids >= 0) & (ids < len(known)), ids, -1)
        if len(rows) and rows.min() < 0:
            missing = ids[rows < 0]
            raise AlignmentError(
                f"{len(missing)} of {len(ids)} rows are not in {self.dump._place()}: first "
                f"the ids {', '.join(map(str, missing[:5]))}"
            )
        return rows

    @cached_property
    def _order(self) -> np.ndarray | None:
        """What sorts the dump's ids; None where they count up from 0."""
        ids = self.dump.ids
        counted = ids.dtype.kind == "i" and np.array_equal(ids, np.arange(len(ids)))
        return None if counted else np.argsort(ids, kind="stable")

    def _key(self) -> tuple[Any, ...]:
        return self.dump.identity, self.dump.T, self.type, self.kwargs, self.plain, self.every

    def __eq__(self, other: object) -> bool:
        """`datasets` keeps a format where it joins datasets of which all have the same."""
        return isinstance(other, SoftTargets) and self._key() == other._key()

    __hash__ = None  # type: ignore[assignment]

    def __deepcopy__(self, memo: Any) -> "SoftTargets":
        return self

    def __reduce__(self) -> tuple:
        return _rebuilt, (self.dump, self.type, self.kwargs, self.plain, self.every)


class SoftTargetsFormatter(Formatter):
    """What `datasets` asks for rows: the format that was there, and soft targets beside it."""

    def __init__(self, joined: SoftTargets, features: Any = None, **others: Any) -> None:
        super().__init__(features=features, **others)
        self.joined = joined
        options = {"features": features, **others, **joined.kwargs}
        self.inner = formatting.get_formatter(joined.type, **options)

    def format_row(self, pa_table: pa.Table) -> Any:
        return self._with_targets(pa_table, 0)

    def format_batch(self, pa_table: pa.Table) -> Any:
        return self._with_targets(pa_table, range(len(pa_table)))

    def format_column(self, pa_table: pa.Table) -> Any:
        return self._as_before(pa_table, pa_table.column_names[0])

    def _as_before(self, table: pa.Table, key: Any) -> Any:
        joined = self.joined
        columns = [name for name in table.column_names if name not in joined.plain]
        return formatting.format_table(table, key, self.inner, columns, joined.every)

    def _with_targets(self, table: pa.Table, key: int | range) -> Any:
        if "id" not in table.column_names:
            raise UsageError(
                f"no column id among {', '.join(table.column_names)}: soft targets are found by it"
            )
        ids = np.asarray(table["id"].to_pylist())
        self._check_view(table)
        batch = self.joined.dump.take(self.joined.rows(ids))
        hidden = set() if self.joined.type == "custom" else {"logits", "input_hash"}
        names = [name for name in table.column_names if name not in hidden]
        before = self._as_before(table.select(names), key)
        targets = {name: batch[name] for name in NEW}
        if isinstance(before, Mapping):
            self._check_names(before, table)
            return self._beside(before, targets, key)
        if isinstance(before, pa.Table):
            for name, values_NC in targets.items():
                before = before.append_column(name, _arrow(values_NC))
            return before
        if self.joined.type == "pandas":
            return before.assign(**{name: list(value.numpy()) for name, value in targets.items()})
        raise UsageError(
            f"the dataset's transform gives {type(before).__name__}; soft targets stand in a dict"
        )

    def _check_view(self, table: pa.Table) -> None:
        """A dataset of another view's rows would get targets of other pictures than its own."""
        dump = self.joined.dump
        if not isinstance(dump, OneView) or "view" not in table.column_names:
            return
        if others := set(table["view"].to_pylist()) - {dump.number}:
            raise AlignmentError(
                f"the dataset has rows of view {min(others)}, and the soft targets are of view "
                f"{dump.number}: keep these alone, with dataset.filter(lambda row: row['view'] == "
                f"{dump.number})"
            )

    def _check_names(self, before: Mapping[str, Any], table: pa.Table) -> None:
        for name in NEW:
            if name in before and name not in table.column_names:
                raise UsageError(
                    f"the dataset's transform gives {name!r}, which is the name of a column of "
                    f"soft targets; give it another one there"
                )

    def _beside(
        self, before: Mapping[str, Any], targets: dict[str, Tensor], key: int | range
    ) -> dict[str, Any]:
        values = {name: before[name] for name in before}
        if isinstance(key, range):
            for name, value in values.items():
                if hasattr(value, "__len__") and len(value) != len(key):
                    raise UsageError(
                        f"the dataset's transform gives {len(value)} values of {name!r} for "
                        f"{len(key)} rows; soft targets need one for each"
                    )
        else:
            targets = {name: value[0] for name, value in targets.items()}
        numpy = self.joined.type == "numpy"
        return values | {name: v.numpy() if numpy else v for name, v in targets.items()}


def _arrow(values_NC: Tensor) -> pa.Array:
    flat = pa.array(values_NC.numpy().reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values_NC.shape[1])


def _rebuilt(*parts: Any) -> SoftTargets:
    """In another process, where `datasets` does not know the format yet."""
    _register()
    return SoftTargets(*parts)


def _register() -> None:
    if FORMAT not in formatting._FORMAT_TYPES:
        formatting._register_formatter(SoftTargetsFormatter, FORMAT)
