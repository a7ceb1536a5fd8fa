"""Small ONNX files, made by hand: each name, shape and last layer is known."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

FLOAT = TensorProto.FLOAT


def net() -> nn.Sequential:
    """What the graph of `save_net` computes."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def save_net(
    path: Path,
    *last: str,
    rows: int | str = "N",
    dtype: int = FLOAT,
    takes: int | None = None,
    outputs: tuple[str, ...] = (),
    module: nn.Sequential | None = None,
    steps: Sequence = (),
    constants: Sequence = (),
    **more: Any,
) -> str:
    """x [rows, 6] → hidden → z [rows, 3] → each of the `last` layers → y; without these z is the
    output.

    steps, constants: nodes from z to y, and what else they take
    dtype: of weights and logits; takes: of x, cast to it; outputs: beside the last
    """
    numpy_type = helper.tensor_dtype_to_np_dtype(dtype)
    weights = [
        numpy_helper.from_array(tensor.numpy().astype(numpy_type), name)
        for name, tensor in zip(("w1", "b1", "w2", "b2"), (module or net()).state_dict().values(),
                                strict=True)
    ]  # fmt: skip
    nodes = [
        helper.make_node("Cast", ["x"], ["cast"], to=dtype),
        helper.make_node("Gemm", ["cast", "w1", "b1"], ["first"], transB=1),
        helper.make_node("Relu", ["first"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "w2", "b2"], ["z"], transB=1),
    ]
    shape, name = [rows, 3], "z"
    for index, layer in enumerate(last):
        options = {"to": FLOAT} if layer == "Cast" else {}
        made = "y" if index == len(last) - 1 else f"after_{layer.lower()}_{index}"
        if layer == "Reshape":
            weights.append(numpy_helper.from_array(np.array([-1, 3]), "shape"))
        nodes.append(
            helper.make_node(layer, [name, "shape"] if layer == "Reshape" else [name], [made],
                             **options)
        )  # fmt: skip
        name = made
    nodes, weights, name = [*nodes, *steps], [*weights, *constants], "y" if steps else name
    ending = TensorProto.INT64 if last[-1:] == ("ArgMax",) else dtype
    given = [helper.make_tensor_value_info(name, ending, None if "ArgMax" in last else shape)]
    sizes = {"hidden": 8, "first": 8, "z": 3, "logits": 3, "same": 3}
    for other in outputs:
        if other in ("logits", "same"):
            nodes.append(helper.make_node("Identity", ["z"], [other]))
        given.append(helper.make_tensor_value_info(other, dtype, [rows, sizes[other]]))
    inputs = [helper.make_tensor_value_info("x", takes or dtype, [rows, 6])]
    return save(path, nodes, inputs, given, weights, **more)


def save(
    path: Path,
    nodes: list,
    inputs: list,
    outputs: list,
    weights: list = (),
    *,
    opset: int = 17,
    external: str | None = None,
    metadata: dict[str, str] | None = None,
) -> str:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, weights)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, producer_name="tests"
    )
    helper.set_model_props(model, metadata or {})
    if external is not None:
        onnx.save_model(model, path, save_as_external_data=True, location=external,
                        all_tensors_to_one_file=True, size_threshold=0)  # fmt: skip
    else:
        onnx.save_model(model, path)
    return str(path)


def run_by_hand(path: str, inputs: torch.Tensor, output: str | None = None) -> torch.Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return torch.from_numpy(session.run(output and [output], {name: inputs.numpy()})[0])
