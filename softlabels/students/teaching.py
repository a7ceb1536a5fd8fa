"""What a student learns from, or is measured against: one dump, or a mixture of several."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from softlabels.errors import UsageError
from softlabels.mixtures import Space
from softlabels.places.folders import dump_folder
from softlabels.places.siblings import named_dumps, siblings_in
from softlabels.store.ledger import read_manifest
from softlabels.system.humanize import counted, few
from softlabels.system.progress import Progress
from softlabels.targets.mixed import Mixed, Trainable
from softlabels.targets.side_by_side import SideBySide
from softlabels.targets.soft_dataset import Dump, SoftDataset
from softlabels.targets.weighting import Fitted, Weights, is_fit

Opened = Callable[[Any], SoftDataset]  # from a path, or from paths by name
Paths = Sequence[str] | Mapping[str, str]


@dataclass(frozen=True)
class Teaching:
    """title: of the dump or the mixture, for people.
    places: of each dump by its name; of one dump its place alone, by an empty name."""

    dataset: Trainable
    title: str
    places: dict[str, str]
    teachers: SideBySide | None = None

    @property
    def base_place(self) -> str:
        return next(iter(self.places.values()))

    @property
    def identity(self) -> str:
        """What its rows are, and of one dump its targets, wherever the dumps lie."""
        return self.dataset.base.identity

    @property
    def remembered(self) -> dict[str, Any]:
        """For the checkpoint. Of a mixture `dump` is the one whose rows these are."""
        if not isinstance(self.dataset, Mixed) or self.teachers is None:
            return {"dump": self.base_place}
        members = {
            name: {
                "dump": place,
                "plan": self.teachers.dumps[name].reader.plan.hash,
                "weight": self.dataset.weights.get(name, 0.0),
            }
            for name, place in self.places.items()
        }
        return {"dump": self.base_place, "mix": self.dataset.space, "teachers": members}


def one_dump(dumps: Paths, opened: Opened) -> Teaching:
    """Raises UsageError for a folder that holds dumps and is none."""
    place = next(iter(dumps.values() if isinstance(dumps, Mapping) else dumps))
    if siblings := siblings_in(place):
        several = ", or make one teacher of them by --mix prob or --mix logit"
        raise UsageError(
            f"{place} is no dump and holds {counted(len(siblings), 'dump')}, "
            f"{few(list(siblings))}: name one{several * (len(siblings) > 1)}"
        )
    dataset = opened(place)
    assert isinstance(dataset, Dump), "one folder was named"
    return Teaching(dataset, place, {"": place})


def mixture(
    dumps: Paths,
    space: Space,
    weights: Weights,
    fit: Callable[[SideBySide], Fitted],
    opened: Opened,
    progress: Progress,
    on_first: Callable[[Callable[[], Any]], Any] = lambda work: work(),
) -> Teaching:
    """Several dumps as one teacher.

    fit: fits weights, where they are `fit`.
    on_first: calls a function on the first rank, and gives its result to all.

    Raises UsageError where only one is named, StoreError where that is none, and as
    `SideBySide.mix` does.
    """
    if not dumps:
        raise UsageError(
            f"--mix is {space!r}, and no dump is named; name two or more, or a folder that holds "
            f"them"
        )
    places = named_dumps(dumps, progress)
    if len(places) == 1:
        (place,) = places.values()
        read_manifest(dump_folder(place, "nothing"))  # refuses what is no dump
        raise UsageError(
            f"--mix is {space!r}, and there is one dump, {place}; name two or more, or a folder "
            f"that holds them, or leave out --mix"
        )
    teachers = opened(places)
    assert isinstance(teachers, SideBySide), "several were named"
    if is_fit(weights):
        fitted = on_first(lambda: fit(teachers))
        progress.say(str(fitted))
        # other processors and numbers of threads differ in the last digits
        weights = {name: round(weight, 4) for name, weight in fitted.weights.items()}
    mixed = teachers.mix(space, weights)
    return Teaching(mixed, f"{mixed.title} of {few(list(places.values()))}", places, teachers)
