"""ONNX files as teachers, run by onnxruntime."""

import json
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

import softlabels
from softlabels.errors import MissingExtra, PlanMismatch, TeacherError, UsageError
from softlabels.reports.recipe import recipe
from softlabels.store.plan import Plan
from softlabels.teachers import resolve
from tests.conftest import Lines, make_vectors
from tests.onnx_files import FLOAT, net, run_by_hand, save, save_net

INPUTS = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))


def largest(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).abs().max())


GRAPHS = {
    "float32": ({}, None, 1e-6),
    "float64": ({"dtype": TensorProto.DOUBLE}, None, 1e-6),
    "float16": ({"dtype": TensorProto.FLOAT16}, None, 5e-3),
    "takes float64": ({"takes": TensorProto.DOUBLE}, None, 1e-6),
    "five rows": ({"rows": 5}, None, 1e-6),
    "weights beside it": ({"external": "m.onnx.data"}, None, 1e-6),
    "the one called logits": ({"outputs": ("logits", "hidden")}, None, 1e-6),
    "an inner tensor": ({"last": ("Softmax",)}, "z", 1e-6),
    "an inner tensor of weights beside it": (
        {"last": ("Softmax",), "external": "weights.bin"}, "z", 1e-6),
}  # fmt: skip


@pytest.mark.parametrize("kind", GRAPHS)
def test_logits_are_those_of_onnxruntime_by_hand_and_of_torch(tmp_path, kind):
    options, name, rounding = GRAPHS[kind]
    options = dict(options)
    last = options.pop("last", ())
    path = save_net(tmp_path / "m.onnx", *last, **options)
    teacher = resolve(path, logits=name)
    assert teacher.kind == "onnx"
    logits = teacher.logits(INPUTS)
    plain = save_net(tmp_path / "plain.onnx", **{k: options[k] for k in options if k != "outputs"})
    takes = {"float64": torch.double, "takes float64": torch.double, "float16": torch.half}
    by_hand = run_by_hand(plain, INPUTS.to(takes.get(kind, torch.float32)))
    differences = largest(logits, by_hand), largest(logits, net()(INPUTS).detach())
    print(f"{kind}: {differences[0]:.2g} from onnxruntime by hand, {differences[1]:.2g} from torch")
    assert differences[0] == 0
    assert differences[1] <= rounding


@pytest.mark.parametrize("rows", [1, 4, 9, 12])
def test_a_graph_for_a_fixed_number_of_rows_runs_on_any(tmp_path, rows):
    teacher = resolve(save_net(tmp_path / "m.onnx", rows=4))
    inputs = torch.randn(rows, 6)
    assert largest(teacher.logits(inputs), net()(inputs).detach()) < 1e-6
    assert "the graph takes 4 rows at once, and no others" in teacher.feed.remarks


LASTS = {
    ("Softmax",): "Softmax",
    ("Softmax", "Identity"): "Softmax",
    ("Cast", "Softmax", "Cast", "Reshape"): "Softmax",
    ("Sigmoid",): "Sigmoid",
    ("Sigmoid", "Reshape"): "Sigmoid",
    ("ArgMax",): "ArgMax",
}


@pytest.mark.parametrize("last", LASTS, ids=str)
def test_a_last_layer_that_loses_the_logits_is_known_and_its_input_proposed(tmp_path, last):
    path, data = save_net(tmp_path / "m.onnx", *last), make_vectors(tmp_path / "v.parquet", 60)
    with pytest.raises(
        TeacherError, match=rf"y comes out of a {LASTS[last]}, .*--logits (\w+)$"
    ) as e:
        softlabels.dump(teacher=path, data=data, out=str(tmp_path / "d"))
    proposed = str(e.value).rpartition("--logits ")[2]
    softlabels.dump(teacher=path, data=data, out=str(tmp_path / "d"), logits=proposed)
    rows = softlabels.load(str(tmp_path / "d"), T=1).take(list(range(60)))
    torch.testing.assert_close(
        rows["logits"].float(), net()(rows["input"]).detach(), atol=2e-3, rtol=1e-3
    )


def test_what_goes_into_a_sigmoid_is_said_to(tmp_path):
    path = save_net(tmp_path / "m.onnx", "Sigmoid")
    with pytest.raises(TeacherError, match=r"--task multilabel\).*--outputs binary\).*--logits z$"):
        resolve(path)
    (remark,) = resolve(path, logits="z").remarks
    assert "z goes into a Sigmoid: a model of several labels a row ends so" in remark
    assert resolve(path, logits="hidden").remarks == []


def test_a_softmax_in_steps_is_known_as_one(tmp_path):
    """As tf2onnx writes that of JAX."""
    steps = [
        helper.make_node("ReduceMax", ["z"], ["max"], axes=[1], keepdims=0),
        helper.make_node("Max", ["least", "max"], ["maximum"]),
        helper.make_node("Unsqueeze", ["maximum", "last"], ["spread"]),
        helper.make_node("Sub", ["z", "spread"], ["sub"]),
        helper.make_node("Exp", ["sub"], ["exp"]),
        helper.make_node("ReduceSum", ["exp", "last"], ["sum"], keepdims=0),
        helper.make_node("Reshape", ["sum", "column"], ["total"]),
        helper.make_node("Div", ["exp", "total"], ["y"]),
    ]
    constants = [
        helper.make_tensor("least", FLOAT, [], [-np.inf]),
        helper.make_tensor("last", TensorProto.INT64, [1], [1]),
        helper.make_tensor("column", TensorProto.INT64, [2], [-1, 1]),
    ]
    path = save_net(tmp_path / "m.onnx", steps=steps, constants=constants)
    with pytest.raises(TeacherError, match=r"y comes out of a Softmax, .*--logits z$"):
        resolve(path)
    assert largest(resolve(path, logits="z").logits(INPUTS), net()(INPUTS).detach()) < 1e-6
    normalized = [helper.make_node("ReduceSum", ["z", "last"], ["sum"]),
                  helper.make_node("Div", ["z", "sum"], ["y"])]  # fmt: skip
    other = save_net(tmp_path / "o.onnx", steps=normalized, constants=constants)
    assert resolve(other).logits(INPUTS).shape == (5, 3)


def test_a_log_softmax_serves_and_is_said_to_be_one(tmp_path):
    path, data = save_net(tmp_path / "m.onnx", "LogSoftmax"), make_vectors(tmp_path / "v.parquet")
    lines = Lines()
    softlabels.dump(progress=lines, teacher=path, data=data, out=str(tmp_path / "d"))
    assert "y comes out of a LogSoftmax: logits minus a constant in each row" in str(lines)
    assert "for what goes in, say --logits z" in str(lines)
    rows = softlabels.load(str(tmp_path / "d"), T=4).take(list(range(300)))
    probs = torch.softmax(net()(rows["input"]).detach() / 4, 1)
    torch.testing.assert_close(rows["soft_target"].float(), probs, atol=1e-3, rtol=1e-2)


def test_a_sigmoid_that_is_named_is_left_to_the_probe(tmp_path):
    path = save_net(tmp_path / "m.onnx", "Sigmoid")
    assert (
        largest(resolve(path, logits="y").logits(INPUTS), net()(INPUTS).sigmoid().detach()) < 1e-6
    )
    data = make_vectors(tmp_path / "v.parquet")
    with pytest.raises(softlabels.SoftlabelsError, match="as a sigmoid does"):
        softlabels.dump(teacher=path, data=data, out=str(tmp_path / "d"), logits="y")
    with pytest.raises(TeacherError, match="comes out of a Softmax"):
        resolve(save_net(tmp_path / "s.onnx", "Softmax"), logits="y")


def test_several_outputs_are_listed_and_one_proposed(tmp_path):
    path = save_net(tmp_path / "m.onnx", "Identity", outputs=("hidden", "first"))
    with pytest.raises(
        TeacherError,
        match=r"gives 3 outputs: y float32 \[N, 3\], hidden float32 \[N, 8\], .*--logits y",
    ):
        resolve(path)
    assert resolve(path, logits="hidden").logits(INPUTS).shape == (5, 8)
    soft = save_net(tmp_path / "s.onnx", "Softmax", outputs=("hidden",))
    with pytest.raises(TeacherError, match=r"gives 2 outputs: .*such as --logits z"):
        resolve(soft)


def test_a_name_of_no_tensor_is_answered_with_those_that_are_near(tmp_path):
    path = save_net(tmp_path / "m.onnx")
    with pytest.raises(
        TeacherError, match=r"--logits is 'hiden', .* no tensor among the \d of .* near are hidden"
    ):
        resolve(path, logits="hiden")
    script = tmp_path / "t.pt"
    torch.jit.trace(net(), INPUTS).save(str(script))
    with pytest.raises(UsageError, match="--logits is for ONNX files"):
        resolve(str(script), logits="z")
    with pytest.raises(UsageError, match="--logits is 'z', a tensor of an ONNX file, and tests"):
        resolve("tests.onnx_files:net", logits="z")


def no_classifier(path: Path, shape: list) -> str:
    picture = helper.make_tensor_value_info("x", FLOAT, ["N", 3, 8, 8])
    given = helper.make_tensor_value_info("y", FLOAT, shape)
    kind = "Relu" if len(shape) == 4 else "ReduceMean"
    options = {} if len(shape) == 4 else {"keepdims": 0}
    return save(path, [helper.make_node(kind, ["x"], ["y"], **options)], [picture], [given])


@pytest.mark.parametrize("shape", [["N", 3, 8, 8], []], ids=str)
def test_a_graph_that_is_no_classifier_is_refused(tmp_path, shape):
    with pytest.raises(TeacherError, match=r"y float32 \[.*\] is no row of numbers for each input"):
        resolve(no_classifier(tmp_path / "m.onnx", shape))


def test_maps_of_one_pixel_are_rows(tmp_path):
    picture = helper.make_tensor_value_info("x", FLOAT, ["N", 3, 8, 8])
    given = helper.make_tensor_value_info("y", FLOAT, ["N", 3, 1, 1])
    node = helper.make_node("GlobalAveragePool", ["x"], ["y"])
    teacher = resolve(save(tmp_path / "m.onnx", [node], [picture], [given]))
    inputs = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(teacher.logits(inputs), inputs.mean((2, 3)))


@pytest.mark.parametrize("kept", [0, 1, 40, 0.5, 0.97])
def test_a_truncated_file_is_refused(tmp_path, kept):
    content = Path(save_net(tmp_path / "m.onnx")).read_bytes()
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(TeacherError, match=r"cut.onnx .*(copy|Copy)"):
        resolve(str(cut))
    (tmp_path / "text.onnx").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(TeacherError, match="no whole ONNX file"):
        resolve(str(tmp_path / "text.onnx"))


def test_the_contents_decide_and_not_the_ending(tmp_path):
    assert resolve(save_net(tmp_path / "m.bin")).kind == "onnx"


def test_inputs_of_another_shape_are_refused_with_both(tmp_path, teacher):
    path = save_net(tmp_path / "m.onnx")
    for shape in ((5, 7), (5, 1, 2, 3)):
        match = rf"takes x float32 \[N, 6\], and these inputs are \[5, {shape[1]}"
        with pytest.raises(TeacherError, match=match):
            resolve(path).logits(torch.zeros(shape))


def test_what_this_runtime_does_not_know_is_refused_in_words(tmp_path):
    teacher = resolve(save_net(tmp_path / "m.onnx", opset=99))
    with pytest.raises(TeacherError, match=r"can't be loaded by onnxruntime .*pset 99.* upgrade"):
        teacher.logits(INPUTS)
    values = [helper.make_tensor_value_info(name, FLOAT, ["N", 3]) for name in "xy"]
    node = helper.make_node("Frobnicate", ["x"], ["y"])
    path = save(tmp_path / "f.onnx", [node], values[:1], values[1:])
    with pytest.raises(TeacherError, match=r"can't be loaded by onnxruntime .*Frobnicate"):
        resolve(path).logits(torch.zeros(2, 3))


@pytest.mark.parametrize("library", ["onnx", "onnxruntime"])
def test_without_the_extra_it_is_named(tmp_path, monkeypatch, library):
    path = save_net(tmp_path / "m.onnx")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtra, match=rf"needs {library}, .*pip install 'softlabels\[onnx\]'"):
        resolve(path)


def test_several_inputs_are_refused_unless_the_file_fills_them_in(tmp_path):
    names = ["x", "mask"]
    takes = [helper.make_tensor_value_info(name, FLOAT, ["N", 3]) for name in names]
    given = [helper.make_tensor_value_info("y", FLOAT, ["N", 3])]
    nodes = [helper.make_node("Mul", names, ["y"])]
    two = resolve(save(tmp_path / "two.onnx", nodes, takes, given))
    with pytest.raises(
        TeacherError, match=r"2 inputs, x, mask, .*--input-column x --input-column m"
    ):
        two.logits(torch.ones(2, 3))
    filled = helper.make_tensor("mask", FLOAT, [1, 3], [1.0, 2.0, 3.0])
    takes[1] = helper.make_tensor_value_info("mask", FLOAT, [1, 3])
    teacher = resolve(save(tmp_path / "one.onnx", nodes, takes, given, [filled]))
    assert teacher.logits(torch.ones(2, 3)).tolist() == [[1, 2, 3]] * 2


def test_whole_numbers_become_others_where_none_changes(tmp_path):
    path = save_net(tmp_path / "m.onnx", takes=TensorProto.UINT8)
    inputs = torch.randint(0, 256, (5, 6))
    right = net()(inputs.float()).detach()
    for given in (inputs, inputs.float(), inputs.to(torch.uint8)):
        teacher = resolve(path)
        assert largest(teacher.logits(given), right) < 1e-4
    teacher.logits(inputs)
    assert "inputs, int64, are given as uint8, all unchanged" in teacher.feed.remarks
    for value, shown in ((0.5, "0.5"), (256.0, "256"), (-1.0, "-1"), (float("nan"), "nan")):
        wrong = inputs.float()
        wrong[2, 3] = value
        with pytest.raises(TeacherError, match=rf"such as {shown}, which uint8 can't hold"):
            resolve(path).logits(wrong)


def test_tokens_reach_a_graph_of_int32(tmp_path):
    rows = [{"x": [i % 5, i % 7, 3, 2, 1, 0], "label": i % 3} for i in range(60)]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    path, lines = save_net(tmp_path / "m.onnx", takes=TensorProto.INT32), Lines()
    softlabels.dump(progress=lines, teacher=path, data=str(tmp_path / "d.jsonl"),
                    preprocess="tokens", out=str(tmp_path / "d"))  # fmt: skip
    assert "inputs, int64, are given as int32, all unchanged" in str(lines)
    stored = softlabels.load(str(tmp_path / "d"), T=1).take(list(range(60)))
    right = net()(torch.tensor([row["x"] for row in rows]).float()).detach()
    torch.testing.assert_close(stored["logits"].float(), right, atol=2e-3, rtol=1e-3)


def test_pictures_are_given_with_channels_last_where_the_graph_takes_them_so(tmp_path):
    def mean_of(shape: list, axes: list) -> str:
        picture = helper.make_tensor_value_info("x", FLOAT, shape)
        given = helper.make_tensor_value_info("y", FLOAT, ["N", 3])
        node = helper.make_node("ReduceMean", ["x"], ["y"], axes=axes, keepdims=0)
        return save(tmp_path / "m.onnx", [node], [picture], [given])

    inputs = torch.randn(4, 3, 8, 9)
    teacher = resolve(mean_of(["N", 8, 9, 3], [1, 2]))
    torch.testing.assert_close(teacher.logits(inputs), inputs.mean((2, 3)))
    assert "channels last: [3, 8, 9] is given as [8, 9, 3]" in str(teacher.feed.remarks)
    plain = resolve(mean_of(["N", 3, 8, 9], [2, 3]))
    torch.testing.assert_close(plain.logits(inputs), inputs.mean((2, 3)))
    with pytest.raises(TeacherError, match=r"\[N, 3, 9, 8\], and these inputs are \[4, 3, 8, 9\]"):
        resolve(mean_of(["N", 3, 9, 8], [2, 3])).logits(inputs)


@pytest.mark.parametrize("precision", ["bf16", "tf32", "fp16"])
def test_a_graph_has_its_own_precision(tmp_path, precision):
    with pytest.raises(UsageError, match=rf"--precision is {precision}.*own precision"):
        resolve(save_net(tmp_path / "m.onnx")).logits(INPUTS, precision)


METADATA = {
    "a list in JSON": {"class_names": '["a", "b", "c"]'},
    "a dict in JSON": {"id2label": '{"0": "a", "1": "b", "2": "c"}'},
    "a dict as Python prints it": {"names": "{0: 'a', 1: 'b', 2: 'c'}", "task": "classify"},
}


@pytest.mark.parametrize("metadata", METADATA.values(), ids=METADATA)
def test_class_names_are_read_off_metadata(tmp_path, metadata):
    assert resolve(save_net(tmp_path / "m.onnx", metadata=metadata)).class_names == ["a", "b", "c"]


@pytest.mark.parametrize(("names", "problem"), [("abcd", r"z float32 \[N, 3\] has not as many"),
                                            ("aba", "'a' comes twice")])  # fmt: skip
def test_class_names_that_are_not_of_these_classes_are_left_out(tmp_path, names, problem):
    path = save_net(tmp_path / "m.onnx", metadata={"names": json.dumps(list(names))})
    teacher = resolve(path)
    assert teacher.class_names is None
    assert re.search(f"class names in its metadata are left out: {problem}", teacher.remarks[0])


@pytest.mark.parametrize("text", ["[1, 2]", "{0: 'a', 2: 'b'}", "a, b, c", "[" * 9000, ""])
def test_other_metadata_name_no_classes(tmp_path, text):
    path = save_net(tmp_path / "m.onnx", metadata={"names": text})
    assert resolve(path).class_names is None


def test_weights_beside_the_graph_are_part_of_the_teacher(tmp_path):
    path = save_net(tmp_path / "m.onnx", external="m.bin")
    before = resolve(path).fingerprint
    weights = tmp_path / "m.bin"
    changed = bytearray(weights.read_bytes())
    changed[5] ^= 1
    weights.write_bytes(changed)
    assert resolve(path).fingerprint != before
    weights.write_bytes(changed[:-4])
    with pytest.raises(TeacherError, match=r"m.bin has \d+ bytes, and m.onnx reads .* is cut off"):
        resolve(path)
    weights.unlink()
    with pytest.raises(TeacherError, match=r"m.bin is missing: put it beside the graph"):
        resolve(path)


def test_links_that_the_runtime_does_not_follow_are_told(tmp_path):
    """A cache of the Hub has a link for each file."""
    save_net(tmp_path / "m.onnx", external="m.bin")
    (tmp_path / "cache").mkdir()
    for name in ("m.onnx", "m.bin"):
        (tmp_path / "cache" / name).symlink_to(tmp_path / name)
    with pytest.raises(TeacherError, match="copy them into one, with cp -L"):
        resolve(str(tmp_path / "cache" / "m.onnx")).logits(INPUTS)


@pytest.mark.parametrize("name", ["../m.bin", "/etc/hostname", "a/../../m.bin", "..\\m.bin"])
def test_weights_out_of_the_folder_are_not_read(tmp_path, name):
    import onnx

    path = save_net(tmp_path / "m.onnx", external="m.bin")
    model = onnx.load_model(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        entry.value = name if entry.key == "location" else entry.value
    onnx.save_model(model, path)
    with pytest.raises(TeacherError, match="out of its folder"):
        resolve(path)


@pytest.fixture
def road(tmp_path) -> dict:
    names = {"names": '["a", "b", "c"]'}
    path = save_net(tmp_path / "m.onnx", "Softmax", outputs=("same",), metadata=names)
    return {"teacher": path, "data": make_vectors(tmp_path / "v.parquet", 120), "logits": "z",
            "shard_rows": 50, "batch_size": 25}  # fmt: skip


def test_the_road_of_a_graph(tmp_path, road, cli):
    """Dump, resume after a loss, replay without the tensor's name, the card's command, eval."""
    out, lines = tmp_path / "d", Lines()
    softlabels.dump(progress=lines, **road, out=str(out))
    assert "teacher m (onnx, 3 classes)" in str(lines)
    assert "CPUExecutionProvider" in str(lines)
    plan = Plan.parse(json.loads((out / "plan.json").read_text()), "plan.json")
    assert (plan.teacher.kind, plan.teacher.logits) == ("onnx", "z")
    assert "--logits z" in recipe(plan)
    files = {p: p.read_bytes() for p in (out / "data").iterdir()}
    sorted(files)[1].unlink()
    softlabels.dump(**road, out=str(out), resume=True)
    assert {p: p.read_bytes() for p in (out / "data").iterdir()} == files
    assert softlabels.verify(dump=str(out), replay=50, teacher=road["teacher"]).good
    with pytest.raises(PlanMismatch, match=r"teacher.logits is 'same' and was 'z'"):
        softlabels.dump(**road | {"logits": "same"}, out=str(out), resume=True)
    done = cli("eval", road["teacher"], "--logits", "z", "--data", road["data"], "--split", "train",
               "--against", out, "--json")  # fmt: skip
    assert done.code == 0, done.err
    assert done.value["against"]["agreement"] == 1


def test_a_graph_in_another_process(road):
    teacher = resolve(road["teacher"], logits="z")
    before = teacher.logits(INPUTS)
    assert torch.equal(pickle.loads(pickle.dumps(teacher)).logits(INPUTS), before)


def test_two_ranks_and_a_graph(tmp_path, road):
    from tests.capture.test_engines import ranks

    softlabels.dump(**road, out=str(tmp_path / "one"))
    processes = ranks(2, **road, out=str(tmp_path / "two"))
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    for file in (tmp_path / "one" / "data").iterdir():
        assert (tmp_path / "two" / "data" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.slow
def test_workers_of_ray_open_the_graph_again(tmp_path, road, cli):
    softlabels.dump(**road, out=str(tmp_path / "one"))
    options = [
        item for name, value in road.items() for item in (f"--{name.replace('_', '-')}", value)
    ]
    done = cli("dump", *options, "--out", tmp_path / "two", "--engine", "ray", timeout=300)
    assert done.code == 0, done.err
    for file in (tmp_path / "one" / "data").iterdir():
        assert (tmp_path / "two" / "data" / file.name).read_bytes() == file.read_bytes()


def test_a_graph_that_hides_its_number_of_rows(tmp_path):
    """Its shape says any number, and a Reshape inside knows only four."""
    reshape = [helper.make_node("Reshape", ["z", "four"], ["y"])]
    four = [helper.make_tensor("four", TensorProto.INT64, [2], [4, 3])]
    teacher = resolve(save_net(tmp_path / "m.onnx", steps=reshape, constants=four))
    inputs = torch.randn(10, 6)
    assert largest(teacher.logits(inputs), net()(inputs).detach()) < 1e-6
    assert "it runs with 4 rows at once and not with any other number" in teacher.feed.remarks


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_graph_that_torch_exports(tmp_path):
    torch.manual_seed(3)
    cnn = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(),
                              torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
                              torch.nn.Linear(4, 5)).eval()  # fmt: skip
    pictures = torch.randn(6, 3, 9, 9)
    for name, free in (("any rows", {"pictures": {0: "N"}}), ("two rows", {})):
        path = str(tmp_path / f"{name}.onnx")
        torch.onnx.export(cnn, (pictures[:2],), path, dynamo=False, input_names=["pictures"],
                          dynamic_axes=free)  # fmt: skip
        moved = largest(resolve(path).logits(pictures), cnn(pictures).detach())
        print(f"exported for {name}: {moved:.2g} from torch")
        assert moved < 1e-6


def test_numpy_is_not_changed_by_a_graph(tmp_path):
    """The logits that are kept are not memory that the next run writes to."""
    teacher = resolve(save_net(tmp_path / "m.onnx"))
    first = teacher.logits(INPUTS)
    kept = first.numpy().copy()
    teacher.logits(INPUTS + 1)
    assert np.array_equal(kept, first.numpy())
