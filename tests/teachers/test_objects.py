"""A module or a callable in memory as `teacher=`: the same answers as by hand, nothing changed."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import softlabels
from softlabels.errors import LogitsError, PlanMismatch, TeacherError, UsageError
from softlabels.teachers import resolve
from tests.capture.test_engines import finish, ranks
from tests.conftest import Lines, make_vectors, whole


class Net(nn.Module):
    """With dropout and batch norm, which only eval mode keeps steady, and a frozen layer."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.norm = nn.Linear(6, 16), nn.BatchNorm1d(16)
        self.drop, self.last = nn.Dropout(0.5), nn.Linear(16, 3)
        self.first.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drop(self.norm(self.first(x)).relu()))


def state(module: nn.Module) -> list:
    """All that a dump must not change of a module."""
    modes = [(name, part.training) for name, part in module.named_modules()]
    grads = [(n, p.requires_grad, p.grad, p.device, p.is_inference()) for n, p in
             module.named_parameters()]  # fmt: skip
    return [modes, grads, {n: t.tolist() for n, t in module.state_dict().items()}]


def by_hand(module: nn.Module, x: Tensor) -> Tensor:
    modes = {part: part.training for part in module.modules()}
    with torch.no_grad():
        logits = module.eval()(x)
    for part, mode in modes.items():
        part.training = mode
    return logits


def inputs_of(vectors: str) -> Tensor:
    return softlabels.examples(vectors)["input"]


def plan_of(folder: Path) -> dict:
    return json.loads((folder / "plan.json").read_text())


def test_a_module_answers_as_by_hand_and_stays_as_it_was(vectors, tmp_path):
    net, out = Net().train(), tmp_path / "d"
    net.norm.eval()
    calls = []
    net.last.register_forward_hook(lambda *_: calls.append(net.drop.training))
    before = state(net)
    softlabels.dump(teacher=net, data=vectors, out=str(out), dtype="float32")
    assert state(net) == before
    assert calls
    assert not any(calls), "dropout was off"
    loaded = softlabels.load(str(out))
    assert torch.equal(whole(loaded), by_hand(net, loaded["input"]))
    record = plan_of(out)["teacher"]
    assert (record["name"], record["kind"]) == ("Net", "module")
    assert record["model"] == "tests.teachers.test_objects.Net"
    net(loaded["input"]).sum().backward()
    assert net.last.weight.grad is not None
    card = (out / "README.md").read_text()
    assert "teacher=TEACHER" in card
    assert f"data='{Path(vectors).name}'" in card


def test_a_cache_that_a_module_makes_while_it_is_dumped_can_be_trained_with(vectors, tmp_path):
    class Caching(Net):
        scale: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            if self.scale is None:
                self.scale = x.new_ones(1)
            return super().forward(x * self.scale)

    net = Caching()
    softlabels.dump(teacher=net, data=vectors, out=str(tmp_path / "d"))
    net(torch.ones(4, 6)).sum().backward()


def test_what_a_module_is_is_known_by_weights_repr_and_code():
    print_of = lambda module: resolve(module).fingerprint  # noqa: E731

    class Same(Net):
        pass

    class Other(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 2

    assert print_of(Net()) == print_of(Net().train()) == print_of(Net())
    prints = {print_of(m) for m in (Net(), Net(seed=1), Net().half(), Same(), Other())}
    assert len(prints) == 5
    lossy = Net()
    lossy.drop.p = 0.1
    assert print_of(lossy) not in prints
    spaces: list[dict] = [{"nn": nn}, {"nn": nn}, {"nn": nn}]
    for space, factor in zip(spaces, (2, 2, 3), strict=True):
        exec(f"class Typed(nn.Linear):\n  def forward(self, x): return x[:, :3] * {factor}", space)
    torch.manual_seed(0)
    weight = nn.Linear(6, 3).state_dict()
    typed = [space["Typed"](6, 3) for space in spaces]
    for module in typed:
        module.load_state_dict(weight)
    first, second, third = map(print_of, typed)
    assert first == second != third, "by its bytecode, where there is no source"


@pytest.mark.parametrize("gives", [
    lambda logits: logits,
    lambda logits: logits.numpy(),
    lambda logits: logits.double().tolist(),
    lambda logits: {"logits": logits.numpy()},
    lambda logits: (logits,),
])  # fmt: skip
def test_a_callable_may_give_tensors_arrays_or_lists(gives, vectors, tmp_path):
    net, seen = Net().eval(), []

    def remote(batch: Tensor):
        assert not batch.is_inference()
        seen.append((type(batch), batch.device.type))
        return gives(net(batch).detach())

    out = tmp_path / "d"
    softlabels.dump(
        teacher=remote, name="api", version="3", data=vectors, out=str(out), dtype="float32"
    )
    assert set(seen) == {(Tensor, "cpu")}
    record = plan_of(out)["teacher"]
    assert (record["kind"], record["name"], record["version"]) == ("callable", "api", "3")
    loaded = softlabels.load(str(out))
    torch.testing.assert_close(whole(loaded), by_hand(net, loaded["input"]))


def test_a_callable_needs_a_name_and_a_version(vectors):
    def api(batch):
        return batch[:, :3]

    with pytest.raises(UsageError, match="name and version of it are not given: say name="):
        softlabels.dump(teacher=api, data=vectors)
    with pytest.raises(UsageError, match=r"a function, .* version of it is not given"):
        softlabels.dump(teacher=api, name="api", data=vectors)
    with pytest.raises(UsageError, match="a module is known by its weights"):
        softlabels.dump(teacher=Net(), version="1", data=vectors)
    with pytest.raises(UsageError, match="version is '1', for a callable; t"):
        softlabels.dump(teacher="t.pt", version="1", data=vectors)
    with pytest.raises(UsageError, match="--weights is 'w', for files"):
        softlabels.dump(teacher=Net(), weights="w", data=vectors)
    with pytest.raises(UsageError, match="--teacher is a type; it must be text, or in"):
        softlabels.dump(teacher=Net, data=vectors)
    with pytest.raises(UsageError, match="remember its data"):
        softlabels.dump(teacher=Net())


def fails(batch: Tensor) -> Tensor:
    raise ConnectionError("refused by api.example")


@pytest.mark.parametrize(
    ("api", "error", "message"),
    [
        (lambda b: b[:-1, :3], TeacherError, r"gave a tensor \[255, 3\] for 256 inputs"),
        (lambda b: b[0, :3], TeacherError, r"gave a tensor \[3\] for 256 inputs"),
        (lambda b: "cat", TeacherError, "gave a str for 256 inputs"),
        (lambda b: None, TeacherError, "gave a NoneType"),
        (lambda b: [[1.0], [1.0, 2.0]], TeacherError, "does not say where the logits are"),
        (lambda b: np.array(["cat"] * len(b)), TeacherError, "gave a ndarray"),
        (fails, TeacherError, "the teacher api failed .*ConnectionError, refused by api.example"),
        (lambda b: b[:, :3].softmax(1), LogitsError, "so it ends in a softmax"),
        (lambda b: b[:, :3] + torch.rand(len(b), 3), TeacherError, "does not agree with itself"),
        (lambda b: b[:, :3] - b[:, :3].mean(0), TeacherError, "depend on"),
        (lambda b: b[torch.randperm(len(b)), :3], TeacherError, "does not agree with itself"),
        (lambda b: b[:, :3] / 0, LogitsError, "inf|NaN|nan"),
    ],
)  # fmt: skip
def test_a_callable_that_is_no_teacher_is_refused_in_words(api, error, message, vectors, tmp_path):
    with pytest.raises(error, match=message):
        softlabels.dump(teacher=api, name="api", version="1", data=vectors, out=str(tmp_path / "d"))
    assert not list(tmp_path.glob("d/**/*.parquet"))


def test_a_callable_that_wants_one_size_of_batch_gets_it(vectors, tmp_path):
    def four(batch: Tensor) -> Tensor:
        batch.sub_(1)  # also before it fails
        if len(batch) != 4:
            raise ValueError("I take 4 rows")
        return batch[:, :3]

    out, lines = str(tmp_path / "d"), Lines()
    softlabels.dump(teacher=four, name="four", version="1", data=vectors, out=out, progress=lines)
    assert "it runs with 4 rows at once" in str(lines)
    loaded = softlabels.load(out)
    torch.testing.assert_close(whole(loaded), (loaded["input"][:, :3] - 1).half())


def test_what_a_callable_keeps_of_its_batches_stays(vectors, tmp_path):
    """Batches lie in memory of earlier ones, but not of one that somebody has."""
    batches = []

    def api(batch: Tensor) -> Tensor:
        batches.append((batch[:, 1:], batch.clone()))
        return batch[:, :3]

    words = {"data": vectors, "preprocess": "scale(2)", "out": str(tmp_path / "d")}
    softlabels.dump(teacher=api, name="api", version="1", batch_size=8, **words)
    assert len(batches) > 5
    assert all(torch.equal(part, whole[:, 1:]) for part, whole in batches)


def test_a_failure_that_is_not_about_the_batch_is_not_tried_in_smaller_ones(vectors, tmp_path):
    calls = []

    def api(batch: Tensor) -> Tensor:
        calls.append(len(batch))
        if calls.count(8) == 12:
            raise RuntimeError("503: the service is overloaded")
        return batch @ torch.ones(batch.shape[1], 10).cumsum(1)

    words = {"teacher": api, "name": "api", "version": "1", "data": vectors, "labels": False}
    with pytest.raises(TeacherError, match="503: the service is overloaded"):
        softlabels.dump(**words, out=str(tmp_path / "d"), batch_size=8)
    assert calls[-1] == 8
    assert calls.count(8) == 12


def test_a_callable_that_fails_midway_loses_nothing(vectors, tmp_path):
    class Api:
        calls, breaks = 0, True

        def __call__(self, batch: Tensor) -> Tensor:
            if self.breaks and (batch[:, 0] == last).any():
                raise OSError("line cut")
            return batch[:, :3]

    last = inputs_of(vectors)[-1, 0]
    api, out = Api(), str(tmp_path / "d")
    words = {"teacher": api, "name": "api", "version": "1", "data": vectors, "out": out,
             "shard_rows": 100, "batch_size": 50}  # fmt: skip
    with pytest.raises(TeacherError, match="OSError, line cut"):
        softlabels.dump(**words)
    api.breaks = False
    assert softlabels.dump(**words, resume=True).rows_run == 100
    assert softlabels.verify(dump=out).good


def test_a_resume_and_a_replay_want_the_same_object(vectors, tmp_path, cli):
    out = tmp_path / "d"
    softlabels.dump(teacher=Net(), data=vectors, out=str(out), shard_rows=100)
    assert softlabels.verify(dump=str(out), replay=50, teacher=Net()).good
    with pytest.raises(TeacherError, match="the teacher Net is not this dump's teacher"):
        softlabels.verify(dump=str(out), replay=50, teacher=Net(seed=1))
    next(iter((out / "data").iterdir())).unlink()
    remedy = softlabels.verify(dump=str(out)).remedy
    assert "softlabels.dump(teacher=TEACHER" in remedy
    assert "resume=True), where TEACHER is the teacher's module" in remedy
    with pytest.raises(PlanMismatch, match=r"teacher\.fingerprint is .* and was"):
        softlabels.dump(teacher=Net(seed=1), data=vectors, out=str(out), resume=True)
    assert softlabels.dump(teacher=Net(), data=vectors, out=str(out), resume=True).rows_run == 100
    done = cli("verify", out, "--replay", 50, "--teacher", "t.pt")
    assert done.code == 1
    assert "was a module in memory" in done.err
    assert "softlabels.verify(dump=…, replay=100, teacher=…)" in done.err


def test_a_module_is_measured_beside_the_dump_of_another(vectors, tmp_path):
    out, net = str(tmp_path / "d"), Net().train()
    softlabels.dump(teacher=net, data=vectors, out=out, dtype="float32")
    before = state(net)
    measured = softlabels.evaluate(checkpoint=net, data=vectors, split="train", against=out)
    assert state(net) == before
    assert (measured["checkpoint"], measured["rows"]) == ("Net", 300)
    assert measured["against"]["agreement"] == 1
    wrong = by_hand(net, inputs_of(vectors)).argmax(1) != softlabels.load(out)["label"]
    assert measured["errors"] == int(wrong.sum())
    rows = [{"x": x, "y": i % 3} for i, x in enumerate(inputs_of(vectors))]
    softlabels.dump(teacher=net, data=rows, out=str(tmp_path / "live"))
    live = softlabels.evaluate(checkpoint=first_three, data=rows, against=str(tmp_path / "live"))
    assert (live["checkpoint"], live["against"]["rows"]) == ("first_three", 300)


def first_three(batch: Tensor) -> Tensor:
    return batch[:, :3]


def test_a_replay_of_a_callable_wants_its_version(vectors, tmp_path):
    out = str(tmp_path / "d")
    softlabels.dump(teacher=first_three, name="api", version="1", data=vectors, out=out)
    assert softlabels.verify(dump=out, replay=50, teacher=first_three, version="1").good
    with pytest.raises(TeacherError, match="is not this dump's teacher"):
        softlabels.verify(dump=out, replay=50, teacher=first_three, version="2")


def test_a_module_is_not_moved(vectors, tmp_path):
    net = Net()
    with pytest.raises(TeacherError, match="not in memory"):
        softlabels.dump(teacher=Net().to("meta"), data=vectors, out=str(tmp_path / "d"))
    softlabels.plan(teacher=net, data=vectors, out=str(tmp_path / "d"), device="cpu")
    assert next(net.parameters()).device.type == "cpu"
    assert not (tmp_path / "d").exists()


def test_ray_takes_no_objects(vectors):
    with pytest.raises(UsageError, match="--engine ray opens the teacher in each worker"):
        softlabels.dump(teacher=Net(), data=vectors, engine="ray")


def test_ranks_with_other_objects_are_refused_together(tmp_path):
    vectors = make_vectors(tmp_path / "v.parquet")
    for work, codes, shards in (
        (dump_other_weights, [3, 3], 0),
        (dump_other_inputs, [3, 3], 0),
        (dump_the_same, [0, 0], 6),
    ):
        out = tmp_path / work.__name__
        assert finish(ranks(2, work, data=vectors, out=str(out), shard_rows=50)) == codes
        assert len(list(out.glob("data/*.parquet"))) == shards


def dump_other_weights(**words) -> None:
    softlabels.dump(teacher=Net(seed=int(os.environ["RANK"])), **words)


def dump_other_inputs(**words) -> None:
    """The same labels on each rank."""
    torch.manual_seed(int(os.environ["RANK"]))
    rows = [(torch.randn(6), row % 3) for row in range(300)]
    softlabels.dump(teacher=Net(), **words | {"data": rows})


def dump_the_same(**words) -> None:
    softlabels.dump(teacher=Net(), **words)


def test_a_transformer_that_gets_padding_and_no_mask_is_refused(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 30, "hidden_size": 16, "num_attention_heads": 2, "num_labels": 3,
             "num_hidden_layers": 1, "intermediate_size": 16}  # fmt: skip
    config = transformers.BertConfig(**sizes)
    bert = transformers.BertForSequenceClassification(config)
    tokens = torch.randint(1, 30, (40, 12))
    whole_rows = [{"input_ids": row, "label": 0} for row in tokens]
    words = {"preprocess": "tokens", "out": str(tmp_path / "d"), "dtype": "float32"}
    softlabels.dump(teacher=bert, data=whole_rows, **words)
    tokens[5:, 8:] = 0
    padded = [{"input_ids": row, "label": 0} for row in tokens]
    words["out"] = str(tmp_path / "padded")
    with pytest.raises(TeacherError, match="35 of 40 rows begin or end with the token 0") as caught:
        softlabels.dump(teacher=bert, data=padded, **words)
    assert "put a column attention_mask beside input_ids" in str(caught.value)
    unnamed = [{"ids": row, "label": 0} for row in tokens]
    with pytest.raises(TeacherError, match="35 of 40 rows hold its padding, the token 0") as caught:
        softlabels.dump(teacher=bert, data=unnamed, **words)
    assert "Call the column of tokens input_ids, and put a column attention_" in str(caught.value)

    def masked(ids: Tensor):
        return bert.eval()(ids, attention_mask=ids != 0)

    softlabels.dump(teacher=masked, name="bert", version="1", data=padded, **words)
    with torch.no_grad():
        expected = masked(tokens).logits
    torch.testing.assert_close(whole(softlabels.load(words["out"], inputs=False)), expected)
    stacked = [{"input": torch.stack([row, (row != 0).long()]), "label": 0} for row in tokens]

    def parted(batch: Tensor):
        return bert.eval()(input_ids=batch[:, 0], attention_mask=batch[:, 1])

    words["out"] = str(tmp_path / "parted")
    softlabels.dump(teacher=parted, name="bert", version="1", data=stacked, **words)
    torch.testing.assert_close(whole(softlabels.load(words["out"], inputs=False)), expected)
