"""`softlabels import`: what was cut off goes on, and what is committed is not touched again."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import softlabels
from softlabels.errors import AlignmentError, DiskFull, PlanMismatch, StoreError
from softlabels.exchange import import_logits, importing
from softlabels.exchange.matching import FileAnswers
from softlabels.store.folder import Folder
from softlabels.store.reader import DumpReader
from tests.capture import harm
from tests.conftest import Lines, every, make_vectors
from tests.exchange.foreign_files import soft
from tests.processes import kill, start, wait_for

ROWS, SHARDS = 300, 30


@pytest.fixture
def words(vectors, tmp_path) -> dict:
    np.save(tmp_path / "z.npy", soft(ROWS, 3)[0])
    return {
        "file": str(tmp_path / "z.npy"),
        "data": vectors,
        "shard_rows": ROWS // SHARDS,
        "out": str(tmp_path / "d"),
    }


def commits(folder: Path) -> set[int]:
    return {int(path.stem) for path in folder.glob("commits/*.json")}


def stopping(words: dict, shard: int, error: BaseException, monkeypatch) -> list[str]:
    """Import until the rows of `shard` are read; what was said."""
    heard, real = Lines(), FileAnswers.answer
    first = shard * words["shard_rows"]

    def answer(self, rows, *given):
        if rows.numbers[0] == first and len(rows) <= words["shard_rows"]:
            raise error
        return real(self, rows, *given)

    monkeypatch.setattr(FileAnswers, "answer", answer)
    with pytest.raises(type(error)):
        import_logits(progress=heard, **words)
    monkeypatch.undo()
    return heard.lines


def slow_import(**words) -> None:
    import time

    real = FileAnswers.answer

    def answer(*given):
        time.sleep(0.03)
        return real(*given)

    FileAnswers.answer = answer
    importing.import_logits(**words)


def test_kills_lose_nothing_and_change_nothing(words, tmp_path):
    calm, rough = str(tmp_path / "calm"), tmp_path / "d"
    import_logits(**words | {"out": calm})
    for goal in (2, 9, 17):
        process = start(slow_import, **words, resume=True)
        wait_for(lambda goal=goal: len(commits(rough)) >= goal)
        assert kill(process)
        kept = commits(rough)
    before = harm.places(rough)
    whole = {f"train-{shard:05d}-of-{SHARDS:05d}.parquet" for shard in kept}
    heard = Lines()
    import_logits(progress=heard, **words, resume=True)
    assert f"to do: {SHARDS - len(kept)} shards of {SHARDS}" in heard.lines
    after = harm.places(rough)
    assert {name: after[name] for name in whole} == {name: before[name] for name in whole}
    assert harm.contents(rough) == harm.contents(Path(calm))
    assert softlabels.verify(dump=str(rough), source=True).good
    assert not [name for name in Folder(rough).names() if name.startswith(".")]


def test_a_stop_says_what_is_safe_and_how_to_go_on(words, tmp_path, monkeypatch):
    said = stopping(words, 12, KeyboardInterrupt(), monkeypatch)
    safe = f"12 of {SHARDS} shards are committed and safe"
    assert said[-1] == f"stopped: {safe}. Go on with the same command and --resume"
    with pytest.raises(StoreError, match=f"unfinished dump: {safe}. Add --resume to go on"):
        import_logits(**words)
    before = harm.places(tmp_path / "d")
    import_logits(**words | {"shard_rows": None}, resume=True)  # those that were begun with
    assert before.items() <= harm.places(tmp_path / "d").items()
    heard = Lines()
    import_logits(progress=heard, **words)
    assert heard.lines[-1] == f"{words['out']} is complete already; nothing to do"


@pytest.mark.slow
def test_sigterm_says_it_too(words, tmp_path):
    code = (
        "import sys, time\nfrom softlabels.exchange.matching import FileAnswers as F\n"
        "real = F.answer\n"
        "def answer(*given):\n    time.sleep(0.05)\n    return real(*given)\n"
        "F.answer = answer\nfrom softlabels.cli import main\nmain()"
    )
    options = ["--data", words["data"], "--shard-rows", "10", "--out", words["out"]]
    with subprocess.Popen(
        [sys.executable, "-c", code, "import", words["file"], *options],
        cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        wait_for(lambda: len(commits(tmp_path / "d")) >= 2)
        process.terminate()
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 143
    assert "shards are committed and safe. Go on with the same command and --resume" in said
    assert "Traceback" not in said


def test_a_full_disk_loses_nothing(small_disk, tmp_path):
    np.save(tmp_path / "z.npy", soft(20_000, 3)[0].astype(np.float16))
    data = make_vectors(tmp_path / "v.parquet", rows=20_000)
    words = {"data": data, "file": str(tmp_path / "z.npy"), "shard_rows": 4000}
    words |= {"out": str(small_disk / "d")}
    filler = small_disk / "filler"
    filler.write_bytes(b"0" * 700_000)
    match = r"\d of 5 shards are committed and safe. Make room, then run .* --resume"
    with pytest.raises(DiskFull, match=match):
        import_logits(**words)
    committed = commits(small_disk / "d")
    assert 1 <= len(committed) < 5
    filler.unlink()
    import_logits(**words, resume=True)
    assert len(every(DumpReader(Folder(small_disk / "d")))) == 20_000


def test_a_full_disk_without_a_mount_says_it_too(words, tmp_path, monkeypatch):
    heard = stopping(words, 3, DiskFull("no space left for x"), monkeypatch)
    assert len(heard) == 3  # data, logits, preprocessing
    import_logits(**words, resume=True)


CHANGES = {
    "another file": ({"file": "y.npy"}, r"teacher\.fingerprint is 'sha256:.* and was 'sha256:"),
    "another dtype": ({"dtype": "float16"}, "dtype is 'float16' and was 'float32'"),
    "other shards": ({"shard_rows": 20}, "shard_inputs is 20 and was 10"),
    "ids": ({"ids": "ids.txt"}, "Now: ids from ids.txt sha256:.*then: rows in the source's order"),
}


@pytest.mark.parametrize("what", list(CHANGES))
def test_what_changed_is_named(words, tmp_path, monkeypatch, what):
    stopping(words, 3, KeyboardInterrupt(), monkeypatch)
    monkeypatch.chdir(tmp_path)
    np.save("y.npy", soft(ROWS, 3, seed=1)[0])
    Path("ids.txt").write_text("".join(f"{row}\n" for row in range(ROWS)))
    change, match = CHANGES[what]
    before = harm.contents(tmp_path / "d")
    with pytest.raises(PlanMismatch, match=match):
        import_logits(**words | change, resume=True)
    assert harm.contents(tmp_path / "d") == before
    import_logits(**words, resume=True)


def test_other_ways_of_taking_a_file_are_named(words, tmp_path, monkeypatch):
    """They stand in one field of the plan, which is longer than what is shown of one."""
    p = soft(ROWS, 3)[1]
    p[255] = [1, 0, 0]
    np.save(tmp_path / "z.npy", p.astype(np.float32))
    words |= {"probabilities": True, "T": 4, "floor": 1e-7}
    stopping(words, 3, KeyboardInterrupt(), monkeypatch)
    for change in ({"T": 2}, {"floor": 1e-6}):
        with pytest.raises(PlanMismatch) as error:
            import_logits(**words | change, resume=True)
        now = words | change
        assert str(error.value) == (
            f"{words['out']} holds an import of the same file made otherwise. Now: log of "
            f"probabilities made at T={now['T']}, floor {now['floor']:g}; then: log of "
            f"probabilities made at T=4, floor 1e-07. Give the options that it was made with, or "
            f"choose another folder with --out"
        )


def test_rows_that_changed_are_named(words, tmp_path, monkeypatch):
    stopping(words, 3, KeyboardInterrupt(), monkeypatch)
    make_vectors(Path(words["data"]), seed=1)
    with pytest.raises(PlanMismatch, match=r"the source's rows 0 to 9 differ \(shard 0, and 29"):
        import_logits(**words, resume=True)


def test_a_moved_file_is_the_same(words, tmp_path, monkeypatch):
    stopping(words, 3, KeyboardInterrupt(), monkeypatch)
    for name in ("file", "data"):
        path = Path(words[name])
        words[name] = str(path.rename(path.with_name(f"moved-{path.name}")))
    import_logits(**words, resume=True)
    assert softlabels.verify(dump=words["out"], source=True, data=words["data"]).good


@pytest.mark.parametrize(
    "damage", [harm.truncate, harm.flip_a_logit, harm.delete, harm.rename, harm.cut_the_plan]
)
def test_only_what_is_damaged_is_made_again(words, tmp_path, damage):
    out = tmp_path / "d"
    import_logits(**words)
    good, before = harm.contents(out), harm.places(out)
    damage(out)
    if damage is not harm.cut_the_plan:
        with pytest.raises(StoreError, match="Add --resume to"):
            import_logits(**words)
    import_logits(**words, resume=True)
    assert harm.contents(out) == good
    again = [name for name, was in harm.places(out).items() if was != before[name]]
    assert len(again) <= 1
    assert softlabels.verify(dump=str(out)).good


def test_without_a_manifest_only_that_is_written(words, tmp_path):
    out = tmp_path / "d"
    import_logits(**words)
    before = harm.places(out)
    (out / "softlabels.json").unlink()
    import_logits(**words)
    assert harm.places(out) == before
    assert softlabels.verify(dump=str(out)).good


def test_a_quick_look_trusts_the_sizes(words, tmp_path):
    out = tmp_path / "d"
    import_logits(**words)
    before = harm.places(out)
    harm.flip_a_logit(out)
    import_logits(**words, check="size")
    import_logits(**words, resume=True, check="size")
    assert len([name for name, was in harm.places(out).items() if was[0] != before[name][0]]) == 0
    import_logits(**words, resume=True)
    assert softlabels.verify(dump=str(out)).good


def test_data_that_change_meanwhile_are_refused(words, tmp_path, monkeypatch):
    from softlabels.inputs.sources import Source
    from softlabels.store.ledger import read_plan

    real, folder = Source.read, Folder(words["out"])

    def changing(self, start, stop):
        rows = real(self, start, stop)
        if start == 30 and read_plan(folder) is not None:
            rows.labels[3] += 1
        return rows

    monkeypatch.setattr(Source, "read", changing)
    with pytest.raises(AlignmentError, match=r"rows 30 to 39 of .*Bring back the data, then --"):
        import_logits(**words)
    monkeypatch.undo()
    assert commits(tmp_path / "d") == {0, 1, 2}
    import_logits(**words, resume=True)


def test_numbers_that_must_not_be_stored_leave_the_folder_free(words, tmp_path):
    """The remedy is another option, and so another plan; nothing is lost with the first."""
    p = soft(ROWS, 3)[1].astype(np.float32)
    p[299] = [1, 0, 0]
    np.save(tmp_path / "z.npy", p)
    given = words | {"probabilities": True, "shard_rows": None}
    with pytest.raises(softlabels.SoftlabelsError, match="--floor 1e-7"):
        import_logits(**given)
    assert not (tmp_path / "d" / "plan.json").exists()
    import_logits(**given, floor=1e-7)
    shutil.rmtree(tmp_path / "d")
    with pytest.raises(softlabels.SoftlabelsError, match="--floor 1e-7"):
        import_logits(**given | {"shard_rows": 10})
    assert len(commits(tmp_path / "d")) == 29
    with pytest.raises(PlanMismatch, match=r"then: log of probabilities made at T=1\. Give"):
        import_logits(**given | {"shard_rows": 10}, floor=1e-7)


def test_the_command_has_the_options_of_dump(cli, words, tmp_path):
    out = Path(words["out"])
    given = ["import", words["file"], "--data", words["data"], "--out", out, "--shard-rows", 100]
    assert cli(*given).code == 0
    (out / "softlabels.json").unlink()
    (out / "commits" / "00001.json").unlink()
    stopped = cli(*given)
    assert stopped.code == 1
    assert stopped.err.count("\n") == 4
    assert "2 of 3 shards are committed and safe. Add --resume to go on with it" in stopped.err
    done = cli(*given, "--resume", "--json")
    assert done.code == 0
    assert "to do: 1 shard of 3" in done.err
    assert json.loads(done.out)["rows"] == ROWS
    assert os.listdir(out / "commits")
