"""What is in a folder: `info`, and the newest dump of several."""

from pathlib import Path
from typing import Any

from softlabels.errors import SoftlabelsError, StoreError
from softlabels.places.folders import dump_folder
from softlabels.store.card import describe, worded
from softlabels.store.folder import Folder
from softlabels.store.ledger import read_manifest
from softlabels.store.names import MANIFEST
from softlabels.system.humanize import html_table

DEMO_MARK = "demo.json"  # in the demo's folder, which is its own


class Info(dict[str, Any]):
    """What `info` tells; a notebook shows its facts as a table."""

    def __repr__(self) -> str:
        facts = self["facts"]
        return f"Info({self['path']}: {facts['rows']:,} rows × {facts['classes']:,} classes)"

    def _repr_html_(self) -> str:
        return html_table(self.worded)

    @property
    def worded(self) -> dict[str, str]:
        """The facts as people read them."""
        return worded(self["facts"])


def info(path: str | Path) -> Info:
    """What a dump is: `facts`, with numbers as numbers, and the `manifest` as written.

    Raises IncompleteDump for an unfinished one, StoreError or DamagedDump for no whole dump.
    """
    manifest, plan = read_manifest(dump_folder(path, "manifest"))
    return Info(path=str(path), facts=describe(manifest, plan), manifest=manifest.as_json)


def newest_dump(under: str | Path = "data") -> Path:
    """The complete dump below this folder whose manifest was written last, but for the demo's.

    Raises StoreError where there is none.
    """
    found = []
    for manifest in Path(under).glob(f"**/{MANIFEST}"):
        if any((folder / DEMO_MARK).exists() for folder in manifest.parents):
            continue
        try:
            created = read_manifest(Folder(manifest.parent))[0].created
        except SoftlabelsError:
            continue
        found.append((created, manifest.stat().st_mtime_ns, manifest.parent))
    if not found:
        raise StoreError(
            f"no complete dump under {under}/; name its folder, or make one: "
            f"softlabels dump --teacher t.pt"
        )
    return max(found)[-1]
