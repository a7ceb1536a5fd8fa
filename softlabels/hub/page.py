"""The dataset card on the Hub: the dump's own, beside what its owner wrote."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq

from softlabels.errors import UsageError
from softlabels.hub.contents import Contents, Place, merged, only_this
from softlabels.hub.header import header_fields, split_header, write_header
from softlabels.reports.card import BEGIN, END, card_body, card_header
from softlabels.reports.markdown import shown, table
from softlabels.store.folder import Folder
from softlabels.store.names import CARD
from softlabels.store.records import Manifest, Plan

BEGIN_LIST = "<!-- softlabels: the dumps in folders, written by the program up to the end mark -->"
END_LIST = "<!-- softlabels: end of the dumps in folders -->"
TEACHER_LICENSE = "teacher_license"  # in a header, where the Hub has a field for the labels' alone
OF_DUMPS = ("configs", "dataset_info", "size_categories")  # in a header


@dataclass(frozen=True)
class Where:
    """Where a dump lies on the Hub.

    place: its folder there, with its configuration and split.
    folders: those of all dumps in the repository.
    others: folders of other data whose files are named as a dump's are.
    """

    repo: str
    place: Place
    folders: Collection[str]
    others: Collection[str] = ()

    @property
    def dump(self) -> str:
        """The name by which softlabels loads it: ORG/NAME or ORG/NAME/FOLDER."""
        return f"{self.repo}/{self.place.folder}".rstrip("/")

    @property
    def call(self) -> str:
        """The Python call that loads it with `datasets`."""
        if not self.place.folder:
            return f'datasets.load_dataset("{self.repo}")'
        config, split = self.place.config, self.place.split
        return f'datasets.load_dataset("{self.repo}", "{config}", split="{split}")'

    def add(self, header: dict[str, Any], card: str) -> dict[str, Any]:
        """The header of this dump, merged with what `card`, at the top, lists of the others."""
        return merged(header, header_fields(card), self.place, {*self.folders, *self.others})


def render_page(
    folder: Folder,
    manifest: Manifest,
    plan: Plan,
    where: Where,
    given: Mapping[str, str | None],
    survey: str,
    pictures: Mapping[str, str],
    before: str,
) -> str:
    """The dump's own README.md. At the top of a repository its header tells of all dumps there.

    survey: what its rows say of the teacher, in Markdown.
    pictures: the files of the pictures beside it, by what stands for them in words.
    before: the card that stands there, or beside the dump. Its text outside of our marks stays, and
    so do the fields of its header that are not ours.
    """
    theirs, text = split_header(before)
    ours = own_header(folder, manifest, plan)
    if not where.place.folder:
        ours = where.add(ours, before)
        text = _listed(text, ours, where)
    images = "".join(f"\n![{words}]({file})\n" for words, file in pictures.items())
    more = f"{images}\n{survey}\n"
    body = card_body(manifest, plan, where.dump, more, where.call, _licences(given, before))
    return write_header(ours, theirs, given) + _replaced(text, body, BEGIN, END)


def _licences(given: Mapping[str, str | None], before: str) -> dict[str, str]:
    """Facts of the card: the licences of the labels and of the teacher."""
    known = header_fields(before) | {name: value for name, value in given.items() if value}
    names = {"license": "licence of the labels", TEACHER_LICENSE: "licence of the teacher"}
    return {fact: str(known[name]) for name, fact in names.items() if known.get(name)}


def render_index(
    folder: Folder,
    manifest: Manifest,
    plan: Plan,
    where: Where,
    given: Mapping[str, str | None],
    before: str,
) -> str:
    """README.md at the top of a repository with dumps in folders, one of which is pushed.

    before: the card that stands there. A licence that it names stays: it covers other dumps too.
    """
    theirs, text = split_header(before)
    given = {name: value for name, value in given.items() if name not in theirs}
    header = where.add(own_header(folder, manifest, plan), before)
    end = text.find(END)
    if end >= 0 and BEGIN_LIST not in text:  # below the section of the dump at the top
        text = f"{text[: end + len(END)]}\n\n{BEGIN_LIST}{END_LIST}{text[end + len(END) :]}"
    elif not _has(text, BEGIN_LIST, END_LIST):
        text = _replaced(text, f"{BEGIN_LIST}{END_LIST}\n", BEGIN_LIST, END_LIST)
    return write_header(header, theirs, given) + _listed(text, header, where)


def _listed(text: str, header: dict[str, Any], where: Where) -> str:
    """`text` with its list of the dumps in folders made anew from `header`."""
    if not _has(text, BEGIN_LIST, END_LIST):
        return text
    contents = Contents(header)
    listed = [
        (replace(where, place=place), contents.rows(place))
        for place in contents.dumps()
        if place.folder and place.folder in where.folders
    ]
    if not listed:
        return _replaced(text, "", BEGIN_LIST, END_LIST)
    first = listed[0][0]
    head = ("dump", "configuration", "split", "rows")
    rows = [
        (f"[`{one.dump}`]({one.place.folder}/{CARD})", shown(one.place.config),
         shown(one.place.split), f"{rows:,}")
        for one, rows in listed
    ]  # fmt: skip
    body = f"""{BEGIN_LIST}

## Dumps in folders

{table(head, rows)}

softlabels names each by its folder, `datasets` by configuration and split:

    softlabels train {first.dump} --T 8

```python
softlabels.load("{first.dump}", T=4)
{first.call}
```

{END_LIST}
"""
    return _replaced(text, body, BEGIN_LIST, END_LIST)


def reduced_to(card: str, place: Place) -> str:
    """The card at the top of a repository, reduced to the dump there. Unchanged where it lists no
    other, and where its header can't be read."""
    try:
        theirs, text = split_header(card)
        before = header_fields(card)
        header = only_this(before, place)
    except (UsageError, LookupError, TypeError, AttributeError, ValueError):
        return card
    if header == before and BEGIN_LIST not in text:
        return card
    begin, end = text.find(BEGIN_LIST), text.find(END_LIST)
    if 0 <= begin < end:
        text = text[:begin].rstrip("\n") + "\n" + text[end + len(END_LIST) :]
    ours = {name: header[name] for name in OF_DUMPS if name in header}
    return write_header(ours, theirs, {}) + text.lstrip("\n")


def own_header(folder: Folder, manifest: Manifest, plan: Plan) -> dict[str, Any]:
    """The header of a dump alone."""
    path = folder.path(manifest.shards[0].file)
    features = datasets.Features.from_arrow_schema(pq.read_schema(path))
    header = card_header(manifest, plan, features)
    with suppress(OSError, ValueError, UsageError):  # the task is on the dump's own card only
        own = header_fields(Path(folder.path(CARD)).read_text(encoding="utf-8"))
        header |= {name: own[name] for name in ("task_categories",) if own.get(name)}
    return header


def _replaced(text: str, body: str, begin: str, end: str) -> str:
    """`text` with `body` in place of the part between these marks, or in front if there is none."""
    first, last = text.find(begin), text.find(end)
    if _has(text, begin, end):
        return (text[:first] + body.rstrip("\n") + text[last + len(end) :]).lstrip("\n")
    return body + (f"\n{text.strip()}\n" if text.strip() else "")


def _has(text: str, begin: str, end: str) -> bool:
    return 0 <= text.find(begin) < text.find(end)
