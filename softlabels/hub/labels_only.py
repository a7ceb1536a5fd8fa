"""A copy of a dump without its inputs: the same rows, hashes and logits under another plan."""

import pyarrow as pa

from softlabels.errors import UsageError
from softlabels.inputs.cells import read_ids
from softlabels.inputs.label_lists import none_of, of_column
from softlabels.places.hub_copies import CONNECTIONS
from softlabels.reports.card import render_card
from softlabels.store.folder import Folder
from softlabels.store.ledger import Ledger
from softlabels.store.names import CARD, MANIFEST, PLAN, commit_name
from softlabels.store.plan import Plan
from softlabels.store.reader import DumpReader
from softlabels.store.records import Commit, Manifest
from softlabels.store.shard_check import sha256_of
from softlabels.store.shard_reader import ShardReader
from softlabels.store.side_files import SideFiles
from softlabels.store.writer import ShardWriter, drawn_of, shard_features, shard_schema
from softlabels.system.background import in_order
from softlabels.system.progress import SILENT, Progress


def bare_plan(plan: Plan, of: str) -> Plan:
    """The plan of a copy without inputs. Raises UsageError for views that could not be shown any
    more: their boxes are in pixels of the pictures that would be left out."""
    cropped = plan.augmentation is not None and plan.augmentation.crop is not None
    if cropped and plan.stored is not None:
        raise UsageError(
            f"the views of {of} are cut from the pictures that it stores, {plan.store_inputs}, and "
            f"without these no student can be shown what the teacher saw: leave out --labels-only, "
            f"or dump again with --store-inputs original or none"
        )
    return plan.replace(store_inputs="none")


def without_inputs(reader: DumpReader, to: Folder, progress: Progress = SILENT) -> Folder:
    """Write a copy without inputs to a local folder. Resumable and deterministic. Never downloads
    the inputs of a remote dump.

    Raises DamagedDump for a dump that does not agree with its records, and what `bare_plan` raises.
    """
    plan = bare_plan(reader.plan, str(reader.folder))
    schema = shard_schema(plan, None)
    columns = ["id", "input_hash", *plan.view_columns, *reader.codec.names, *plan.label_columns]
    ledger = Ledger(to, plan)
    there = ledger.commits if ledger.frozen == plan else {}
    done = {n: c for n, c in there.items() if sha256_of(to.path(c.file)) == c.sha256}
    for name in plan.shared:
        content = SideFiles(reader.folder, plan.shared).read(name)
        with to.create(name) as file:
            file.write(content)
    measured = Ledger(reader.folder, reader.plan).commits if plan.pilot else {}
    to.write_json(PLAN, plan.as_json)
    commits = []
    with progress.bar("without inputs", len(reader), "rows") as advance:
        for shard, record in enumerate(reader.records):
            if shard in done:
                commits.append(done[shard])
                advance(record.rows)
                continue
            table = _read(reader, shard, columns)
            with ShardWriter(to, plan, shard, schema) as writer:
                _append(writer, reader.shard(shard), table)
                writer.known = measured.get(reader.numbers[shard])
                for entry in reader.manifest.skipped:
                    start, stop = plan.bounds(shard)
                    if start <= entry.row < stop:
                        writer.skip(entry)
            assert isinstance(writer.commit, Commit)
            commits.append(writer.commit)
            to.write_json(commit_name(shard), writer.commit.as_json)
            advance(record.rows)
    manifest = Manifest.derive(plan, commits, reader.manifest.versions)
    manifest = manifest.replace(created=reader.manifest.created)
    to.write_text(CARD, render_card(manifest, plan, shard_features(plan, None)))
    to.write_json(MANIFEST, manifest.as_json)
    return to


def _append(writer: ShardWriter, reader: ShardReader, table: pa.Table) -> None:
    """The rows of a shard, band by band: as it has them, all rows of a view are together."""
    plan, done = reader.plan, 0
    for inputs in plan.group_sizes(reader.rows)[:: len(plan.views)].tolist():
        rows = inputs * len(plan.views)
        band = table.slice(done, rows)
        first = band.slice(0, inputs)
        label = plan.label_column
        labels = none_of(inputs, several=False) if label is None else of_column(first[label])
        drawn = drawn_of(band, plan)
        hashes = first["input_hash"].to_numpy()
        writer.append(read_ids(first["id"], "id"), labels, hashes, reader.decode(band), None, drawn)
        done += rows


def _read(reader: DumpReader, shard: int, columns: list[str]) -> pa.Table:
    """These columns of a shard; its row groups are read in parallel."""
    rows = reader.records[shard].rows
    decoder = reader.shard(shard)
    groups = range(1, decoder.groups)
    if not rows:
        return reader.read_shard(shard, columns)
    first = decoder.table(0, columns)  # reads the footer, once for all groups
    others = in_order(lambda group: decoder.table(group, columns), groups, CONNECTIONS)
    return pa.concat_tables([first, *others])
