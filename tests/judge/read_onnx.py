"""An independent reader of ONNX files, for the test suite to hold filterdb's reader against.

    python read_onnx.py FILE

prints {"layers": [{"name", "shape": [out, in / groups, kh, kw], "sha256", "conv_depth", "depth_decile", "groups",
"uses"}, ...]} for all 2-D convolutions in the order of their first use. sha256 is that of the float32 weights,
little-endian, in C order. Depth is the longest path from a graph input, by recursion over the producers; nothing
is shared with filterdb's graph walk. Reads what the real models of the tests use, by the packages onnx and numpy.
"""

import hashlib
import json
import math
import sys

import numpy as np
import onnx
from onnx import helper, numpy_helper

sys.setrecursionlimit(100_000)


class Graph:
    def __init__(self, path):
        graph = onnx.load(path).graph
        self.nodes = graph.node
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.producers = {output: node for node in graph.node for output in node.output if output}
        self.inputs = {value.name for value in graph.input} - set(self.initializers)
        self.depths = {}

    def depth(self, value):
        """Longest path to `value`; None where no graph input leads to it."""
        if value in self.inputs:
            return 0
        node = self.producers.get(value)
        if node is None:
            return None
        if id(node) not in self.depths:
            depths = [self.depth(name) for name in node.input if name]
            reached = [depth for depth in depths if depth is not None]
            self.depths[id(node)] = 1 + max(reached) if reached else None
        return self.depths[id(node)]

    def constant(self, value):
        """The constant behind `value`, and the name at its root."""
        if value in self.initializers:
            return numpy_helper.to_array(self.initializers[value]), value
        node = self.producers[value]
        if node.op_type == "Constant":
            return numpy_helper.to_array(attribute(node, "value")), value
        inner, root = self.constant(node.input[0])
        if node.op_type == "Identity":
            return inner, root
        if node.op_type == "Transpose":
            return np.transpose(inner, attribute(node, "perm")), root
        if node.op_type == "DequantizeLinear":
            return self.dequantized(node, inner), root
        raise NotImplementedError(node.op_type)

    def dequantized(self, node, quantised):
        """(q - zero point) * scale in float32, per tensor or along the axis."""
        scale = self.constant(node.input[1])[0].astype(np.float32)
        zero = self.constant(node.input[2])[0] if len(node.input) > 2 else np.zeros(1, quantised.dtype)
        shape = [1] * quantised.ndim
        if scale.size > 1:
            shape[attribute(node, "axis", 1)] = scale.size
        difference = quantised.astype(np.int32) - zero.astype(np.int32).reshape(shape if zero.size > 1 else [1] * len(shape))
        return difference.astype(np.float32) * scale.reshape(shape if scale.size > 1 else [1] * len(shape))


def attribute(node, name, default=None):
    for candidate in node.attribute:
        if candidate.name == name:
            return helper.get_attribute_value(candidate)
    return default


def main(path):
    graph = Graph(path)
    layers = {}
    for node in graph.nodes:
        if node.op_type != "Conv":
            continue
        weights, root = graph.constant(node.input[1])
        if weights.ndim != 4:
            continue
        depth = graph.depth(node.output[0]) or 0
        layer = layers.setdefault(root, {"name": root, "depth": depth, "uses": 0})
        layer["uses"] += 1
        layer["depth"] = min(layer["depth"], depth)
        layer["shape"] = list(weights.shape)
        layer["groups"] = attribute(node, "group", 1)
        layer["sha256"] = hashlib.sha256(np.ascontiguousarray(weights, "<f4").tobytes()).hexdigest()
    ranks = {depth: rank for rank, depth in enumerate(sorted({layer["depth"] for layer in layers.values()}))}
    deepest = len(ranks) - 1
    for layer in layers.values():
        layer["conv_depth"] = ranks[layer.pop("depth")]
        layer["depth_decile"] = max(0, math.ceil(10 * layer["conv_depth"] / deepest) - 1) if deepest > 0 else 0
    json.dump({"layers": list(layers.values())}, sys.stdout)


main(*sys.argv[1:])
