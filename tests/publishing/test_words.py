"""What `push` says before it sends, and what a stranger meets who has no more than that."""

from pathlib import Path

import pytest

from softlabels.errors import SourceError
from tests.conftest import Linear, make_vectors, save_script
from tests.hub import OWNER
from tests.publishing import work


@pytest.fixture
def local(tmp_path) -> dict:
    """How a dump is made of a file that nobody else has."""
    data = make_vectors(tmp_path / "vectors.parquet")
    return {"teacher": save_script(Linear(), tmp_path / "t.pt"), "data": data}


def test_a_dump_whose_inputs_nobody_has_is_pushed_with_a_warning(
    hub, owner, stranger, local, repo, tmp_path
):
    owner(work.dump, **local, out=str(tmp_path / "d"))
    for dry_run in (True, False):
        said = owner(work.words_of_push, str(tmp_path / "d"), repo, dry_run=dry_run)
        first, warning = (line for line in said if "push to" in line or "warning:" in line)
        assert (
            "logits of 300 rows and 3 classes, labels, ids and input hashes, without the inputs"
            in first
        )
        assert "teacher 't', source 'vectors.parquet', split train" in first
        assert "no licence is named" in first
        assert warning.startswith("warning: others can't get the inputs")
        assert "'vectors.parquet', is a file or folder of yours" in warning
        assert "--store-inputs original" in warning
        assert "--include-inputs" in warning
    for content in hub.files(repo).values():
        assert str(tmp_path).encode() not in content
    with pytest.raises(SourceError, match=r"'vectors\.parquet'.*is not here.*--source PATH"):
        stranger(work.first_logits, repo)
    assert len(stranger(work.first_logits, repo, inputs=False)) == 300
    assert len(stranger(work.first_logits, repo, source=local["data"])) == 300


def test_who_can_have_the_inputs_needs_no_warning(hub, owner, local, folder, repo, tmp_path):
    owner(work.dump, **local, out=str(tmp_path / "with"), store_inputs="original")
    said = owner(work.words_of_push, str(tmp_path / "with"), repo, include_inputs=True)
    assert any("and the inputs; teacher" in line for line in said)
    assert not any("warning" in line for line in said)
    said = owner(work.words_of_push, str(tmp_path / "with"), f"{repo}-bare", labels_only=True)
    assert any("warning: others can't get the inputs" in line for line in said)
    said = owner(work.words_of_push, str(folder), f"{repo}-digits", license="cc-by-4.0")
    assert any("; licence cc-by-4.0" in line for line in said)
    assert not any("warning" in line for line in said)


def test_a_private_source_and_ids_that_are_paths_are_warned_of(hub, owner, repo, tmp_path):
    source = f"{OWNER}/{tmp_path.name}-source"
    names = [f"/home/a.person/{i}.png" for i in range(300)]
    content = Path(make_vectors(tmp_path / "v.parquet", file=names)).read_bytes()
    owner(work.publish_source, source, {"data/train-0.parquet": content}, private=True)
    owner(work.dump, teacher=save_script(Linear(), tmp_path / "t.pt"), data=source,
          id_column="file", out=str(tmp_path / "d"))  # fmt: skip
    warnings = [
        line
        for line in owner(work.words_of_push, str(tmp_path / "d"), repo, dry_run=True)
        if line.startswith("warning: ")
    ]
    assert len(warnings) == 2
    assert "an id looks like a path of a machine, '/home/a.person/0.png'" in warnings[0]
    assert f"{source}, is private on the Hub" in warnings[1]
