"""The whole road with a codec that has a fitted side file, packed rows and several positions a row:
what dense and int8 alone would not show of the seam."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader

import softlabels
from softlabels.errors import DamagedDump, TeacherError, UsageError
from softlabels.store import side_files
from softlabels.store.folder import Folder
from softlabels.store.records import Plan
from softlabels.targets.batch import for_each_position
from tests import codecs
from tests.capture import harm
from tests.conftest import Linear, make_vectors, save_script

ROOT = Path(__file__).parent.parent
COUNTS = 1 + np.arange(1200) % 3
WORDS = {"codec": "step:0.05", "shard_rows": 100, "batch_size": 100}


@pytest.fixture(scope="module")
def dump(teacher, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("step") / "d"
    softlabels.dump(teacher=teacher, out=str(out), **WORDS)
    return out


def run(*words: object, ranks: int = 1) -> subprocess.Popen:
    """The command line in a process that registers the codec."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command = [sys.executable, *(launcher if ranks > 1 else []), codecs.SCRIPT, *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)


def dumping(teacher: str, out: Path, *words: object) -> list[object]:
    options = [w for k, v in WORDS.items() for w in (f"--{k.replace('_', '-')}", v)]
    return ["dump", "--teacher", teacher, "--out", out, *options, *words]


def expected(dump_folder: str) -> torch.Tensor:
    """The exact logits of each position."""
    exact = softlabels.load(dump_folder, inputs=False).take(np.arange(1200))["logits"].float()
    return exact.repeat_interleave(torch.from_numpy(COUNTS), 0)


def test_a_pilot_fits_and_measures_before_the_first_shard(dump):
    plan = json.loads((dump / "plan.json").read_text())
    assert set(plan["shared"]) == {
        "shared/mean.safetensors", "shared/pilot.json", "shared/probe.safetensors",
    }  # fmt: skip
    assert plan["pilot"]["rows"] == 100, "one of four rows of 400 is held back"
    assert plan["positions"] is None, "the column of that name counts them"
    means = [entry["mean"] for entry in plan["pilot"]["kl"]]
    assert means == sorted(means, reverse=True)
    assert 0 < means[-1] < 1e-3
    manifest = json.loads((dump / "softlabels.json").read_text())
    assert manifest["statistics"]["rows"] == 1200
    assert manifest["statistics"]["positions"] == COUNTS.sum()
    assert "mean" not in manifest["statistics"]
    assert "codec's error" in (dump / "README.md").read_text()


def test_positions_of_a_row_are_no_cases_of_their_own(tmp_path):
    """An accuracy of 0.45 among three classes: 240 cases would rule out guessing, 120 don't."""
    data = make_vectors(tmp_path / "v.parquet", rows=120)
    table = pq.read_table(data)
    with torch.no_grad():
        top = Linear()(torch.tensor(table["x"].to_pylist())).argmax(-1).numpy()
    right = np.repeat(np.arange(40) < 18, 3)  # three rows have six positions
    labels = pa.array(np.where(right, top, (top + 1) % 3))
    pq.write_table(table.set_column(1, table.schema.field("label"), labels), data)
    teacher = save_script(Linear(), tmp_path / "s.pt")
    done = run(*dumping(teacher, tmp_path / "d", "--data", data, "--codec", "step:0.001"))
    text, errors = done.communicate(timeout=60)
    warning = "the teacher's accuracy is 0.4500, no better than guessing among 3 classes"
    assert warning in errors
    assert "accuracy 0.4500 on 240 labelled positions" in text
    assert warning in softlabels.verify(dump=str(tmp_path / "d")).warnings[0]


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_come_with_all_their_positions(dump, dump_folder, streaming):
    dataset = softlabels.load(dump, T=4, streaming=streaming)
    rows = np.array([700, 3, 4, 1199, 5, 3])
    batch = dataset.take(rows)
    assert batch["positions"].tolist() == COUNTS[rows].tolist()
    assert batch["id"].tolist() == rows.tolist()
    assert batch["loss_mask"].tolist() == [[p < n for p in range(4)] for n in COUNTS[rows]]
    ends = np.cumsum(COUNTS)
    positions = np.concatenate([np.arange(ends[r] - COUNTS[r], ends[r]) for r in rows])
    exact = expected(dump_folder)[torch.from_numpy(positions)]
    assert len(batch["targets"]) == len(exact)
    torch.testing.assert_close(
        batch["soft_target"], torch.softmax(exact / 4, -1), atol=0.01, rtol=0
    )
    assert "logits" not in list(batch)
    with pytest.raises(UsageError, match="targets"):
        _ = batch["logits"]
    row = dataset[5]
    assert row["soft_target"].shape == (3, 10)
    torch.testing.assert_close(row["soft_target"], batch["soft_target"][-4:-1])


def test_a_mask_aligns_what_a_student_says_of_each_place(dump):
    batch = softlabels.load(dump, T=4, inputs=False).take([700, 3, 4])
    student_NLC = torch.randn(3, 4, 10, generator=torch.Generator().manual_seed(0))
    aligned_MC = student_NLC[batch["loss_mask"]]
    places = [(row, place) for row, n in enumerate(COUNTS[[700, 3, 4]]) for place in range(n)]
    assert torch.equal(aligned_MC, torch.stack([student_NLC[at] for at in places]))
    assert torch.equal(for_each_position(student_NLC, batch), aligned_MC)
    assert batch["targets"].temper(4).kl(aligned_MC).shape == (len(places),)
    assert for_each_position(batch["label"], batch).shape == (len(places),)


def test_each_position_of_a_row_is_shown(dump):
    rows = softlabels.show(dump=dump, id=[5, 700]).rows
    assert [(row.id, row.position) for row in rows] == [(5, 0), (5, 1), (5, 2), (700, 0), (700, 1)]
    soft = softlabels.load(dump, T=4).take([5])["soft_target"]
    assert rows[0].top[0].probabilities[1] == pytest.approx(float(soft[0].max()), abs=1e-6)


def test_a_plan_whose_codec_has_other_positions_is_refused(dump):
    record = json.loads((dump / "plan.json").read_text()) | {"positions": 1}
    with pytest.raises(DamagedDump, match=r"positions is 1, and step:0\.05 has None"):
        Plan.parse(record, "the plan")


def test_batches_travel_without_what_all_rows_share(dump):
    """A batch names the side file, of which each process has one copy."""
    dataset = softlabels.load(dump, T=4, inputs=False)
    batch = dataset.take(np.arange(100))
    small = pickle.dumps(batch["targets"].select(torch.arange(1)))
    assert len(small) < 3000
    again = pickle.loads(pickle.dumps(batch))
    assert torch.equal(again["soft_target"], batch["soft_target"])
    one, two = (b["targets"].side_files.tensors("mean") for b in (batch, again))
    assert one["mean"] is two["mean"]
    loader = DataLoader(dataset, batch_size=400, num_workers=2, multiprocessing_context="fork")
    assert [len(b["targets"]) for b in loader] == [799, 800, 801]


@pytest.mark.slow
def test_a_kill_loses_nothing_and_the_resume_does_not_fit_again(dump, teacher, tmp_path):
    out = tmp_path / "d"
    process = run(*dumping(teacher, out))
    while not list(out.glob("commits/*.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = (out / "shared" / "mean.safetensors").stat().st_mtime_ns
    done = softlabels.dump(teacher=teacher, out=str(out), resume=True, **WORDS)
    assert done.rows_run < 1200 or len(list(out.glob("commits/*.json"))) == 12
    assert (out / "shared" / "mean.safetensors").stat().st_mtime_ns == before
    assert harm.contents(out) == harm.contents(dump)


def test_a_pilot_that_was_cut_off_before_its_plan_is_taken(dump, teacher, tmp_path):
    out = tmp_path / "d"
    shutil.copytree(dump / "shared", out / "shared")
    before = (out / "shared" / "mean.safetensors").stat().st_mtime_ns
    softlabels.dump(teacher=teacher, out=str(out), **WORDS)
    assert (out / "shared" / "mean.safetensors").stat().st_mtime_ns == before
    assert harm.contents(out) == harm.contents(dump)


@pytest.mark.slow
def test_two_ranks_share_one_pilot(dump, teacher, tmp_path):
    out = tmp_path / "d"
    process = run(*dumping(teacher, out, "--json"), ranks=2)
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert sorted(json.loads(line)["rows_run"] for line in said.splitlines()) == [600, 600]
    assert harm.contents(out) == harm.contents(dump)


def test_a_teacher_that_answers_otherwise_is_found_at_resume(dump, teacher, tmp_path, monkeypatch):
    """The file is the same, but not what it gives: another version of a library."""
    out = Path(shutil.copytree(dump, tmp_path / "d"))
    (out / "commits" / "00003.json").unlink()
    (out / "softlabels.json").unlink()
    real = softlabels.Teacher.logits

    def other(self, *given, **named):
        return real(self, *given, **named) * 1.1

    monkeypatch.setattr(softlabels.Teacher, "logits", other)
    with pytest.raises(TeacherError, match=r"answers otherwise than when .* was begun"):
        softlabels.dump(teacher=teacher, out=str(out), resume=True, **WORDS)


def test_verify_names_a_side_file_that_was_changed(dump, teacher, tmp_path):
    out = Path(shutil.copytree(dump, tmp_path / "d"))
    assert softlabels.verify(dump=str(out), replay=100, teacher=teacher).good
    file = out / "shared" / "mean.safetensors"
    harm.flip(file, file.stat().st_size - 3, 6)
    [finding] = softlabels.verify(dump=str(out)).findings
    assert finding.file == "shared/mean.safetensors"
    assert "SHA-256 differs" in finding.problem
    codecs_held = softlabels.load(out, inputs=False)
    with pytest.raises(DamagedDump, match=r"shared/mean.safetensors has other bytes"):
        fresh(codecs_held)
    file.unlink()
    fresh_files()
    [finding] = softlabels.verify(dump=str(out)).findings
    assert finding.problem.startswith("is missing")


def fresh(dataset) -> torch.Tensor:
    """Targets made without the copy that this process holds."""
    fresh_files()
    return dataset.take([0])["targets"].temper(1).probs()


def fresh_files() -> None:
    """Forget the side files that this process holds."""
    side_files._HELD.clear()


def test_a_student_learns_from_it(dump, dump_folder, tmp_path):
    words = {"epochs": 4, "student": "linear", "T": 4, "seed": 1, "out": str(tmp_path / "s.pt")}
    found = {
        name: softlabels.train(dump=str(one), **words, **more).metrics["held_out"]
        for name, one, more in (
            ("exact", dump_folder, {}), ("ours", dump, {}), ("streamed", dump, {"streaming": True}),
        )
    }  # fmt: skip
    for name in ("ours", "streamed"):
        assert found[name]["accuracy"] == pytest.approx(found["exact"]["accuracy"], abs=0.1)
        assert found[name]["kl"] == pytest.approx(found["exact"]["kl"], rel=0.15)
    against = softlabels.evaluate(checkpoint=str(tmp_path / "s.pt"), against=str(dump))
    assert 0 < against["against"]["kl"] < 3


def test_several_are_one_dataset_if_they_share_their_files(dump, teacher, tmp_path):
    both = softlabels.load([dump, dump], T=2, inputs=False)
    batch, alone = both.take([1205, 2, 1200]), softlabels.load(dump, T=2).take([5, 2, 0])
    assert torch.equal(batch["soft_target"], alone["soft_target"])
    assert batch["positions"].tolist() == [3, 3, 1]
    other = tmp_path / "other"
    softlabels.dump(teacher=teacher, out=str(other), split="test", **WORDS)
    with pytest.raises(UsageError, match="side files"):
        softlabels.load([dump, other], inputs=False)


def test_a_dump_elsewhere_is_read_there(teacher, dump):
    where = "memory://step/d"
    softlabels.dump(teacher=teacher, out=where, **WORDS)
    assert Folder(where).files("shared").keys() == {
        f"shared/{path.name}" for path in (dump / "shared").iterdir()
    }
    for words in ({"streaming": True}, {}):
        found = softlabels.load(where, T=4, inputs=False, **words).take(np.arange(0, 1200, 9))
        here = softlabels.load(dump, T=4, inputs=False).take(np.arange(0, 1200, 9))
        assert torch.equal(found["soft_target"], here["soft_target"])


def test_the_side_file_is_what_was_fitted(dump):
    shared = load_file(dump / "shared" / "mean.safetensors")
    assert shared["mean"].shape == (10,)
    assert float(shared["step"]) == pytest.approx(0.05)
