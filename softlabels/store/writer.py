"""One shard, written atomically: rows go in, a commit record comes out.

N inputs of a block, V views of each; R = V · N rows, those of one view after those of another.
"""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from softlabels.errors import AlignmentError, LogitsError
from softlabels.inputs.label_lists import STORED, Labels, as_column, hidden, joined, none_of
from softlabels.inputs.sources import Source
from softlabels.inputs.views.augment import CLEAN
from softlabels.inputs.views.mixing import MIX, PARTNER_LABEL, UNMIXED
from softlabels.store.codecs.codec import Stored
from softlabels.store.codecs.kinds import Dense
from softlabels.store.folder import Folder
from softlabels.store.left_out import fingerprints, put_back
from softlabels.store.names import commit_name
from softlabels.store.pages.columns import Column
from softlabels.store.pages.shard_file import ShardFile
from softlabels.store.pilots import STOPPED
from softlabels.store.plan import LISTS, VIEW_HASH
from softlabels.store.records import Commit, Plan, Skipped, Statistics
from softlabels.store.statistics import LogitStatistics

NULLABLE = ("label", "label_source", "input", PARTNER_LABEL, VIEW_HASH)  # and what a codec decodes


def stored_features(plan: Plan, source: Source) -> dict[str, Any] | None:
    """The features of the columns that hold inputs; None where none are stored."""
    if plan.stored is not None:
        return {"input": datasets.Image()}
    return source.input_features if plan.with_inputs else None


def shard_features(plan: Plan, inputs: Mapping[str, Any] | None) -> datasets.Features:
    """The columns of a shard as `datasets` knows them. inputs: the features of the input's columns,
    if they are stored."""
    names = plan.label_names
    features = {
        "id": datasets.Value(plan.ids),
        "view": datasets.Value("int32"),
        **{
            name: datasets.Value("int64" if kind == LISTS else kind)
            for name, kind in plan.view_columns.items()
        },
        "input_hash": datasets.Value("uint64"),
        **({} if plan.stored is None else {"stored_hash": datasets.Value("uint64")}),
    }
    label = datasets.ClassLabel(names=names) if names else datasets.Value("int64")
    for name in (*plan.label_columns, *({PARTNER_LABEL} & features.keys())):
        features[name] = datasets.List(label) if plan.several_labels else label
    features |= inputs or {}
    for column in plan.make_codec().columns:
        features[column.name] = column_feature(column)
    return datasets.Features(features)


def column_feature(column: Column) -> Any:
    """A codec's column as `datasets` knows it; packed codes are bytes."""
    if column.is_list:
        return datasets.List(datasets.Value(str(column.dtype)), length=column.length)
    return datasets.Value("binary" if column.dtype == np.uint8 else str(column.dtype))


def shard_schema(plan: Plan, inputs: Mapping[str, Any] | None) -> pa.Schema:
    """The Arrow schema of a shard, with the `datasets` features in its metadata.

    A label is never null, but its column is nullable: `datasets` takes a feature from the metadata
    where its Arrow field is the very same, and so would read a ClassLabel as plain numbers.
    """
    columns = {column.name: column.arrow_field for column in plan.make_codec().columns}
    schema = shard_features(plan, inputs).arrow_schema
    for index, name in enumerate(schema.names):
        plain = pa.field(name, schema.field(name).type, nullable=name in NULLABLE)
        schema = schema.set(index, columns.get(name, plain))
    return schema


class ShardWriter:
    """Use as a context: an exception inside leaves neither a file nor a commit.

    Row groups have the plan's length and one page a column. Those of the codec's mapped columns are
    uncompressed and PLAIN, so that a reader can map them in place. A thread of its own sums up,
    hashes and writes a row group while the next one is encoded and described.
    """

    def __init__(self, folder: Folder, plan: Plan, shard: int, schema: pa.Schema) -> None:
        self.folder, self.plan, self.shard = folder, plan, shard
        footer = {
            b"softlabels.plan": plan.hash.encode(),
            b"softlabels.shard": str(shard).encode(),
        }
        self.schema = schema.with_metadata((schema.metadata or {}) | footer)
        self.codec = plan.make_codec(folder)
        self.holds_error = True  # a shard whose codec errs far more than on the pilot is refused
        self.statistics = LogitStatistics()
        self.skipped: list[Skipped] = []
        self.truncated = 0  # texts of which the end was cut
        self.tokens = self.padding = 0  # positions that a teacher of texts read
        self.unturned = 0  # pictures fed as stored, though their EXIF orientation says to turn them
        self.unmixed = 0  # rows of mixed views whose partner could not be read
        self.at_once: int | None = None  # rows in a forward pass: the fewest, if they changed
        self.device: str | None = None
        self.commit: Commit | None = None
        # the band of inputs that is being filled; of numbers [V, group_rows, …]
        views, rows = len(plan.views), plan.group_rows
        self._others: list[tuple[Any, ...]] = []
        kinds: dict[str, tuple[np.dtype, tuple[int, ...]]] = {
            c.name: (c.dtype, c.shape) for c in self.codec.mapped
        }
        for name, kind in plan.view_columns.items():
            kinds[name] = np.dtype(object if kind in ("string", LISTS) else kind), ()
        self._numbers, self._spare = (
            {name: np.empty((views, rows, *shape), kind) for name, (kind, shape) in kinds.items()}
            for _ in range(2)  # one is filled while the other is written: Arrow copies neither
        )
        self._decoded: dict[str, list[list[bytes | None]]] = {
            c.name: [[] for _ in plan.views] for c in self.codec.decoded
        }
        self._lost = 0.0  # nats
        # of rows that are encoded already: the record of their shard, which knows the codec's error
        self.known: Commit | None = None
        self._waiting = 0  # inputs of the band
        self._filing = ThreadPoolExecutor(1, thread_name_prefix="file")
        self._filed: Future[None] | None = None  # the row group that is being written
        # ids, input hashes and labels of all inputs
        self._keys: list[tuple[np.ndarray, np.ndarray, Labels]] = []

    def __enter__(self) -> "ShardWriter":
        with ExitStack() as stack:
            raw = stack.enter_context(self.folder.create(self.plan.file(self.shard)))
            self.file = ShardFile(raw, self.schema, self.plan.group_rows, self.codec.columns)
            self._stack = stack.pop_all()
        return self

    def add(
        self,
        ids: np.ndarray,
        labels: Labels,
        hashes: np.ndarray,
        answer: Dense,
        inputs: pa.Table | None = None,
        drawn: dict[str, np.ndarray] | None = None,
    ) -> None:
        """All views of these inputs. ids, labels (the source's, whatever classes they number),
        hashes [N], inputs (their columns): of the inputs. answer, to R
        rows, and `drawn` with the plan's parameters, partners and hashes, 0 for none, [R] each: of
        each view in turn.

        Raises LogitsError where a row's logits must not be stored.
        """
        of_rows = ids.tolist() * len(self.plan.views)
        stored = self.codec.encode(answer, of_rows)
        self._lost += self.codec.lost(answer, stored, of_rows)
        self.append(ids, labels, hashes, stored, inputs, drawn)

    def append(
        self,
        ids: np.ndarray,
        labels: Labels,
        hashes: np.ndarray,
        stored: Stored,
        inputs: pa.Table | None = None,
        drawn: dict[str, np.ndarray] | None = None,
    ) -> None:
        """Rows that are encoded already, as another shard has them."""
        self._keys.append((ids, hashes, labels))
        count, views, done = len(ids), len(self.plan.views), 0
        given = stored | (drawn or {})
        by_view = {
            name: given[name].reshape(views, count, *numbers.shape[2:])
            for name, numbers in self._numbers.items()
        }
        while done < count:
            rows = min(count - done, self.plan.group_rows - self._waiting)
            place, part = slice(self._waiting, self._waiting + rows), slice(done, done + rows)
            for name, numbers in self._numbers.items():
                numbers[:, place] = by_view[name][:, part]
            for name, values in self._decoded.items():
                for view, of_view in enumerate(values):
                    of_view += stored[name][view * count + done : view * count + done + rows]
            some = None if inputs is None else inputs.slice(done, rows)
            self._others.append((ids[part], hashes[part], labels[part], some))
            self._waiting += rows
            done += rows
            if self._waiting == self.plan.group_rows:
                self._write()

    def ran(self, device: str | None, rows: int | None) -> None:
        """Note what a batch ran on, with so many rows at once at most."""
        self.device = device
        if rows is not None:
            self.at_once = min(rows, self.at_once or rows)

    def skip(self, entry: Skipped) -> None:
        """Record an input that was left out, in all its views."""
        self.skipped.append(entry)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is not None:
            self._abandon()
            self._stack.__exit__(kind, error, trace)
            return
        start, stop = self.plan.bounds(self.shard)
        with self._stack:
            try:
                if self._waiting:
                    self._write()
                self._await_file()
                self._filing.shutdown()
                statistics = self.statistics.merged
                rows = self.statistics.rows
                views = len(self.plan.views)
                assert rows == (stop - start - len(self.skipped)) * views, "a shard is whole"
                fingerprint = self._fingerprint()
                if statistics:
                    names = ("unturned", "unmixed", "truncated", "tokens", "padding")
                    counts = {name: getattr(self, name) for name in names}
                    statistics = self._judged(statistics.replace(**counts))
                self.file.close()
            except BaseException:
                self._abandon()
                raise
        written = self.file.file
        self.commit = Commit(
            shard=self.shard,
            plan=self.plan.hash,
            file=self.plan.file(self.shard),
            rows=rows,
            bytes=written.size,
            sha256=written.sha256.hexdigest(),
            fingerprint=fingerprint,
            statistics=statistics,
            skipped=self.skipped,
            at_once=self.at_once,
            device=self.device,
        )
        self.folder.write_json(commit_name(self.shard), self.commit.as_json)

    def _abandon(self) -> None:
        """Once its thread has ended, since both use Arrow's writer."""
        self._filing.shutdown(cancel_futures=True)
        self.file.abandon()

    def _await_file(self) -> None:
        """Until the last row group is in the file. Raises what writing it raised."""
        filed, self._filed = self._filed, None
        if filed is not None:
            filed.result()

    def _fingerprint(self) -> str:
        """Of the source rows that this shard was made from. Raises AlignmentError where they have
        other ids or labels than the plan's."""
        start, stop = self.plan.bounds(self.shard)
        kind = np.str_ if self.plan.ids == "string" else np.int64
        none = (np.empty(0, kind), np.empty(0, np.uint64), none_of(0, self.plan.several_labels))
        ids, hashes, labels = zip(none, *self._keys, strict=True)
        stored = np.concatenate(ids), np.concatenate(hashes), joined(labels)
        keys, rows = fingerprints(*put_back(*stored, self.skipped, start))
        if keys != self.plan.source.shards[self.shard]:
            raise AlignmentError(
                f"rows {start:,} to {stop - 1:,} of {self.plan.source.data!r} are not those of the "
                f"plan: ids or labels changed after it was made, or this machine has another copy. "
                f"Nothing of shard {self.shard} was stored. Bring back the data, then --resume"
            )
        return rows

    def _judged(self, statistics: Statistics) -> Statistics:
        """With the codec's error on these rows, which may be no larger than the pilot lets expect.
        Raises LogitsError."""
        where, pilot = f"shard {self.shard}", self.plan.pilot
        if self.known is not None and self.known.statistics:
            known = self.known.statistics
            return statistics.replace(kl=known.kl, kl_most=known.kl_most)
        positions = statistics.scored
        self.codec.check_lost(self._lost, positions, where)
        if pilot is None or not positions:
            return statistics
        mean = max(0.0, self._lost / positions)
        if self.holds_error and pilot.is_exceeded(mean, positions, STOPPED):
            raise LogitsError(
                f"the codec {self.plan.codec} changes the soft targets of {where} by a mean KL of "
                f"{mean:.2g} nats at T = 1, more than {STOPPED:g} times the "
                f"{pilot.at_one.mean:.2g} that the pilot measured: its rows are not like the "
                f"others. Store them with --codec dense in another folder, or go on with "
                f"--allow-codec-error and --resume"
            )
        return statistics.replace(kl=mean, kl_most=mean)

    def _write(self) -> None:
        """The band, a row group a view."""
        rows, self._waiting = self._waiting, 0
        *numbers, some_labels, inputs = zip(*self._others, strict=True)
        self._others = []
        ids, hashes = map(np.concatenate, numbers)
        labels = joined(some_labels)
        columns: dict[str, Any] = {
            "id": pa.array(ids.tolist() if ids.dtype.kind == "U" else ids),
            "input_hash": pa.array(hashes),
            **{name: as_column(labels) for name in self.plan.label_columns},
        }
        if inputs[0] is not None:
            whole = pa.concat_tables(inputs).combine_chunks()
            columns |= zip(whole.column_names, whole.columns, strict=True)
        for index, view in enumerate(self.plan.views):
            columns["view"] = pa.array(np.full(rows, view, np.int32))
            columns |= {
                name: _column(name, self._numbers[name][index, :rows])
                for name in self.plan.view_columns
            }
            self._write_group(index, columns, labels)
            # an input is stored once, with its first view
            if "input" in columns:
                columns["input"] = pa.nulls(rows, columns["input"].type)
        self._decoded = {name: [[] for _ in self.plan.views] for name in self._decoded}
        # its last row group may still be written; the other band's were before that one began
        self._numbers, self._spare = self._spare, self._numbers

    def _write_group(self, index: int, columns: dict[str, Any], labels: Labels) -> None:
        """The band's rows of one view: the columns but the codec's, which are its buffers."""
        rows = len(labels)
        scored = labels if self.plan.labelled else none_of(rows, several=False)
        if MIX in self._numbers:
            mixed = self._numbers[MIX][index, :rows] != UNMIXED
            scored = hidden(scored, mixed) if self.plan.labelled else scored
            self.unmixed += rows - int(mixed.sum()) if self.plan.views[index] != CLEAN else 0
        mapped = {c.name: self._numbers[c.name][index, :rows] for c in self.codec.mapped}
        decoded = {name: values[index] for name, values in self._decoded.items()}
        packed = {name: pa.array(values, pa.binary()) for name, values in decoded.items()}
        schema, every = self.file.others, columns | packed
        others = pa.table([every[name] for name in schema.names], schema=schema)
        stored = mapped | decoded
        self._await_file()
        self._filed = self._filing.submit(self.file.write, others, mapped)
        of_positions = self.codec.by_position(scored, stored)
        self.statistics.add(self.codec.of_arrays(stored), of_positions, rows)


def _column(name: str, values: np.ndarray) -> pa.Array:
    """The parameters of a view as they are; hashes with null for none."""
    if values.dtype == object:
        return pa.array(values.tolist(), STORED if name == PARTNER_LABEL else pa.string())
    return pa.array(values, mask=values == 0 if name == VIEW_HASH else None)


def drawn_of(table: pa.Table, plan: Plan) -> dict[str, np.ndarray]:
    """What a shard's rows say of their views, as `ShardWriter.append` takes it."""
    columns = {name: table[name] for name in plan.view_columns}
    return {
        name: (column.fill_null(0) if name == VIEW_HASH else column).to_numpy()
        for name, column in columns.items()
    }
