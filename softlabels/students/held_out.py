"""The rows that a checkpoint's training held out, drawn again from what it remembers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from softlabels.errors import AlignmentError, StoreError, UsageError
from softlabels.inputs.sources import BLOCK_ROWS, Source
from softlabels.places.folders import dump_folder
from softlabels.store.inputs import Join
from softlabels.store.ledger import read_manifest
from softlabels.store.reader import DumpReader
from softlabels.system.humanize import counted, few
from softlabels.system.progress import Progress
from softlabels.targets.holdout import choose_rows

FITTING = "--mix-weights fit"


@dataclass(frozen=True)
class Held:
    """positions: where the rows stand in the source, int64; None for all of it. hashes: of their
    inputs, uint64, where a dump has them."""

    positions: np.ndarray | None = None
    hashes: np.ndarray | None = None


def held_out(
    title: str,
    remembered: dict[str, Any],
    source: Source,
    dumps: Sequence[str],
    progress: Progress,
    asked: str = "--holdout",
) -> Held:
    """The rows of the source that were held out. remembered: the checkpoint's `data`.

    dumps: where the dump of a student is, if not where the checkpoint says: one of these.
    asked: the option that needs them.

    Raises UsageError where it held out none, or doesn't say, AlignmentError where the data, or the
    dump, are not what they were.
    """
    drawn = remembered.get("held_out")
    if drawn is None:
        raise UsageError(
            f"--holdout: {title} does not say which rows its training held out; it is for "
            f"checkpoints of softlabels fit and train. Leave it out, and name data with --data"
        )
    if not drawn["holdout"]:
        raise UsageError(
            f"--holdout: the training of {title} held out no rows (--holdout 0); measure it on "
            f"other data, with --data or --split"
        )
    if "plan" not in remembered:
        if source.fingerprint != remembered["fingerprint"]:
            raise AlignmentError(
                f"{asked}: {source.data!r}, split {source.split!r}, is not what {title} was "
                f"trained on: the fingerprint of its rows is {source.fingerprint}, and was "
                f"{remembered['fingerprint']}. Which rows were held out is known only of the same "
                f"data, with the same columns"
            )
        return Held(_drawn(len(source), drawn, progress))
    reader = _reader(title, remembered, dumps, asked)
    rows = _drawn_inputs(reader, drawn, progress)
    held = Held(Join(source, str(reader.folder)).positions(reader.ids[rows]), reader.hashes[rows])
    _check_inputs(held, source, title)
    return held


def held_rows(
    held: Held,
    title: str,
    remembered: dict[str, Any],
    source: Source,
    reader: DumpReader,
    asked: str = "--holdout",
) -> np.ndarray:
    """The rows of a dump whose inputs are the held-out ones of the source, int64.

    Raises AlignmentError for a dump of other data.
    """
    assert held.positions is not None, "they were drawn"
    if reader.plan.hash != remembered.get("plan"):
        keys, _ = source.key_fingerprints(reader.plan.shard_inputs)
        if keys != reader.plan.source.fingerprint:
            raise AlignmentError(
                f"{asked} --against {reader.folder}: that is no dump of {source.data!r}, split "
                f"{source.split!r}, as {title} was trained on: ids or labels differ. Measure "
                f"against it without {asked}"
            )
    return np.flatnonzero(np.isin(reader.ids, source.ids[held.positions]))


def rows_to_fit(
    title: str,
    remembered: dict[str, Any],
    source: Callable[[], Source],
    dumps: Sequence[str],
    reader: DumpReader,
    progress: Progress,
) -> np.ndarray:
    """The rows of a dump, int64, on which weights of a mixture are fitted: of each held-out input
    one, as in training. Of a student the dumps alone say which these are.

    source: opens the data of the training of a model that is no student.
    dumps: of the mixture; all have the same rows. reader: of that whose rows are numbered.

    Raises UsageError, StoreError or AlignmentError as `held_out` and `held_rows` do.
    """
    drawn = remembered.get("held_out") or {}
    if not drawn.get("holdout"):
        raise UsageError(
            f"{FITTING} fits them on the rows that the training of a checkpoint held out, and "
            f"{title} held out none, or does not say which; give numbers such as --mix-weights "
            f"0.7,0.3"
        )
    inputs = reader.view_rows[0]
    if "plan" in remembered:
        learned = _reader(title, remembered, dumps, FITTING)
        ids = learned.ids[_drawn_inputs(learned, drawn, progress)]
        return inputs[np.isin(reader.ids[inputs], ids)]
    opened = source()
    held = held_out(title, remembered, opened, dumps, progress, FITTING)
    return np.intersect1d(inputs, held_rows(held, title, remembered, opened, reader, FITTING))


def _drawn_inputs(reader: DumpReader, drawn: dict[str, Any], progress: Progress) -> np.ndarray:
    """The rows of the held-out inputs, in their view as they are."""
    inputs = reader.view_rows[0]
    return inputs[_drawn(len(inputs), drawn, progress)]


def _drawn(total: int, drawn: dict[str, Any], progress: Progress) -> np.ndarray:
    """The numbers of the held-out inputs among all."""
    _, held = choose_rows(
        total, None, holdout=drawn["holdout"], rows=None, data_seed=drawn["data_seed"]
    )
    progress.say(
        f"{counted(len(held), 'row')} that training held out: a fraction of {drawn['holdout']:g} "
        f"of {total:,}, drawn by data seed {drawn['data_seed']}"
    )
    return held


def _reader(title: str, remembered: dict[str, Any], dumps: Sequence[str], asked: str) -> DumpReader:
    """The dump that the student learned from, and its shards."""
    found: dict[str, str] = {}
    for place in dumps or [remembered["dump"]]:
        try:
            folder = dump_folder(place, "nothing")
            _, plan = read_manifest(folder)
        except StoreError as error:
            raise StoreError(
                f"{asked}: {title} is a student of the dump {remembered['dump']}, whose rows "
                f"were held out, and {place} can't be read: {error}. Say where it is with --against"
            ) from error
        if plan.hash == remembered["plan"]:
            return DumpReader(folder, remembered.get("shards"))
        found[place] = plan.hash
    places, hashes = few(list(found)), few(list(found.values()))
    raise AlignmentError(
        f"{asked}: {places} is not the dump that {title} learned from: its plan is {hashes}, and "
        f"was {remembered['plan']}. Name that one with --against"
    )


def _check_inputs(held: Held, source: Source, title: str) -> None:
    """Raises AlignmentError where the source has other inputs now."""
    assert held.positions is not None and held.hashes is not None  # noqa: PT018
    wrong: list[Any] = []
    for start in range(0, len(held.positions), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        block = source.take(held.positions[part])
        wrong += block.ids[block.hashes != held.hashes[part]].tolist()
    if wrong:
        raise AlignmentError(
            f"--holdout: {len(wrong):,} of the {len(held.positions):,} rows of {source.data!r}, "
            f"split {source.split!r}, that were held out are not what {title} was trained beside: "
            f"first those with id {', '.join(map(str, wrong[:5]))}"
        )
