"""What `info` says: of one dump by its records, of several teachers over the same rows by all of
their logits."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from softlabels.errors import AlignmentError, UsageError
from softlabels.logits import Logits
from softlabels.mixtures import Space, mix
from softlabels.places.folders import dump_folder
from softlabels.places.siblings import named_dumps
from softlabels.reports.ensemble import Block, Ensemble, survey_ensemble
from softlabels.reports.info import Info, dump_info
from softlabels.store.ledger import read_manifest
from softlabels.system.humanize import counted, fact_lines, few, html_table, short
from softlabels.system.progress import SILENT, Progress
from softlabels.targets.abreast import blocks_of, open_teachers
from softlabels.targets.mixed import Mixed
from softlabels.targets.side_by_side import SideBySide
from softlabels.targets.soft_dataset import Dump, SoftDataset
from softlabels.targets.weighting import Fitted, Weights, is_fit

Paths = str | Path | Sequence[str | Path] | Mapping[str, str | Path]


class TeachersInfo(dict[str, Any]):
    """What `info` returns for several teachers; a notebook shows its measures as a table.

    lines: as text: what was measured, a line for each teacher and one for the mixture, the pairs.
    """

    def __init__(self, lines: list[str], **values: Any) -> None:
        super().__init__(values)
        self.lines = lines

    def __repr__(self) -> str:
        size = f"{self['rows']:,} rows × {self['classes']:,} classes"
        return f"TeachersInfo({few(list(self['teachers']))}: {size})"

    def _repr_html_(self) -> str:
        measured = self["teachers"] | ({"mixture": self["mixture"]} if self["mixture"] else {})
        return html_table({
            f"{name}, {what}": value
            for name, found in measured.items()
            for what, value in found.items()
            if isinstance(value, int | float)
        })  # fmt: skip


def info(
    path: Paths | SoftDataset,
    per_class: bool = False,
    *,
    mix: Space | None = None,
    mix_weights: Weights = None,
    progress: Progress = SILENT,
) -> Info | TeachersInfo:
    """Describe a dump, or measure several teachers over the same rows, and their mixture.

    path: a folder, an address or ORG/NAME. Several of them, also by name, or with `mix` a folder
        that holds dumps, are several teachers; so is what `load` gave for several, mixed or not.
    per_class: of one dump: read all logits and add `per_class`, the teacher's measures of each
        class, as those of `evaluate`; of several labels a row also the mean average precision to
        the facts.
    mix: prob or logit, how the teachers are one; see `SideBySide.mix`. mix_weights: of each teacher
        in their order or by name, or fit.

    Of one dump: `facts`, with numbers as numbers, and the `manifest` as written. Of several, from a
    pass over all logits, two where rows have several labels: `teachers`, of each by name its
    accuracy, top5, nll, ece and entropy at T = 1, as `evaluate` has them, or of several labels
    `map`; `mixture`, the same of the mixture; `diversity`: agreement and kl, the means over all
    pairs of teachers, and `pairs`, with KL in both directions. Without labels there is no accuracy.
    Rows, labels and views are the first dump's; labels of mixed inputs do not count.

    Raises UsageError for options that don't fit, and for a dump without labels of the teacher's
    classes where per_class asks for them; IncompleteDump for an unfinished one, StoreError or
    DamagedDump for other folders; AlignmentError or LabelSpaceMismatch for teachers of other rows
    or classes.
    """
    if isinstance(path, Dump) and mix is None and mix_weights is None:
        return dump_info(str(path.reader.folder), per_class)
    if isinstance(path, SoftDataset):
        _refuse("a data set that is loaded is measured as it is", per_class, mix, mix_weights)
        return _measure(_Chosen.of_dataset(path), progress)
    if isinstance(path, str | Path) and mix is None:
        _refuse("one dump is not mixed; say --mix prob or --mix logit", mix_weights=mix_weights)
        return dump_info(path, per_class)
    _refuse("several dumps are measured as a whole", per_class)
    places = named_dumps(path, progress)
    if len(places) == 1 and mix is not None:
        (place,) = places.values()
        read_manifest(dump_folder(place, "nothing"))  # refuses what is no dump
        raise UsageError(
            f"--mix is {mix}, and {place} is one dump; name several, or a folder that holds several"
        )
    if len(places) == 1:
        return info(next(iter(places.values())), mix_weights=mix_weights)
    if mix is None:
        _refuse("several dumps are mixed by --mix prob or --mix logit", mix_weights=mix_weights)
    teachers = open_teachers(places, progress)
    return _measure(_Chosen.of_teachers(teachers, mix, mix_weights), progress)


def _refuse(
    why: str, per_class: bool = False, mix: Space | None = None, mix_weights: Weights = None
) -> None:
    for name, value in (("--per-class", per_class or None), ("--mix", mix),
                        ("--mix-weights", mix_weights)):  # fmt: skip
        if value is not None:
            raise UsageError(f"{name} is {value!r}, and {why}; leave it out")


@dataclass(frozen=True)
class _Chosen:
    """Teachers, how they are mixed, if they are, and the weights' origin, if they were fitted."""

    teachers: SideBySide
    space: Space | None = None
    weights: Mapping[str, float] | None = None
    fitted: Fitted | None = None

    @classmethod
    def of_dataset(cls, dataset: SoftDataset) -> "_Chosen":
        if isinstance(dataset, SideBySide):
            return cls(dataset)
        if isinstance(dataset, Mixed) and isinstance(dataset.teachers, SideBySide):
            return cls(dataset.teachers, dataset.space, dataset.weights)
        raise UsageError(
            f"{dataset!r} is not measured; info takes a dump, several by name as load({{…}}) gives "
            f"them, and their mixture"
        )

    @classmethod
    def of_teachers(cls, teachers: SideBySide, space: Space | None, weights: Weights) -> "_Chosen":
        if space is None:
            return cls(teachers)
        fitted = teachers.fit_weights(space) if is_fit(weights) else None
        mixed = teachers.mix(space, weights if fitted is None else fitted.weights)
        return cls(teachers, space, mixed.weights, fitted)

    def weight(self, name: str) -> dict[str, float]:
        """That of a teacher in the mixture; empty where nothing is mixed."""
        return {} if self.weights is None else {"weight": self.weights.get(name, 0.0)}

    def blocks(self) -> Iterator[Block]:
        """All rows, in the order of the first dump."""
        for block in blocks_of(self.teachers):
            yield replace(block, mixture=self._mixture(block.teachers))

    def _mixture(self, targets: Mapping[str, Logits]) -> Logits | None:
        if self.space is None or self.weights is None:
            return None
        members = [targets[name] for name in self.weights]
        return mix(members, list(self.weights.values()), self.space)


def _measure(chosen: _Chosen, progress: Progress) -> TeachersInfo:
    teachers = chosen.teachers
    for difference in teachers.differences():
        if difference.error is not AlignmentError:  # rows that are left out are fine
            raise difference.error(difference.text)
    plan = teachers.base.reader.plan
    several = plan.task == "multilabel"
    passes = 2 if several and plan.labelled else 1
    with progress.bar("survey", passes * len(teachers), "rows") as advance:

        def blocks() -> Iterator[Block]:
            for block in chosen.blocks():
                yield block
                advance(len(block.labels))

        found = survey_ensemble(blocks, list(teachers.dumps), plan.classes, several)
    teachers.settle()
    return _told(chosen, found)


def _told(chosen: _Chosen, found: Ensemble) -> TeachersInfo:
    base, dumps, fitted = chosen.teachers.base, chosen.teachers.dumps, chosen.fitted
    source = base.reader.plan.source
    labelled = max((measures.get("rows", 0) for measures in found.measures.values()), default=0)
    rows = _rows(base, labelled)
    about = {"measured on": f"{rows} of {short(source.data)}, split {source.split}"}
    if labelled:
        about["beware"] = "where a teacher was trained on these rows, its measures flatter it"
    if chosen.space is not None:
        about["mixture"] = f"by {chosen.space}" + ("" if fitted is None else f", {fitted}")
    teachers = {
        name: {"dump": str(dumps[name].reader.folder), **chosen.weight(name), **_bare(measures)}
        for name, measures in found.measures.items()
    }
    mixture = None if found.mixture is None else {"mix": chosen.space, **_bare(found.mixture)}
    told = Ensemble(teachers, mixture, found.diversity)
    return TeachersInfo(
        [*fact_lines(about), "", *told.lines],
        rows=len(base),
        labelled=labelled,
        classes=base.num_classes,
        views=base.view_numbers,
        source=source.data,
        split=source.split,
        **told.values,
        **({} if fitted is None else {"fitted": asdict(fitted)}),
    )


def _bare(measures: dict[str, Any]) -> dict[str, Any]:
    """Without the number of rows, which is that of all."""
    return {name: value for name, value in measures.items() if name != "rows"}


def _rows(base: Dump, labelled: int) -> str:
    """`1,200 rows`, of which inputs and views, and how many of them have a label."""
    text = counted(len(base), "row")
    if base.reader.plan.has_views:
        views = ", ".join(map(str, base.view_numbers))
        text += f" (views {views} of {counted(len(base.reader.view_rows[0]), 'input')})"
    if labelled < len(base):
        text += f", {labelled:,} with a label that counts," if labelled else ", without labels,"
    return text
