"""Whether the files of a dump are what their records say. Reads everything; writes nothing.

M positions of the rows of a row group; V views; R rows of a shard.
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from softlabels.errors import DamagedDump, SoftlabelsError
from softlabels.inputs.cells import read_ids
from softlabels.inputs.label_lists import (
    LabelLists,
    Labels,
    differing,
    hidden,
    known,
    none_of,
    of_column,
    shown,
)
from softlabels.inputs.views.augment import CLEAN
from softlabels.inputs.views.augmentations import BOX
from softlabels.inputs.views.mixing import (
    CUTMIX,
    MIX,
    PARTNER,
    PARTNER_LABEL,
    UNMIXED,
    WEIGHT,
    Mixing,
)
from softlabels.store.folder import Folder
from softlabels.store.footers import PARQUET_ERRORS, check_footer, read_columns
from softlabels.store.label_columns import read_labels
from softlabels.store.left_out import fingerprints, put_back
from softlabels.store.plan import VIEW_HASH
from softlabels.store.records import Commit, Plan
from softlabels.store.shard_reader import ShardReader
from softlabels.store.statistics import is_right

CHUNK = 1 << 20


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be."""

    file: str
    problem: str
    redone: bool = True  # whether --resume mends it

    def __str__(self) -> str:
        return f"{self.file}: {self.problem}"


@dataclass
class Checked:
    """What one shard's file said. `planned` are ids, input hashes and labels of the source rows
    that the plan gives it, those that were left out among them; None where something is wrong."""

    shard: int
    findings: list[Finding] = field(default_factory=list)
    planned: tuple[np.ndarray, np.ndarray, Labels] | None = None
    read: int = 0  # bytes
    labelled: int = 0
    correct: int = 0
    positives: int | None = None


def check_shards(
    folder: Folder, plan: Plan, commits: list[Commit], workers: int, decode: bool = True
) -> Iterator[Checked]:
    """`check_shard` of several shards at once, in order."""
    with ThreadPoolExecutor(workers, thread_name_prefix="check") as pool:
        waiting = []
        for commit in commits:
            waiting.append(pool.submit(check_shard, folder, plan, commit, decode))
            if len(waiting) > 2 * workers:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


def check_shard(folder: Folder, plan: Plan, commit: Commit, decode: bool = True) -> Checked:
    """Size, SHA-256, footer, rows against the plan's fingerprint, finite values. decode: whether to
    go further than the SHA-256, for which side files are needed."""
    checked = Checked(commit.shard)

    def report(problem: str) -> Checked:
        checked.findings.append(Finding(commit.file, problem))
        return checked

    try:
        size = folder.size(commit.file)
        if size != commit.bytes:
            longer = "longer than" if size > commit.bytes else "truncated: less than"
            return report(f"has {size:,} bytes, {longer} the recorded {commit.bytes:,}")
        with folder.local(commit.file) as path:
            digest = sha256_of(path)
            checked.read = size
            if digest != commit.sha256:
                return report(_whose(path, plan, commit))
            if decode:
                _check_content(folder, path, plan, commit, checked)
    except FileNotFoundError:
        return report("is missing")
    except PermissionError as error:
        checked.findings.append(Finding(commit.file, f"can't be read: {error.strerror}", False))
    except (SoftlabelsError, *PARQUET_ERRORS) as error:
        return report(str(error))
    return checked


def _check_content(folder: Folder, path: str, plan: Plan, commit: Commit, checked: Checked) -> None:
    columns = ["id", "view", "input_hash", *plan.view_columns, *plan.label_columns]
    table = read_columns(path, plan, commit.shard, commit.rows, columns)
    ids = read_ids(table["id"], "id")
    none = none_of(len(ids), several=False)
    labels, name = none, plan.label_column
    if name:
        labels = read_labels(plan, name, table[name], lambda row: f"the row with id {ids[row]!s}")
    scored = labels if plan.labelled else none
    if plan.mixing is not None and plan.labelled:
        scored = hidden(labels, table[MIX].to_numpy() != UNMIXED)
    first = _check_views(plan, table, ids, labels)
    reader = ShardReader(folder, plan, commit.shard, commit.rows, path)
    bounds = np.cumsum([0, *plan.group_sizes(commit.rows)])
    for group in range(reader.groups):
        stored = reader.in_place(group)
        of_rows = slice(bounds[group], bounds[group + 1])
        top_M, bad = reader.codec.of_arrays(stored).check()
        if bad is not None:
            id = reader.codec.by_position(ids[of_rows], stored)[bad]
            raise DamagedDump(f"the logits of the row with id {id!s} are not finite")
        of_positions = reader.codec.by_position(scored[of_rows], stored)
        checked.labelled += int(known(of_positions).sum())
        checked.correct += int(is_right(top_M, of_positions).sum())
        if isinstance(of_positions, LabelLists):
            checked.positives = (checked.positives or 0) + len(of_positions.numbers)
    hashes = table["input_hash"].to_numpy()
    planned = _planned(plan, commit, ids[first], hashes[first], labels[first])
    recorded = commit.statistics
    if recorded and (recorded.labelled, recorded.correct) != (checked.labelled, checked.correct):
        raise DamagedDump(
            f"its record tells of {recorded.correct:,} right answers of {recorded.labelled:,}; the "
            f"logits give {checked.correct:,} of {checked.labelled:,}"
        )
    if recorded and recorded.positives != checked.positives:
        raise DamagedDump(
            f"its record tells of {recorded.positives} labels in all; the rows have "
            f"{checked.positives}"
        )
    checked.planned = planned


def _check_views(plan: Plan, table: pa.Table, ids: np.ndarray, labels: Labels) -> np.ndarray:
    """The rows of each input's first view. Raises DamagedDump where a row's view is not the one
    that its row group is for, where the views of a band are not of the same inputs, and where a
    view is not the one that the data seed draws."""
    rows_VN = plan.view_rows(len(table))
    views, hashes = table["view"].to_numpy(), table["input_hash"].to_numpy()
    first = rows_VN[0]
    for view, rows in zip(plan.views, rows_VN, strict=True):
        if len(wrong := np.flatnonzero(views[rows] != view)):
            row = rows[wrong[0]]
            raise DamagedDump(
                f"the row {row:,} with id {ids[row]!s} is of view {views[row]}; the plan has view "
                f"{view} there"
            )
        label = plan.label_column or "label"
        for name, values in (("id", ids), ("input_hash", hashes), (label, labels)):
            if len(wrong := np.flatnonzero(differing(values[rows], values[first]))):
                row, other = rows[wrong[0]], first[wrong[0]]
                raise DamagedDump(
                    f"the views of a band are not of the same inputs: {name} of view {view} is "
                    f"{shown(values, row)} and that of view {plan.views[0]} is "
                    f"{shown(values, other)}"
                )
        for name, drawn in plan.draw(ids[rows], view).items():
            stored = table[name].to_numpy()[rows]
            differs = stored != drawn
            if view != CLEAN and plan.mixing is not None and name in plan.mixing.columns:
                differs &= table[MIX].to_numpy()[rows] != UNMIXED  # whose partner can't be read
            if len(wrong := np.flatnonzero(differs)):
                row = wrong[0]
                raise DamagedDump(
                    f"{name} of view {view} of the row with id {ids[rows[row]]!s} is "
                    f"{stored[row]}; {plan.augment} draws {drawn[row]} by the data seed "
                    f"{plan.data_seed}"
                )
        if plan.has_views:
            _check_boxes(plan, table.take(pa.array(rows)), view)
        if plan.mixing is not None:
            _check_mixing(plan, plan.mixing, table.take(pa.array(rows)), view)
    return first


def _check_boxes(plan: Plan, table: pa.Table, view: int) -> None:
    """Of the rows of one view, what can be known of boxes and hashes without pictures. Raises
    DamagedDump for boxes that lie in no picture, and where a hash is there by another choice than
    the data seed's."""
    ids = read_ids(table["id"], "id")
    if plan.augmentation is not None and plan.augmentation.crop is not None:
        top, left, height, width = boxes = [table[name].to_numpy().astype(np.int64) for name in BOX]
        if view == CLEAN:
            wrong, rule = np.any(boxes, axis=0), "the input as it is has zeros there"
        else:
            wrong = (top < 0) | (left < 0) | (height < 1) | (width < 1)
            rule = "a part of a picture has no negative place, and at least a pixel"
        if len(wrong := np.flatnonzero(wrong)):
            pairs = zip(BOX, boxes, strict=True)
            shown = ", ".join(f"{name} {column[wrong[0]]}" for name, column in pairs)
            raise DamagedDump(
                f"view {view} of the row with id {ids[wrong[0]]!s} has {shown}: {rule}"
            )
    is_there = pc.is_valid(table[VIEW_HASH]).to_numpy()
    if len(wrong := np.flatnonzero(is_there != plan.is_hashed(ids, view))):
        word = "a" if is_there[wrong[0]] else "no"
        raise DamagedDump(
            f"view {view} of the row with id {ids[wrong[0]]!s} has {word} {VIEW_HASH}, and by the "
            f"data seed {plan.data_seed} it is one of those with{'out' * (word == 'a')} one"
        )


def _check_mixing(plan: Plan, mixing: Mixing, table: pa.Table, view: int) -> None:
    """Of the rows of one view, what can be known of how they are mixed without the other shards.
    Raises DamagedDump."""
    ids, partners = read_ids(table["id"], "id"), read_ids(table[PARTNER], PARTNER)
    columns = {name: table[name].to_numpy() for name in mixing.columns}
    alone = mixing.unmixed(len(ids))
    differs = [columns[name] != values for name, values in alone.items() if name != MIX]
    weight = columns[WEIGHT]
    wrong = [
        (~((weight >= 0) & (weight <= 1)), f"a {WEIGHT} outside 0 to 1"),
        (columns[MIX] > CUTMIX, f"a {MIX} beyond {CUTMIX}"),
        (
            (columns[MIX] == UNMIXED) & np.any(differs, axis=0),
            "a weight or a box, and is not mixed",
        ),
        ((partners == ids) == (view != CLEAN), "the wrong partner: itself in view 0 alone"),
    ]
    for rows, what in wrong:
        if rows.any():
            raise DamagedDump(f"view {view} of the row with id {ids[rows][0]!s} has {what}")
    if plan.labelled:
        labels = read_labels(
            plan, PARTNER_LABEL, table[PARTNER_LABEL],
            lambda row: f"the row with id {ids[row]!s}",
        )  # fmt: skip
        if view == CLEAN and differing(labels, of_column(table["label"])).any():
            raise DamagedDump(f"{PARTNER_LABEL} of view 0 is not the label")


def _planned(
    plan: Plan, commit: Commit, ids: np.ndarray, hashes: np.ndarray, labels: Labels
) -> tuple[np.ndarray, np.ndarray, Labels]:
    """Stored inputs and those that were left out, in the source's order. Raises DamagedDump where
    they are not the ones of which the plan and the commit keep a fingerprint."""
    start, stop = plan.bounds(commit.shard)
    skipped = commit.skipped
    if len(ids) + len(skipped) != stop - start:
        raise DamagedDump(
            f"it has {len(ids)} inputs and {len(skipped)} left out; the plan gives it "
            f"{stop - start}"
        )
    places = {entry.row for entry in skipped}
    if len(places) < len(skipped) or any(not start <= row < stop for row in places):
        raise DamagedDump("the rows that were left out of it are not rows of it")
    listed = [not isinstance(entry.label, int) for entry in skipped]
    if any(is_list != plan.several_labels for is_list in listed):
        raise DamagedDump("a row that was left out of it has a label of another kind than the rows")
    planned = put_back(ids, hashes, labels, skipped, start)
    keys, rows = fingerprints(*planned)
    if keys != plan.source.shards[commit.shard]:
        raise DamagedDump(
            f"its ids or labels are not those of the source's rows {start:,} to {stop - 1:,}"
        )
    if rows != commit.fingerprint:
        raise DamagedDump("its input hashes are not those that its record has a fingerprint of")
    return planned


def sha256_of(path: str) -> str:
    """Of a file's bytes, in hex."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(CHUNK))
    with open(path, "rb", buffering=0) as file:
        while read := file.readinto(buffer):
            digest.update(buffer[:read])
    return digest.hexdigest()


def _whose(path: str, plan: Plan, commit: Commit) -> str:
    """What a file of the right size and the wrong hash is."""
    try:
        with pq.ParquetFile(path) as parquet:
            check_footer(parquet, plan, commit.shard, commit.rows)
    except (DamagedDump, *PARQUET_ERRORS) as error:
        return f"is not the file that was written: {error}"
    return "has other bytes than were written (SHA-256 differs)"
