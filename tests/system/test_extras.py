"""Libraries that are not there, and libraries that are there and broken."""

import pickle
import sys

import pytest

from softlabels.errors import MissingExtra
from softlabels.system.extras import need


def test_a_library_is_imported_or_its_extra_is_named(tmp_path, monkeypatch):
    assert need("json.decoder", "x", "this").JSONDecoder
    with pytest.raises(MissingExtra, match=r"^this needs nowhere, which is not installed: pip inst"
                       r"all 'softlabels\[x\]'$"):  # fmt: skip
        need("nowhere.inside", "x", "this")
    monkeypatch.setitem(sys.modules, "json", None)
    with pytest.raises(MissingExtra, match="json, which is not installed"):
        need("json", "x", "this")


def test_a_broken_library_says_why(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "built_otherwise.py").write_text("raise RuntimeError('operator nms?\\nmore')")
    with pytest.raises(
        MissingExtra, match=r"which can't be imported \(operator nms\?\): pip"
    ) as told:
        need("built_otherwise", "x", "this")
    assert str(pickle.loads(pickle.dumps(told.value))) == str(told.value)
