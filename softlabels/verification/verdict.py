"""The verb `verify`: check a dump, from its bytes to its teacher's answers."""

import os
import time
from dataclasses import dataclass, field

import numpy as np

from softlabels.errors import DamagedDump, IncompleteDump
from softlabels.inputs.hashing import Fingerprint, ascending
from softlabels.inputs.whereabouts import recall
from softlabels.options import VerifyOptions, verb
from softlabels.places.folders import dump_folder
from softlabels.reports.card import card_is_good
from softlabels.reports.doubts import codec_errors, guessing
from softlabels.reports.recipe import again, what_is_teacher
from softlabels.store.claims import writer_of
from softlabels.store.folder import MADE_HERE, Folder
from softlabels.store.ledger import Ledger
from softlabels.store.names import CARD, MANIFEST, PLAN, commit_name
from softlabels.store.pilots import STOPPED
from softlabels.store.reader import DumpReader
from softlabels.store.records import Commit, Manifest, Plan, Skipped, Statistics
from softlabels.store.shard_check import Finding, check_shards, sha256_of
from softlabels.store.side_files import REMEDY as LOST
from softlabels.store.side_files import SHARED
from softlabels.system.humanize import counted
from softlabels.system.progress import Progress
from softlabels.teachers.resolving import TeacherChoice
from softlabels.verification.rechecks import Replay, Rerun, replay
from softlabels.verification.source_check import recheck_source


@dataclass
class Verdict:
    """The result of `verify`. good: whether there are no findings.

    findings: the damage, by file.
    warnings: what may be wrong, or may be intended.
    rows, shards, bytes, seconds: how much was read, and how long that took.
    labelled, correct, accuracy: the teacher's, counted from the stored logits; of several labels a
    row, how often the top label is one of them.
    positives: how many labels the rows have in all, where they may have several; else None.
    source_checked: whether the inputs were hashed again.
    views_made: how many views were made again then, of which the pixels were hashed; None where the
    dump has none.
    remedy: how to redo damaged files.
    replay: what the teacher gives now, where that was asked for.
    """

    path: str
    complete: bool = False
    findings: list[Finding] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    rows: int = 0
    shards: int = 0
    bytes: int = 0
    seconds: float = 0.0
    labelled: int = 0
    correct: int = 0
    positives: int | None = None
    source_checked: bool = False
    views_made: int | None = None
    remedy: str = ""
    replay: Replay | None = None

    def __repr__(self) -> str:
        word = "good" if self.good else counted(len(self.findings), "problem")
        checked = f"{counted(self.rows, 'row')} of {counted(self.shards, 'shard')} checked"
        first = f", first {self.findings[0]}" if self.findings else ""
        return f"Verdict({self.path}: {word}, {checked}{first})"

    @property
    def good(self) -> bool:
        return not self.findings

    @property
    def accuracy(self) -> float | None:
        return self.correct / self.labelled if self.labelled else None

    def report(self, file: str, problem: str, redone: bool = True) -> None:
        self.findings.append(Finding(file, problem, redone))


@verb(VerifyOptions)
def verify(options: VerifyOptions, progress: Progress) -> Verdict:
    """Check a dump's structure, counts, ids, hashes and finite values. Nothing is changed.

    Raises StoreError where there is no dump, TeacherError or SourceError where the teacher or the
    source can't be opened. Damage is not raised: it is in the verdict.
    """
    folder = dump_folder(options.dump, progress=progress)
    verdict = Verdict(options.dump, remedy=folder.remedy)
    began = time.perf_counter()
    ledger = Ledger(folder)
    plan, manifest = _read_records(ledger, verdict)
    if plan is not None:
        ledger.plan = plan
        verdict.remedy = _remedy(folder, plan, bool(manifest and manifest.skipped))
        commits = _check_records(ledger, manifest, verdict)
        _find_strays(ledger, verdict)
        _check_side_files(folder, plan, verdict)
        _check_files(
            folder, plan, commits, options.workers or os.cpu_count() or 1, verdict, progress
        )
        recorded = Statistics.merge([c.statistics for c in commits if c.statistics])
        each = len(plan.views) * (recorded.positions_each if recorded else 1)
        counts = verdict.correct, verdict.labelled, verdict.positives
        verdict.warnings += guessing(*counts, plan.classes, each)
        verdict.warnings += codec_errors(plan, commits)
    verdict.seconds = time.perf_counter() - began
    if options.source or options.replay:
        _go_further(folder, options, verdict, progress)
    return verdict


def _remedy(folder: Folder, plan: Plan, skipped: bool) -> str:
    """The folder's remedy; for a dump that was made there, the whole command.

    skipped: whether rows were left out of it.
    """
    if folder.origin != MADE_HERE or plan.is_imported:
        return folder.remedy
    data = recall(plan.source.identity) if plan.source.origin == "local" else None
    command = again(plan, skipped, data, str(folder))
    return f"run {command}{what_is_teacher(plan)}: it redoes only what is damaged"


def _read_records(ledger: Ledger, verdict: Verdict) -> tuple[Plan | None, Manifest | None]:
    """The plan, as the manifest or plan.json has it, and the manifest if there is one."""
    manifest = plan = frozen = None
    folder = ledger.folder
    try:
        manifest = ledger.complete()
        plan, verdict.complete = manifest.plan, True
    except DamagedDump as error:
        verdict.report(MANIFEST, _without_name(folder, MANIFEST, error))
    except IncompleteDump as error:
        writer = writer_of(folder)
        verdict.report(MANIFEST, f"{error}" if writer is None else f"is being made by {writer}")
    try:
        frozen = ledger.read_plan()
        if frozen is None:
            verdict.report(PLAN, "is missing")
        elif plan is not None and frozen != plan:
            verdict.report(PLAN, "is not the plan that the manifest holds")
    except DamagedDump as error:
        verdict.report(PLAN, _without_name(folder, PLAN, error))
    if manifest is not None and plan is not None and not card_is_good(folder, manifest, plan):
        what = "its header does not list this dump's rows" if folder.exists(CARD) else "is missing"
        verdict.report(CARD, f"{what}; without that, `datasets` would not notice a missing shard")
    return plan or frozen, manifest


def _without_name(folder: Folder, name: str, error: Exception) -> str:
    return str(error).removeprefix(f"{folder}/{name}").lstrip(":, ")


def _check_records(ledger: Ledger, manifest: Manifest | None, verdict: Verdict) -> list[Commit]:
    """The record that each shard is checked against: the manifest's, else its commit's."""
    folder, plan = ledger.folder, ledger.plan
    records = ledger.refresh()
    for name, error in ledger.problems.items():
        redone = isinstance(error, DamagedDump)
        verdict.report(name, _without_name(folder, name, error), redone=redone)
    if manifest is None:
        return [records[shard] for shard in sorted(records)]
    skipped: dict[int, list[Skipped]] = {}
    for entry in manifest.skipped:
        skipped.setdefault(entry.row // plan.shard_inputs, []).append(entry)
    commits = []
    for shard, record in enumerate(manifest.shards):
        commit, name = records.get(shard), commit_name(shard)
        if name in ledger.strangers:
            verdict.report(name, "is of another plan or another shard")
        elif commit is None and name not in ledger.problems:
            verdict.report(name, "is not a file" if folder.exists(name) else "is missing")
        elif commit is not None and commit.record != record:
            other = ", ".join(key for key, value in record if getattr(commit, key) != value)
            verdict.report(name, f"does not agree with {MANIFEST} in {other}")
        commits.append(
            Commit(
                shard=shard,
                plan=plan.hash,
                **dict(record),
                statistics=commit.statistics if commit else None,
                skipped=skipped.get(shard, []),
            )
        )
    if len(records) == plan.shards and verdict.good:
        derived = Manifest.derive(plan, [records[shard] for shard in range(plan.shards)], {})
        if not manifest.agrees(derived):
            verdict.report(MANIFEST, "does not agree with the commits of its shards")
    return commits


def _find_strays(ledger: Ledger, verdict: Verdict) -> None:
    split = f"data/{ledger.plan.source.split}-"
    for stray in ledger.strays():
        read = stray.name.startswith(split) and stray.name.endswith(".parquet")
        more = "; readers of the folder would read its rows too" if read else ""
        verdict.report(stray.name, f"{stray}{more}", redone=stray.shard is not None)


def _check_side_files(folder: Folder, plan: Plan, verdict: Verdict) -> None:
    for name, sha256 in plan.shared.items():
        try:
            with folder.local(name) as path:
                if sha256_of(path) != sha256:
                    problem = f"has other bytes than the plan has (SHA-256 differs); {LOST}"
                    verdict.report(name, problem, redone=False)
        except FileNotFoundError:
            verdict.report(name, f"is missing; {LOST}", redone=False)
    strange = set(folder.names(SHARED)) - set(plan.shared) if plan.shared else set()
    for name in sorted(strange):
        verdict.report(name, "is not a side file of this dump", redone=False)


def _check_files(
    folder: Folder,
    plan: Plan,
    commits: list[Commit],
    workers: int,
    verdict: Verdict,
    progress: Progress,
) -> None:
    whole, ids_ascend, last = Fingerprint(), True, np.empty(0)
    with progress.bar("verify", len(commits), "shards") as advance:
        known = not any(finding.file in plan.shared for finding in verdict.findings)
        checks = check_shards(folder, plan, commits, workers, decode=known)
        for commit, checked in zip(commits, checks, strict=True):
            verdict.findings += checked.findings
            verdict.shards += 1
            verdict.bytes += checked.read
            verdict.labelled += checked.labelled
            verdict.correct += checked.correct
            if checked.positives is not None:
                verdict.positives = (verdict.positives or 0) + checked.positives
            if checked.planned is not None:
                verdict.rows += commit.rows
                ids, _, labels = checked.planned
                whole.update(ids, labels)
                ids_ascend = ids_ascend and ascending([last, ids] if len(last) else [ids])
                last = ids[-1:]
            advance(1)
    if not verdict.complete or not verdict.good:
        return
    if str(whole) != plan.source.fingerprint:
        verdict.report(MANIFEST, "the fingerprint of the source's keys is not that of the rows")
    if not ids_ascend and len(np.unique(DumpReader(folder).ids)) * len(plan.views) < verdict.rows:
        verdict.report(MANIFEST, "an id comes twice" + " in a view" * plan.has_views)


def _go_further(
    folder: Folder, options: VerifyOptions, verdict: Verdict, progress: Progress
) -> None:
    if not verdict.complete or not verdict.good:
        verdict.warnings.append(
            "the source and the teacher were not checked: repair the files first"
        )
        return
    reader = DumpReader(folder)
    if options.source:
        checked = recheck_source(reader, options.data, progress)
        for problem in checked.findings:
            verdict.report("the source", problem, redone=False)
        verdict.source_checked, verdict.views_made = True, checked.views_made
    if options.replay:
        verdict.replay = replayed = replay(
            reader, options.part(TeacherChoice), options.part(Rerun), options.data, progress
        )
        if not replayed.steady and reader.plan.batch_size is None:
            verdict.warnings.append(
                f"the teacher does not agree with itself: the same rows in other batches differ by "
                f"up to {replayed.control:.2g}. Is there dropout or batch statistics in it?"
            )
        pilot = reader.plan.pilot
        if pilot is not None and pilot.is_exceeded(replayed.kl, replayed.rows, STOPPED):
            verdict.report(
                "logits",
                f"the soft targets of {replayed.rows} replayed rows are a mean KL of "
                f"{replayed.kl:.2g} nats from the teacher's at T = 1; the pilot of the codec "
                f"{reader.plan.codec} measured {pilot.at_one.mean:.2g}",
                redone=False,
            )
        if replayed.wrong:
            shown = ", ".join(map(str, replayed.wrong[:5]))
            verdict.report(
                "logits",
                f"{len(replayed.wrong)} of {replayed.rows} replayed rows are farther from the "
                f"teacher's answers than {replayed.allowed:.2g} and the rounding, first id {shown}",
                redone=False,
            )
