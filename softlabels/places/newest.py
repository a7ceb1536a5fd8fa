"""The dump that a command takes if the user names none."""

from pathlib import Path

from softlabels.errors import SoftlabelsError, StoreError
from softlabels.store.folder import Folder
from softlabels.store.ledger import read_manifest
from softlabels.store.names import MANIFEST

DEMO_MARK = "demo.json"  # marks the folder of the demo, which the demo alone uses


def newest_dump(under: str | Path = "data") -> Path:
    """The complete dump below this folder whose manifest is the newest, except the demo's. Raises
    StoreError if there is none.
    """
    complete = []
    for manifest in Path(under).glob(f"**/{MANIFEST}"):
        if any((folder / DEMO_MARK).exists() for folder in manifest.parents):
            continue
        try:
            created = read_manifest(Folder(manifest.parent))[0].created
        except SoftlabelsError:
            continue
        complete.append((created, manifest.stat().st_mtime_ns, manifest.parent))
    if not complete:
        raise StoreError(
            f"no complete dump under {under}/; name its folder, or make one: "
            f"softlabels dump --teacher t.pt"
        )
    return max(complete)[-1]
