"""What a teacher gives are logits of the classes that the labels name, and storing keeps them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import softlabels
from softlabels.errors import LabelSpaceMismatch, LogitsError, TeacherError
from softlabels.exchange.importing import import_logits
from softlabels.store.codecs.rounding import check_rounding, rounding_kl
from tests.conftest import Lines
from tests.teachers.modules import Plain, trace


def write(path: Path, values: np.ndarray, labels: list | None = None) -> str:
    lines = [
        {"x": x} if labels is None else {"x": x, "label": labels[i]}
        for i, x in enumerate(values.tolist())
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


VALUES = np.random.default_rng(0).normal(size=(80, 6)).astype(np.float32)


@pytest.fixture
def data(tmp_path) -> str:
    return write(tmp_path / "d.jsonl", VALUES)


class Ending(Plain):
    """What comes last, by name."""

    def __init__(self, end: str) -> None:
        super().__init__()
        self.end = end

    def forward(self, x: Tensor) -> Tensor:
        z = 3 * self.layer(x)
        if self.end == "softmax":
            return torch.softmax(z, 1)
        if self.end == "percent":
            return 100 * torch.softmax(z, 1)
        if self.end.startswith("votes"):
            return torch.round(float(self.end.removeprefix("votes ")) * torch.softmax(z, 1))
        if self.end == "sigmoid":
            return torch.sigmoid(z)
        if self.end == "one":
            return z[:, :1]
        if self.end == "flat":
            return z[:, 0]
        return torch.log_softmax(z, 1)


WORDS = {
    "softmax": r"rows sum to 1\), so it ends in a softmax",
    "percent": r"rows sum to 100\)",
    "votes 500": r"probabilities times 500 \(rows",
    "votes 255": r"divide by 255 and store",
    "sigmoid": r"numbers from 0 to 1, as a sigmoid does",
    "one": r"one number a row.*one logit z for two classes, say --outputs binary",
    "flat": r"logits are one row of numbers",
}


@pytest.mark.parametrize("end", WORDS)
@pytest.mark.parametrize("rows", [256, 7])
def test_outputs_that_are_no_logits_are_refused(tmp_path, data, end, rows):
    teacher = trace(Ending(end), tmp_path / "t.pt")
    if end in ("sigmoid", "votes 500", "votes 255") and rows == 7:
        pytest.skip("few numbers may lie from 0 to 1, or sum to one number, by chance")
    with pytest.raises((LogitsError, TeacherError), match=WORDS[end]):
        softlabels.dump(teacher=teacher, data=data, out=str(tmp_path / "d"), batch_size=rows)
    assert not (tmp_path / "d").exists()


def test_log_probabilities_and_honest_numbers_from_0_to_1_are_taken(tmp_path, data):
    softlabels.dump(teacher=trace(Ending("log"), tmp_path / "l.pt"), data=data,
                    out=str(tmp_path / "l"))  # fmt: skip
    softlabels.dump(teacher=trace(Ending("sigmoid"), tmp_path / "s.pt"), data=data,
                    out=str(tmp_path / "s"), outputs="logits")  # fmt: skip
    assert 0 < softlabels.load(str(tmp_path / "s"), T=1)[0]["logits"].min() < 1


@pytest.mark.parametrize("end", ["percent", "sigmoid", "one", "votes 1000"])
def test_an_import_refuses_the_same(tmp_path, data, end):
    with torch.no_grad():
        values = Ending(end)(torch.from_numpy(VALUES)).numpy()
    np.save(tmp_path / "z.npy", values)
    words = {"file": str(tmp_path / "z.npy"), "data": data, "out": str(tmp_path / "d")}
    told = {"percent": "sum to 100", "sigmoid": "from 0 to 1", "one": "one number a row",
            "votes 1000": "times 1000 .* Divide by 1000"}[end]  # fmt: skip
    with pytest.raises(LogitsError, match=told):
        import_logits(**words)
    assert not (tmp_path / "d").exists()
    if end in ("sigmoid", "votes 1000"):
        import_logits(**words, outputs="logits")


LABELS = np.arange(80) % 3


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (LABELS + 1, r"the label 3 for the row with id 2, .* 3 classes, 0 to 2.*count from 1 to 3"),
        (np.where(np.arange(80) == 70, 9, LABELS), r"the label 9 for the row with id 70, and 1 "),
        (np.where(np.arange(80) == 70, -2, LABELS), r"holds -2; .* −1 or −100, which torch ign"),
    ],
)
def test_labels_that_are_no_class_are_refused_with_their_row(tmp_path, labels, told):
    data = write(tmp_path / "d.jsonl", VALUES, labels.tolist())
    teacher = trace(Plain(), tmp_path / "t.pt")
    with pytest.raises(LabelSpaceMismatch, match=told):
        softlabels.dump(teacher=teacher, data=data, out=str(tmp_path / "d"), batch_size=8)
    assert not (tmp_path / "d").exists()
    np.save(tmp_path / "z.npy", VALUES[:, :3])
    with pytest.raises(LabelSpaceMismatch, match=told):
        import_logits(file=str(tmp_path / "z.npy"), data=data, out=str(tmp_path / "d"))


class Masked(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).index_fill(1, torch.tensor([1]), -torch.inf)


def test_a_masked_class_is_told_how_to_be_stored(tmp_path, data):
    with pytest.raises(LogitsError, match=r"gave -inf .* if it masks a class, mask it with -1e4"):
        softlabels.dump(teacher=trace(Masked(), tmp_path / "t.pt"), data=data,
                        out=str(tmp_path / "d"))  # fmt: skip


class Dead(Plain):
    """No unit is awake: the bias is all that is left."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x * 0) + torch.tensor([1.0, 2.0, -3.0])


def test_the_same_answers_to_all_rows_are_said(tmp_path, data):
    for module, dead in ((Dead(), True), (Plain(), False)):
        lines, name = Lines(), type(module).__name__
        softlabels.dump(progress=lines, teacher=trace(module, tmp_path / f"{name}.pt"), data=data,
                        out=str(tmp_path / name))  # fmt: skip
        assert ("80 rows all get the same answers, though they differ" in str(lines)) == dead


@pytest.mark.parametrize("none", [-1, -100])
def test_minus_one_and_minus_100_are_no_label(tmp_path, none):
    data = write(tmp_path / "d.jsonl", VALUES, np.where(LABELS == 2, none, LABELS).tolist())
    teacher = trace(Plain(), tmp_path / "t.pt")
    found = softlabels.dump(teacher=teacher, data=data, out=str(tmp_path / "d"))
    assert found.manifest.statistics.labelled == 54
    assert set(softlabels.load(str(tmp_path / "d"), T=1).reader.labels.tolist()) == {-1, 0, 1}


class Offset(Plain):
    def __init__(self, offset: float, scale: float = 3.0, double: bool = False) -> None:
        super().__init__()
        self.offset, self.scale, self.double = offset, scale, double

    def forward(self, x: Tensor) -> Tensor:
        z = self.layer(x)
        return self.scale * (z.double() if self.double else z) + self.offset


@pytest.mark.parametrize("offset", [300.0, 3000.0, 30000.0, -3000.0])
def test_rounding_that_moves_soft_targets_is_refused(tmp_path, data, offset):
    teacher, out = trace(Offset(offset), tmp_path / "t.pt"), str(tmp_path / "d")
    with pytest.raises(LogitsError, match=r"with id \d+ by .*--dtype float32"):
        softlabels.dump(teacher=teacher, data=data, out=out)
    assert not Path(out).exists()
    softlabels.dump(teacher=teacher, data=data, out=out, dtype="float32")
    rows = softlabels.load(out, T=1).take(list(range(80)))
    right = torch.softmax(3 * Plain()(rows["input"]).double(), -1).float()
    torch.testing.assert_close(rows["soft_target"], right, atol=1e-3, rtol=0)


class Level(nn.Module):
    """Six classes, all nearly as likely, at 80."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.2 * x + 80


def test_a_mean_of_many_small_steps_is_refused(tmp_path, data):
    """Steps of 2⁻⁴ from 64 to 128: no row moves by 0.01, but all move."""
    teacher = trace(Level(), tmp_path / "t.pt")
    with pytest.raises(LogitsError, match=r"of the first 80 rows by a mean KL of .* nats at T = 1"):
        softlabels.dump(teacher=teacher, data=data, out=str(tmp_path / "d"))


def test_what_the_probe_did_not_see_is_refused_in_its_shard(tmp_path):
    values = VALUES.copy()
    values[60:] += 3000
    data = write(tmp_path / "d.jsonl", values)

    teacher = trace(First(), tmp_path / "t.pt")
    words = {"teacher": teacher, "data": data, "out": str(tmp_path / "d"), "batch_size": 20}
    with pytest.raises(LogitsError, match=r"row with id 6\d by .*--dtype float32"):
        softlabels.dump(**words, shard_rows=40)
    assert not (tmp_path / "d" / "softlabels.json").exists()
    words["out"] = str(tmp_path / "e")
    with pytest.raises(LogitsError, match=r"row with id 6\d by"):
        softlabels.dump(**words)
    softlabels.dump(**words, dtype="float32")  # nothing is left that blocks the next try


class First(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :3]


def test_large_logits_with_a_wide_spread_are_stored(tmp_path, data):
    """One class far ahead of the others: no rounding shows."""
    teacher = trace(Offset(0.0, 400.0), tmp_path / "t.pt")
    softlabels.dump(teacher=teacher, data=data, out=str(tmp_path / "d"))
    ahead = torch.tensor([[1000.3, 0.1, -900.7], [-40.2, 3.3, 33.3]])
    assert rounding_kl(ahead, ahead.half(), [0, 1]) < 1e-6


def test_float64_is_rounded_to_float32_as_carefully(tmp_path, data):
    teacher = trace(Offset(1e7, double=True), tmp_path / "t.pt")
    with pytest.raises(LogitsError, match="Nothing finer is stored: take a constant off each row"):
        softlabels.dump(teacher=teacher, data=data, out=str(tmp_path / "d"), dtype="float32")


@pytest.mark.parametrize(("dtype", "below"), [(torch.float16, 31.99), (torch.float32, 262143.0)])
def test_what_is_not_looked_at_can_do_no_harm(dtype, below):
    """The bound that spares the softmax: just below it, the worst of many rows is far from both."""
    random = torch.Generator().manual_seed(1)
    exact = below - 3 * torch.rand(2000, 5, generator=random, dtype=torch.float64)
    rounded = exact.to(dtype).double()
    exact, rounded = exact - below, rounded - below
    p, q = exact.softmax(-1), rounded.softmax(-1)
    assert (p - q).abs().max() < 4e-3
    assert (p * (p.log() - q.log())).sum(-1).max() < 3.1e-5


def test_the_mean_does_not_depend_on_the_batches():
    random = torch.Generator().manual_seed(2)
    z = 20 + 30 * torch.rand(200, 4, generator=random)
    whole = rounding_kl(z, z.half(), list(range(200)))
    parts = sum(rounding_kl(part, part.half(), list(range(7))) for part in z.split(7))
    assert whole == pytest.approx(parts, rel=1e-9)
    assert whole > 0
    with pytest.raises(LogitsError, match="of shard 3 by a mean KL"):
        check_rounding(1.0, 200, torch.float16, "shard 3")


def test_an_accuracy_like_guessing_is_said_at_the_end_and_by_verify(tmp_path):
    data = write(tmp_path / "d.jsonl", VALUES, LABELS.tolist())
    lines = Lines()
    softlabels.dump(progress=lines, teacher=trace(Plain(), tmp_path / "t.pt"), data=data,
                    out=str(tmp_path / "d"))  # fmt: skip
    (found,) = softlabels.verify(dump=str(tmp_path / "d")).warnings
    assert lines.lines[-1] == f"warning: {found}"
    assert "no better than guessing among 3 classes" in found
    np.save(tmp_path / "z.npy", VALUES[:, :3])
    words = {"file": str(tmp_path / "z.npy"), "data": data}
    import_logits(progress=lines, **words, out=str(tmp_path / "i"))
    assert "no better than guessing" in lines.lines[-1]
    good = VALUES[:, :3] + 5 * np.eye(3, dtype=np.float32)[LABELS]
    np.save(tmp_path / "z.npy", good)
    import_logits(progress=lines, **words, out=str(tmp_path / "g"))
    assert "guessing" not in lines.lines[-1]
    assert softlabels.verify(dump=str(tmp_path / "g")).warnings == []
