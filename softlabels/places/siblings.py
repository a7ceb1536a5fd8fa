"""The dumps of several teachers, by name: those that are named, or all that lie in one folder."""

import os
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from softlabels.errors import UsageError
from softlabels.places.folders import open_folder
from softlabels.places.hub_address import HubAddress
from softlabels.store.names import MANIFEST, PLAN
from softlabels.system.humanize import few
from softlabels.system.progress import SILENT, Progress

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def named_dumps(
    paths: Paths | Mapping[str, str | os.PathLike[str]], progress: Progress = SILENT
) -> dict[str, str]:
    """Dumps by the names of their teachers: a mapping as it is; several paths by the ends of these,
    as long as it takes to tell them apart; a folder of this disk that is no dump and holds dumps
    as the complete ones directly in it, by the names of their folders.

    Raises UsageError where nothing is named, or the same place twice, and for a name that is none.
    """
    if isinstance(paths, Mapping):
        for name in paths:
            if not isinstance(name, str) or not name.strip():
                raise UsageError(f"a teacher is called {name!r}; a name is a text")
        return {name: os.fspath(path) for name, path in paths.items()}
    several = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    places = [os.fspath(path) for path in several]
    if not places:
        raise UsageError("no dump is named; name a folder, an address, or several")
    if len(places) == 1 and (siblings := siblings_in(places[0], progress)):
        return siblings
    where = [_whole(place) for place in places]
    for place, one in zip(places, where, strict=True):
        if where.count(one) > 1:
            raise UsageError(f"{place} is named twice; name each dump once")
    return dict(zip(_short_names(list(map(_spelled_out, places))), places, strict=True))


def named_pair(one: str, other: str) -> dict[str, str]:
    """Two dumps, as `named_dumps` names them; the same place twice is two, of which the other is
    called the same again."""
    if _whole(one) != _whole(other):
        return named_dumps([one, other])
    (name,) = _short_names([_spelled_out(one)])
    return {name: one, f"{name}, again": other}


def _whole(place: str) -> str:
    """The same place, however it is spelled."""
    if "://" in place or HubAddress.parse(place) is not None:
        return place.rstrip("/")
    return os.path.abspath(place)


def _spelled_out(place: str) -> str:
    """A place as it is written, but for those such as `.` and `../..`, which name no folder."""
    parts = PurePosixPath(place).parts
    return _whole(place) if not parts or ".." in parts else place.rstrip("/")


def siblings_in(place: str, progress: Progress = SILENT) -> dict[str, str]:
    """The complete dumps directly in a folder of this disk that is none itself, by the names of
    their folders; those that aren't complete are told. Nothing for any other place."""
    if HubAddress.parse(place) is not None or not os.path.isdir(place):
        return {}
    folder = open_folder(place)
    if folder.exists(PLAN) or folder.exists(MANIFEST):
        return {}
    found, unfinished = {}, []
    for name in sorted(os.listdir(place)):
        inside = os.path.join(place, name)
        if os.path.isfile(os.path.join(inside, MANIFEST)):
            found[name] = inside
        elif os.path.isfile(os.path.join(inside, PLAN)):
            unfinished.append(name)
    if unfinished:
        progress.say(
            f"warning: {few(unfinished)} in {place} {'is' if len(unfinished) == 1 else 'are'} not "
            f"complete and left out; the same softlabels dump with --resume goes on"
        )
    return found


def _short_names(places: list[str]) -> list[str]:
    """The last parts of the paths, as many as it takes until none comes twice."""
    parts = [PurePosixPath(place).parts for place in places]
    most = max(map(len, parts))
    for count in range(1, most + 1):
        names = ["/".join(each[-count:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return places
