"""What a codec needs before the first shard: rows drawn over the whole set, on which it is fitted
and its error is measured. It happens once: a resume takes the files that are there.

N rows, C classes.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from softlabels.capture.planning import Setup
from softlabels.capture.reading import make_ready, read_ahead
from softlabels.capture.viewing import Viewing
from softlabels.errors import DamagedDump, TeacherError, UnreadableInput
from softlabels.store.codecs.codec import Codec, kl_at
from softlabels.store.codecs.kinds import Dense
from softlabels.store.folder import Folder
from softlabels.store.pilots import ErrorAt, Pilot
from softlabels.store.records import Plan
from softlabels.store.side_files import PILOT, PROBE, SideFiles, file_of, write_side_files
from softlabels.system.progress import Progress
from softlabels.teachers.probing import difference

SEED = 0  # of the rows that are drawn
TEMPERATURES = (0.5, 1.0, 2.0, 4.0, 8.0)
HELD_BACK = 4  # one pilot row of so many measures a codec that was fitted on the others
PROBES = 32  # rows whose answers a resume asks for again


def with_pilot(setup: Setup, draft: Plan, progress: Progress, folder: Folder) -> Plan:
    """The draft with the side files of its codec, which lie in the folder, and what it measured.
    Raises what a teacher and its inputs may."""
    codec = draft.make_codec()
    if not codec.pilot_rows:
        return draft
    drawn = draw(len(setup.source), codec.pilot_rows)
    verb = "fitted and measured" if codec.fits else "measured"
    progress.say(f"the codec {draft.codec} is {verb} on a pilot of {len(drawn):,} rows")
    rows, logits_NC = _answers(setup, draft, drawn)
    fitted, held = _parts(len(rows), codec.fits)
    files = codec.fit(Dense(logits_NC[fitted])) if codec.fits else {}
    # of all rows, fitted and held back alike: they tell of the teacher, not of the codec
    probes = np.linspace(0, len(rows) - 1, min(PROBES, len(rows))).round().astype(int)
    files = {**files, PROBE: {"logits": logits_NC[torch.from_numpy(probes)].float()}}
    hashes = write_side_files(folder, files)
    codec = draft.replace(shared=hashes).make_codec(folder)
    pilot = measured(codec, logits_NC[held])
    note = {
        "draft": draft.hash,
        "drawn": len(drawn),
        "probes": rows[probes].tolist(),
        "files": hashes,
        "pilot": pilot.as_json,
    }
    hashes = hashes | write_side_files(folder, {}, {PILOT: note})
    progress.say(f"KL(teacher ‖ stored): {pilot}")
    return draft.replace(shared=hashes, pilot=pilot)


def _parts(rows: int, fits: bool) -> tuple[Tensor, Tensor]:
    """Which pilot rows a codec is fitted on, and which measure it; a few are used for both."""
    every = torch.arange(rows)
    if not fits or rows < HELD_BACK:
        return every, every
    held = every % HELD_BACK == HELD_BACK - 1
    return every[~held], every[held]


def draw(total: int, count: int) -> np.ndarray:
    """So many of all rows, ascending; all, where there are no more."""
    if total <= count:
        return np.arange(total)
    return np.sort(np.random.default_rng(SEED).choice(total, count, replace=False))


def measured(codec: Codec, logits_NC: Tensor) -> Pilot:
    """The codec's error on these rows' raw logits."""
    parts_of: dict[float, list[Tensor]] = {T: [] for T in TEMPERATURES}
    for part_NC in logits_NC.split(256):
        stored = codec.encode(Dense(part_NC), list(range(len(part_NC))))
        for T, parts in parts_of.items():
            parts.append(kl_at(T, part_NC, codec, stored).double())
    kl = {T: torch.cat(parts) for T, parts in parts_of.items()}
    errors = [
        ErrorAt(T=T, mean=_not_below(kl_M.mean()), p99=_not_below(kl_M.quantile(0.99)))
        for T, kl_M in kl.items()
    ]
    spread = float(kl[1.0].std()) if len(kl[1.0]) > 1 else 0.0
    return Pilot(rows=len(logits_NC), spread=spread, kl=errors)


def _not_below(value: Tensor) -> float:
    return max(0.0, float(value))  # rounding may make less than nothing of it


def check_probes(setup: Setup, plan: Plan) -> None:
    """Ask the teacher again for the rows whose answers the pilot kept. Raises TeacherError where it
    gives others, so that half a dump would be another teacher's."""
    if PILOT not in plan.shared:
        return
    side_files = SideFiles(setup.folder, plan.shared)
    note = side_files.json(PILOT)
    before_NC = side_files.tensors(PROBE)["logits"]
    rows, now_NC = _answers(setup, plan, np.array(note["probes"], np.int64))
    if len(rows) != len(before_NC):
        raise DamagedDump(f"{setup.folder}/{file_of(PROBE)} has other rows than {PILOT} names")
    moved = difference("now", now_NC, before_NC, plan.link)
    limit = setup.answers.rounding
    if moved.size > limit:
        raise TeacherError(
            f"{setup.answers.title} answers otherwise than when {setup.folder} was "
            f"begun: a probability of the source's row {rows[moved.row]:,} differs by "
            f"{moved.size:.2g} (rounding: {limit:g} at most). Is it the same file, on the same "
            f"inputs, with the libraries of then? Bring them back, or dump into another folder"
        )


def left_behind(folder: Folder, draft: Plan) -> Plan:
    """The draft with what a pilot of it left in the folder, if its plan was lost, or could not be
    written any more."""
    if not draft.make_codec().pilot_rows:
        return draft
    try:
        note = folder.read_json(PILOT)
        plan = draft.replace(shared=dict(note["files"]), pilot=Pilot.parse(note["pilot"], PILOT))
        if note["draft"] != draft.hash:
            return draft
        for name in plan.shared:
            SideFiles(folder, plan.shared).read(name)
        Plan.parse(plan.as_json, PILOT)
    except (FileNotFoundError, DamagedDump, KeyError, TypeError, ValueError):
        return draft
    return plan.replace(shared=plan.shared | SideFiles.hashed(folder, PILOT))


def _answers(setup: Setup, plan: Plan, rows: np.ndarray) -> tuple[np.ndarray, Tensor]:
    """The rows that can be read, and the raw logits of one view of each, [N, C] on the CPU: of all
    views in turn, by a row's number in the source, so that a pilot is like the rows that are
    stored."""
    answers, pace, source = setup.answers, setup.pace, setup.source
    batches = [
        (Viewing(plan, answers.preprocess, [view]), of_view[start : start + pace.batch_size])
        for index, view in enumerate(plan.views)
        for of_view in [rows[rows % len(plan.views) == index]]
        for start in range(0, len(of_view), pace.batch_size)
    ]
    kept, parts = [], []
    with ThreadPoolExecutor(pace.readers) as readers:
        for ready in read_ahead(
            readers,
            lambda batch: make_ready(source.take(batch[1]), source, answers, pace, batch[0]),
            batches,
            2 * pace.readers,
        ):
            if len(ready.rows):
                parts.append(answers.answer(ready.rows, ready.inputs).wait().logits_NC)
                kept.append(ready.rows.numbers)
    if not kept:
        raise UnreadableInput(f"none of the {len(rows):,} rows drawn for the pilot can be read")
    order = np.argsort(numbers := np.concatenate(kept))
    return numbers[order], torch.cat(parts)[torch.from_numpy(order)]
