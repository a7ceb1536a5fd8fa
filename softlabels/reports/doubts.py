"""What a finished dump gives reason to doubt: warnings at the end of `dump` and `import`, and of
`verify`."""

from collections.abc import Iterator

from softlabels.measures import is_like_guessing
from softlabels.store.pilots import WARNED
from softlabels.store.records import Commit, Manifest, Plan


def doubts(manifest: Manifest, plan: Plan) -> Iterator[str]:
    """The warnings that a dump ends with."""
    statistics = manifest.statistics
    if statistics is None:
        return
    each = statistics.positions_each * len(plan.views)
    counts = statistics.correct, statistics.labelled, statistics.positives
    yield from guessing(*counts, plan.classes, each)
    pilot, most = plan.pilot, statistics.kl_most
    rows = plan.shard_inputs * len(plan.views)
    if pilot and most is not None and pilot.is_exceeded(most, rows, WARNED):
        yield (
            f"the codec {plan.codec} changes the soft targets of a shard by a mean KL of "
            f"{most:.2g} nats at T = 1, and the pilot measured {pilot.at_one.mean:.2g}: some rows "
            f"are not like the others. Look at softlabels info, or store with --codec dense"
        )
    if statistics.truncated:
        yield (
            f"of {statistics.truncated:,} of {manifest.inputs:,} texts the teacher saw the "
            f"beginning alone, as was asked for ({plan.preprocess})"
        )
    if statistics.unmixed:
        yield (
            f"{statistics.unmixed:,} of {manifest.rows:,} rows are not mixed, since the picture of "
            f"their partner can't be read: their mix is 0, and the teacher saw them alone"
        )
    if statistics.unturned:
        yield (
            f"{statistics.unturned:,} of {manifest.inputs:,} images carry an EXIF "
            f"orientation and were fed as stored, as torchvision does; put upright first in "
            f"--preprocess to turn them"
            + ("; `datasets` turns the inputs in this dump" if plan.with_inputs else "")
        )


def guessing(
    correct: int, labelled: int, positives: int | None, classes: int, each: float
) -> Iterator[str]:
    """A warning where the teacher, as stored, knows the labels no better than chance; for the
    numbers see `is_like_guessing`."""
    if is_like_guessing(correct, labelled, classes, each, positives):
        what = "accuracy is" if positives is None else "top label is one of a row's labels in"
        yield (
            f"the teacher's {what} {correct / labelled:.4f}, no better than guessing among "
            f"{classes} classes: are these the labels and the preprocessing it knows, and the rows "
            f"and classes in its order?"
        )


def codec_errors(plan: Plan, commits: list[Commit]) -> Iterator[str]:
    """A warning for each shard on which the codec errs more than on the pilot, by their records."""
    for commit in commits:
        statistics, pilot = commit.statistics, plan.pilot
        if pilot is None or statistics is None or statistics.kl is None:
            continue
        if pilot.is_exceeded(statistics.kl, statistics.scored, WARNED):
            yield (
                f"{commit.file}: the codec {plan.codec} changed its soft targets by a mean KL of "
                f"{statistics.kl:.2g} nats at T = 1; the pilot measured {pilot.at_one.mean:.2g}"
            )
