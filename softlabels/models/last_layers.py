"""The last layer that each tensor of an ONNX graph comes out of, where that loses the logits."""

from collections.abc import Collection, Sequence
from typing import Any

# Layers after which logits are lost or moved, those that leave each number as it is, and those that
# repeat it.
LAST = {"Softmax", "LogSoftmax", "Sigmoid", "ArgMax"}
PASSING = {"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze"}
SPREADING = PASSING | {"Expand", "Tile", "Max"}  # Max with a constant, as JAX guards a maximum

FARTHEST = 32  # nodes in a row that pass a tensor on


def find_ends(nodes: Sequence[Any]) -> dict[str, tuple[str, str]]:
    """Of each tensor that only such a layer stands before, maybe with passing ones after it: the
    layer's kind, and the name of what it takes. Nodes stand in the order in which they run."""
    ends: dict[str, tuple[str, str]] = {}
    producers: dict[str, Any] = {}
    for node in nodes:
        if not node.input or not node.output:
            continue
        producers |= dict.fromkeys(node.output, node)
        if node.op_type in LAST:
            ends[node.output[0]] = (node.op_type, node.input[0])
        elif node.op_type == "Div" and (logits := _softmax_in_steps(node, producers)):
            ends[node.output[0]] = ("Softmax", logits)
        elif node.op_type in PASSING and node.input[0] in ends:
            ends[node.output[0]] = ends[node.input[0]]
    return ends


def _softmax_in_steps(division: Any, producers: dict[str, Any]) -> str:
    """z of exp(z − max z) / Σ exp(z − max z), as tf2onnx writes the softmax of JAX; '' for another
    division."""
    above, below = division.input
    exponential = _origin(above, producers, PASSING)
    total = _origin(below, producers, SPREADING)
    if exponential is None or total is None:
        return ""
    if (exponential.op_type, total.op_type) != ("Exp", "ReduceSum"):
        return ""
    if _origin(total.input[0], producers, PASSING) is not exponential:
        return ""
    shifted: str = exponential.input[0]
    shift = producers.get(shifted)
    if shift is None or shift.op_type != "Sub":
        return shifted
    peak = _origin(shift.input[1], producers, SPREADING)
    of_rows = peak is not None and peak.op_type == "ReduceMax" and peak.input[0] == shift.input[0]
    return shift.input[0] if of_rows else shifted


def _origin(name: str, producers: dict[str, Any], through: Collection[str]) -> Any:
    """The node that makes a tensor, behind those that it passes through; None for a constant or an
    input."""
    node = producers.get(name)
    for _ in range(FARTHEST):  # a damaged graph may run in a circle
        if node is None or node.op_type not in through:
            return node
        made = [producers[taken] for taken in node.input if taken in producers]
        node = made[0] if made else None
    return None
