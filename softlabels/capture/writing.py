"""Answers become shards, on the writing thread; another one closes and commits them."""

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from softlabels.capture.job import Job
from softlabels.capture.reading import Batch
from softlabels.capture.transfers import Arriving
from softlabels.errors import TeacherError
from softlabels.inputs.number_cells import as_columns
from softlabels.inputs.rows import Rows
from softlabels.inputs.shown import joined
from softlabels.inputs.stored_pictures import Storing
from softlabels.inputs.texts import Texts
from softlabels.models.causes import first_line
from softlabels.models.tokens import Tokens, padding
from softlabels.store.codecs.kinds import Dense
from softlabels.store.writer import ShardWriter, shard_schema, stored_features


class Scribe:
    """The writing thread's side: the shard that is open, if any, and the one before it, which
    another thread flushes to the disk or uploads, and then commits: the next one is begun
    meanwhile."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.schema = shard_schema(job.plan, stored_features(job.plan, job.source))
        self.open: ShardWriter | None = None
        self.failed = False
        self._closer = ThreadPoolExecutor(1, thread_name_prefix="close")
        self._closing: Future[None] | None = None

    def write(self, batch: Batch, coming: Arriving | None) -> int:
        """Add a batch to its shard; begin to commit the shard after its last. The source rows done.
        Raises what closing an earlier shard raised."""
        if self.failed:  # batches may be queued behind the one that failed
            raise RuntimeError("an earlier batch of this dump could not be written")
        with self.job.timing.writing():
            try:
                self._write(batch, coming)
            except BaseException as error:
                self.abandon(error)
                raise
        return batch.count

    def finish(self) -> None:
        """Until the last shard is committed. Raises what closing it raised."""
        if not self.failed:
            with self.job.timing.writing():
                self._await_closed()
        self._closer.shutdown()

    def _write(self, batch: Batch, coming: Arriving | None) -> None:
        if self._closing is not None and self._closing.done():
            self._await_closed()
        if self.open is None:
            job = self.job
            writer = ShardWriter(job.folder, job.plan, batch.shard, self.schema)
            writer.holds_error = not job.pace.allow_codec_error
            self.open = writer.__enter__()
        rows = batch.ready.rows
        for entry in batch.ready.skipped:
            self.open.skip(entry)
        self.open.unturned += batch.ready.unturned
        self.open.truncated += batch.ready.truncated
        if isinstance(inputs := batch.ready.inputs, Tokens):
            self.open.tokens += int(inputs.lengths.sum())
            if self.job.answers.pads and coming is not None and coming.at_once is not None:
                self.open.padding += padding(inputs.lengths, coming.at_once)
        if coming is not None:
            answer, stored = self._arrived(coming, rows), None
            if batch.ready.files:
                stored = file_columns(batch.ready.files, self.schema)
            elif self.job.plan.with_inputs:
                stored = input_columns(rows.cells, self.schema)
            drawn = joined(batch.ready.views)
            self.open.add(rows.ids, rows.labels, rows.hashes, answer, stored, drawn)
        if batch.last:
            self._await_closed()  # one at a time, so that neither files nor failures pile up
            done, self.open = self.open, None
            self._closing = self._closer.submit(self._close, done)

    def _close(self, shard: ShardWriter) -> None:
        shard.__exit__(None, None, None)
        assert shard.commit is not None, "it was left without an exception"
        self.job.ledger.note(shard.commit)

    def _await_closed(self) -> None:
        closing, self._closing = self._closing, None
        if closing is not None:
            closing.result()

    def _arrived(self, coming: Arriving, rows: Rows) -> Dense:
        """The answers to these rows. Raises TeacherError where the device fails, which is known
        only now."""
        assert self.open is not None, "its shard is open"
        self.open.ran(self.job.answers.hardware, coming.at_once)
        try:
            with self.job.timing.device():
                return coming.wait()
        except RuntimeError as error:
            raise TeacherError(
                f"{self.job.answers.title} failed on {self.job.answers.hardware}: "
                f"{first_line(error)}. It did so in the rows with id {rows.ids[0].item()!r} to "
                f"{rows.ids[-1].item()!r}, or in those that were given to it after them"
            ) from error

    def abandon(self, error: BaseException) -> None:
        """Drop the open shard: nothing of it is kept, and nothing more is written. The one before
        it is whole, and still committed."""
        self.failed = True
        if self.open is not None:
            dropped, self.open = self.open, None
            dropped.__exit__(type(error), error, error.__traceback__)


def input_columns(cells: list[bytes] | np.ndarray | Texts | Tokens, schema: pa.Schema) -> pa.Table:
    """The cells of a block as the columns of a shard that hold inputs: `input`, or those that go to
    models by name."""
    if isinstance(cells, Tokens):
        offsets = pa.array(np.concatenate([[0], np.cumsum(cells.lengths)]), pa.int32())
        lists = {
            name: pa.ListArray.from_arrays(offsets, pa.array(values, pa.int32()))
            for name, values in cells.columns.items()
        }
        return pa.table({name: one.cast(schema.field(name).type) for name, one in lists.items()})
    if isinstance(cells, np.ndarray) and cells.dtype.names is not None:
        numbers = as_columns(cells)
        return pa.table({n: one.cast(schema.field(n).type) for n, one in numbers.items()})
    type_ = schema.field("input").type
    if isinstance(cells, Texts):
        return pa.table({"input": pa.array(list(cells), type_)})
    if isinstance(cells, list):
        pictures = [{"bytes": cell, "path": None} for cell in cells]
        return pa.table({"input": pa.array(pictures, type_)})
    return pa.table({"input": pa.array(cells.tolist(), type_)})


def file_columns(files: list[Storing], schema: pa.Schema) -> pa.Table:
    """Resized pictures as the columns of a shard that hold them and their own hashes."""
    hashes = pa.array([file.hash for file in files], pa.uint64())
    stored = input_columns([file.content for file in files], schema)
    return stored.add_column(0, "stored_hash", hashes)
