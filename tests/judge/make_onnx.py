"""Valid ONNX models with everything odd that a reader of weights must get right.

    python make_onnx.py OUTDIR

writes OUTDIR/<name>.onnx (and external data beside it) and OUTDIR/<name>.json:

    {"layers": [{"name", "conv_depth", "uses", "groups", "in_channels", "out_channels", "kernel", "shape", "sha256"}, ...],
     "skipped": ["layer", ...]}

"layers" are all 2-D convolutions whose kernel is known, in no particular order; "shape" and "sha256" (of the float32
weights, little-endian, row-major) are null unless the kernel is 3x3 and the weight constant. Expected weights are
computed here with numpy from the definition of each operator, and depths are written down by hand. Needs
onnx >= 1.16 and numpy.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.helper import make_node, make_tensor_value_info

CASES = {}
OPSET = 17
# What a case may leave out: model, layers, names of skipped layers, files beside the model.
DEFAULTS = (None, None, [], {})


def case(function):
    """Registers a case: a function of a random generator that returns (model, expected layers[, skipped[, files beside it]])."""
    CASES[function.__name__] = function
    return function


# ---- building blocks


def layer(name, conv_depth, weights=None, *, shape=None, groups=1, uses=1):
    """An expected layer: `weights` as float32 (out, in / groups, kh, kw), or only their `shape`."""
    shape = list(weights.shape if shape is None else shape)
    is_3x3 = weights is not None and shape[2:] == [3, 3]
    return {
        "name": name,
        "conv_depth": conv_depth,
        "uses": uses,
        "groups": groups,
        "in_channels": shape[1] * groups,
        "out_channels": shape[0],
        "kernel": shape[2:],
        "shape": shape if is_3x3 else None,
        "sha256": hashlib.sha256(np.ascontiguousarray(weights, "<f4").tobytes()).hexdigest() if is_3x3 else None,
    }


def unread_layer(name, conv_depth, kernel):
    """A 2-D convolution whose weight is not constant: it counts for depth and is skipped."""
    return {
        "name": name,
        "conv_depth": conv_depth,
        "uses": 1,
        "groups": None,
        "in_channels": 0,
        "out_channels": 0,
        "kernel": kernel,
        "shape": None,
        "sha256": None,
    }


def floats(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def raw(array, name):
    return numpy_helper.from_array(np.ascontiguousarray(array), name)


def image(name, channels=4):
    return make_tensor_value_info(name, TensorProto.FLOAT, ["n", channels, "h", "w"])


def conv(x, w, y, **attributes):
    return make_node("Conv", [x, w], [y], name=f"conv_{y}", **attributes)


def model(nodes, initializers, inputs=("x",), outputs=("y",), *, functions=(), opset=OPSET, ir=8, domains=()):
    value = lambda v: image(v) if isinstance(v, str) else v
    graph = helper.make_graph(nodes, "g", list(map(value, inputs)), list(map(value, outputs)), initializers)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(
        graph, opset_imports=opsets, functions=list(functions), ir_version=ir, producer_name="make_onnx"
    )


def body(name, nodes, inputs, outputs, initializers=()):
    return helper.make_graph(nodes, name, list(inputs), list(outputs), list(initializers))


def bfloat16_bits(array):
    """float32 to bfloat16 bit patterns, rounding half to even."""
    bits = array.astype("<f4").view("<u4").astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bfloat16_bits(bits):
    return (bits.astype("<u4") << 16).view("<f4")


def dequantized(q, scale, zero, axis=0):
    """(q - zero) * scale in float32; scale and zero of one element or one for each index of `axis`."""
    shape = [1] * q.ndim
    shape[axis] = -1
    scale, zero = np.reshape(scale, shape).astype(np.float32), np.reshape(zero, shape).astype(np.int32)
    return ((q.astype(np.int32) - zero).astype(np.float32) * scale).astype(np.float32)


# ---- graphs


@case
def plain_depths(rng):
    """Kernels, groups, parallel branches; 1-D, 3-D and transposed convolutions are no layers."""
    a, b, c = floats(rng, 4, 4, 3, 3), floats(rng, 4, 4, 1, 1), floats(rng, 4, 4, 5, 3)
    depthwise, grouped, t = floats(rng, 4, 1, 3, 3), floats(rng, 4, 2, 3, 3), floats(rng, 4, 4, 3, 3)
    one, three = floats(rng, 2, 2, 3), floats(rng, 2, 2, 3, 3, 3)
    nodes = [
        conv("x", "a", "xa", pads=[1] * 4),  # 1
        conv("x", "b", "xb"),  # 1: the rank of a
        make_node("Relu", ["xa"], ["r"]),  # 2
        conv("r", "c", "rc", pads=[2, 1, 2, 1]),  # 3
        make_node("Add", ["rc", "xb"], ["s"]),  # 4: the longest path decides
        conv("s", "depthwise", "d", pads=[1] * 4, group=4),  # 5
        conv("d", "grouped", "e", pads=[1] * 4, group=2),  # 6
        make_node("ConvTranspose", ["e", "t"], ["y"], pads=[1] * 4),
        conv("x1", "one", "y1"),
        conv("x3", "three", "y3"),
    ]
    arrays = dict(a=a, b=b, c=c, depthwise=depthwise, grouped=grouped, t=t, one=one, three=three)
    more = [
        make_tensor_value_info(name, TensorProto.FLOAT, [1, 2] + [8] * n)
        for name, n in (("x1", 1), ("x3", 3), ("y1", 1), ("y3", 3))
    ]
    for value in more[2:]:
        for dim in value.type.tensor_type.shape.dim[2:]:
            dim.dim_value = 6
    proto = model(nodes, [raw(v, k) for k, v in arrays.items()], ["x", *more[:2]], ["y", *more[2:]])
    return proto, [
        layer("a", 0, a),
        layer("b", 0, b),
        layer("c", 1, c),
        layer("depthwise", 2, depthwise, groups=4),
        layer("grouped", 3, grouped, groups=2),
    ]


@case
def not_topological(rng):
    """Nodes backwards in the file (not allowed by the checker, and found)."""
    ws = [floats(rng, 4, 4, 3, 3) for _ in range(4)]
    nodes = [conv(f"v{i}" if i else "x", f"w{i}", f"v{i + 1}" if i < 3 else "y", pads=[1] * 4) for i in range(4)]
    proto = model(nodes[::-1], [raw(w, f"w{i}") for i, w in enumerate(ws)])
    return proto, [layer(f"w{i}", i, w) for i, w in enumerate(ws)]


@case
def initializers_are_inputs(rng):
    """Up to IR version 3 each initializer is an input, too: no path begins there."""
    a, b = floats(rng, 4, 4, 3, 3), floats(rng, 4, 4, 3, 3)
    nodes = [
        make_node("Relu", ["b"], ["b_relu"]),  # of constants only: no depth
        make_node("ReduceSum", ["b_relu"], ["b_sum"], keepdims=0),
        make_node("Add", ["x", "b_sum"], ["v"]),  # 1
        conv("v", "a", "va", pads=[1] * 4),  # 2
        conv("x", "b", "vb", pads=[1] * 4),  # 1
        make_node("Add", ["va", "vb"], ["y"]),
    ]
    weights = [make_tensor_value_info(n, TensorProto.FLOAT, [4, 4, 3, 3]) for n in "ab"]
    proto = model(nodes, [raw(a, "a"), raw(b, "b")], ["x", *weights], opset=8, ir=3)
    return proto, [layer("a", 1, a), layer("b", 0, b)]


@case
def shared_weight(rng):
    """One weight at depths 3 and 1 and, in another form, at 2."""
    w = floats(rng, 4, 4, 3, 3)
    nodes = [
        conv("x", "w", "v1", pads=[1] * 4),
        make_node("Transpose", ["w"], ["wt"], perm=[1, 0, 2, 3]),
        conv("v1", "wt", "v2", pads=[1] * 4),
        conv("v2", "w", "y", pads=[1] * 4),
    ]
    proto = model(nodes, [raw(w, "w")])
    return proto, [layer("w", 0, w, uses=2), layer("w", 1, w.transpose(1, 0, 2, 3))]


@case
def computed_weight(rng):
    """A weight that is an input, and one that is computed: both are skipped, both count for depth."""
    a, b = floats(rng, 4, 4, 3, 3), floats(rng, 4, 4, 3, 3)
    nodes = [
        conv("x", "a", "v1", pads=[1] * 4),
        make_node("Mul", ["a", "b"], ["ab"]),
        conv("v1", "ab", "v2", pads=[1] * 4, kernel_shape=[3, 3]),
        conv("v2", "k", "v3", pads=[2] * 4, kernel_shape=[5, 5]),
        conv("v3", "b", "y", pads=[1] * 4),
    ]
    k = make_tensor_value_info("k", TensorProto.FLOAT, [4, 4, 5, 5])
    proto = model(nodes, [raw(a, "a"), raw(b, "b")], ["x", k])
    layers = [
        layer("a", 0, a),
        unread_layer("conv_v2", 1, [3, 3]),
        unread_layer("conv_v3", 2, [5, 5]),
        layer("b", 3, b),
    ]
    return proto, layers, ["conv_v2", "conv_v3"]


# ---- where tensors stand, and in which type


@case
def constant_nodes(rng):
    w, v = floats(rng, 4, 4, 3, 3), floats(rng, 4, 4, 3, 3)
    nodes = [
        make_node("Constant", [], ["w"], value=raw(w, "")),
        conv("x", "w", "xw", pads=[1] * 4),
        make_node("Constant", [], ["v"], value=raw(v, "another name")),
        make_node("Identity", ["v"], ["v_same"]),
        conv("xw", "v_same", "y", pads=[1] * 4),
    ]
    return model(nodes, []), [layer("w", 0, w), layer("v", 1, v)]


@case
def identities(rng):
    w = floats(rng, 4, 4, 3, 3)
    nodes = [make_node("Identity", ["w" if i == 0 else f"w{i}"], [f"w{i + 1}"]) for i in range(5)]
    nodes += [conv("x", "w5", "v", pads=[1] * 4), conv("v", "w2", "y", pads=[1] * 4)]
    return model(nodes, [raw(w, "w")]), [layer("w", 0, w, uses=2)]


@case
def typed_fields(rng):
    """Elements in float_data, double_data and int32_data instead of raw_data, and raw float64 and bfloat16."""
    f, d, h, b, b2 = (floats(rng, 4, 4, 3, 3) for _ in range(5))
    d64 = rng.standard_normal((4, 4, 3, 3))
    shape = [4, 4, 3, 3]
    tensors = [
        helper.make_tensor("f", TensorProto.FLOAT, shape, f.ravel().tolist()),
        helper.make_tensor("d", TensorProto.DOUBLE, shape, d64.ravel().tolist()),
        raw(d.astype(np.float64), "d_raw"),
    ]
    half = TensorProto(name="h", data_type=TensorProto.FLOAT16, dims=shape)
    half.int32_data.extend(h.astype(np.float16).view(np.uint16).ravel().tolist())
    brain = TensorProto(name="b", data_type=TensorProto.BFLOAT16, dims=shape)
    brain.int32_data.extend(bfloat16_bits(b).ravel().tolist())
    brain_raw = TensorProto(name="b_raw", data_type=TensorProto.BFLOAT16, dims=shape)
    brain_raw.raw_data = bfloat16_bits(b2).astype("<u2").tobytes()
    tensors += [half, brain, brain_raw]
    nodes, value = [], "x"
    for i, tensor in enumerate(tensors):
        nodes.append(make_node("Cast", [tensor.name], [tensor.name + "_f"], to=TensorProto.FLOAT))
        out = "y" if i == len(tensors) - 1 else f"v{i}"
        nodes.append(conv(value, tensor.name + "_f", out, pads=[1] * 4))
        value = out
    return model(nodes, tensors), [
        layer("f", 0, f),
        layer("d", 1, d64.astype(np.float32)),
        layer("d_raw", 2, d),
        layer("h", 3, h.astype(np.float16).astype(np.float32)),
        layer("b", 4, from_bfloat16_bits(bfloat16_bits(b))),
        layer("b_raw", 5, from_bfloat16_bits(bfloat16_bits(b2))),
    ]


@case
def half_model(rng):
    """A model of float16 throughout: its weights are of the convolution's own type."""
    w = floats(rng, 4, 4, 3, 3).astype(np.float16)
    values = [make_tensor_value_info(n, TensorProto.FLOAT16, ["n", 4, "h", "w"]) for n in "xy"]
    proto = model([conv("x", "w", "y", pads=[1] * 4)], [raw(w, "w")], values[:1], values[1:])
    return proto, [layer("w", 0, w.astype(np.float32))]


@case
def casts(rng):
    """float16 to float32, and float32 through float16, which rounds (to subnormals and to infinity, too)."""
    h, f = floats(rng, 4, 4, 3, 3).astype(np.float16), floats(rng, 4, 4, 3, 3)
    f[0, 0] = [[1e-7, 6e-8, 2.9e-8], [65519, 65520, -1e9], [1 + 2**-11, 1 + 3 * 2**-11, 0]]
    nodes = [
        make_node("Cast", ["h"], ["hf"], to=TensorProto.FLOAT),
        conv("x", "hf", "v", pads=[1] * 4),
        make_node("Cast", ["f"], ["fh"], to=TensorProto.FLOAT16),
        make_node("Cast", ["fh"], ["ff"], to=TensorProto.FLOAT),
        conv("v", "ff", "y", pads=[1] * 4),
    ]
    with np.errstate(over="ignore"):
        through = f.astype(np.float16).astype(np.float32)
    return model(nodes, [raw(h, "h"), raw(f, "f")]), [layer("h", 0, h.astype(np.float32)), layer("f", 1, through)]


@case
def external_data(rng):
    """Two tensors of one file beside the model, at offsets, the last one up to its end; one in a folder."""
    a, b, c = (floats(rng, 4, 4, 3, 3) for _ in range(3))
    nodes = [conv("x", "a", "v", pads=[1] * 4), conv("v", "b", "u", pads=[1] * 4), conv("u", "c", "y", pads=[1] * 4)]
    proto = model(nodes, [raw(a, "a"), raw(b, "b"), raw(c, "c")])
    places = [
        {"location": "external_data.bin", "offset": "64", "length": str(a.nbytes), "checksum": "not checked"},
        {"location": "external_data.bin", "offset": str(4096)},
        {"location": "external_data/c.bin"},
    ]
    files = {
        "external_data.bin": b"\0" * 64 + a.tobytes() + b"\0" * (4096 - 64 - a.nbytes) + b.tobytes(),
        "external_data/c.bin": c.tobytes(),
    }
    for tensor, place in zip(proto.graph.initializer, places):
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in place.items():
            tensor.external_data.add(key=key, value=value)
    return proto, [layer("a", 0, a), layer("b", 1, b), layer("c", 2, c)], [], files


# ---- what stands between a tensor and its convolution


@case
def transposes(rng):
    """(h, w, in, out) to (out, in, h, w); without perm all axes are reversed."""
    hwio, reverse, two = floats(rng, 3, 3, 4, 5), floats(rng, 3, 3, 5, 4), floats(rng, 3, 4, 3, 4)
    nodes = [
        make_node("Transpose", ["hwio"], ["oihw"], perm=[3, 2, 0, 1]),
        conv("x", "oihw", "v", pads=[1] * 4),
        make_node("Transpose", ["reverse"], ["reversed"]),
        conv("v", "reversed", "u", pads=[1] * 4),
        make_node("Transpose", ["two"], ["two1"], perm=[1, 0, 3, 2]),
        make_node("Transpose", ["two1"], ["two2"], perm=[2, 0, 1, 3]),
        conv("u", "two2", "y", pads=[1] * 4),
    ]
    proto = model(nodes, [raw(hwio, "hwio"), raw(reverse, "reverse"), raw(two, "two")])
    return proto, [
        layer("hwio", 0, hwio.transpose(3, 2, 0, 1)),
        layer("reverse", 1, reverse.transpose(3, 2, 1, 0)),
        layer("two", 2, two.transpose(1, 0, 3, 2).transpose(2, 0, 1, 3)),
    ]


@case
def reshapes(rng):
    flat, flat2, short, long = floats(rng, 4, 36), floats(rng, 144), floats(rng, 4, 3, 3), floats(rng, 4, 4, 1, 3, 3, 1)
    nodes = [
        make_node("Reshape", ["flat", "shape"], ["w1"]),
        conv("x", "w1", "v1", pads=[1] * 4),
        make_node("Constant", [], ["shape2"], value_ints=[4, -1, 3, 3]),
        make_node("Reshape", ["flat2", "shape2"], ["w2"]),
        conv("v1", "w2", "v2", pads=[1] * 4),
        make_node("Unsqueeze", ["short", "one"], ["w3"]),
        conv("v2", "w3", "v3", pads=[1] * 4, group=4),
        make_node("Squeeze", ["long", "ends"], ["w4"]),
        conv("v3", "w4", "y", pads=[1] * 4),
    ]
    numbers = dict(shape=[0, 4, 3, 3], one=[1], ends=[2, -1])
    arrays = dict(flat=flat, flat2=flat2, short=short, long=long)
    tensors = [raw(v, k) for k, v in arrays.items()] + [raw(np.array(v, np.int64), k) for k, v in numbers.items()]
    return model(nodes, tensors), [
        layer("flat", 0, flat.reshape(4, 4, 3, 3)),
        layer("flat2", 1, flat2.reshape(4, 4, 3, 3)),
        layer("short", 2, short[:, None], groups=4),
        layer("long", 3, long[:, :, 0, :, :, 0]),
    ]


@case
def dequantize(rng):
    """Per tensor, per channel (axis 0, the default 1, negative), without zero point, int32, a float16 scale."""
    q = {n: rng.integers(-128, 128, (4, 4, 3, 3), dtype=np.int8) for n in ("tensor", "nozero", "default", "half")}
    q["channel"] = rng.integers(0, 256, (4, 4, 3, 3), dtype=np.uint8)
    q["negative"] = rng.integers(-128, 128, (4, 4, 3, 3), dtype=np.int8)
    q["int32"] = rng.integers(-30000, 30000, (4, 4, 3, 3), dtype=np.int32)
    q["hwio"] = rng.integers(-128, 128, (3, 3, 4, 4), dtype=np.int8)
    per = lambda: rng.uniform(0.001, 0.02, 4).astype(np.float32)
    s = dict(tensor=np.float32(0.0123), nozero=np.float32([0.5]), default=per(), channel=per(), negative=per())
    s |= dict(int32=np.float32(1e-4), half=np.float16(0.0123), hwio=per())
    z = dict(tensor=np.int8(-7), default=np.int8([1, -2, 3, 127]), channel=np.uint8([0, 255, 128, 5]))
    z |= dict(negative=np.int8([0, 0, 0, -128]), half=np.int8(3), hwio=np.int8([1, 2, 3, 4]))
    axis = dict(channel=0, negative=-4, hwio=3)
    nodes, tensors, layers, value = [], [], [], "x"
    names = list(s)
    for i, name in enumerate(names):
        out = "y" if i == len(names) - 1 else f"v{i}"
        inputs = [name, name + "_scale"] + ([name + "_zero"] if name in z else [])
        attributes = {"axis": axis[name]} if name in axis else {}
        nodes.append(make_node("DequantizeLinear", inputs, [name + "_f"], **attributes))
        expected = dequantized(q[name], s[name], z.get(name, 0), axis.get(name, 1))
        weight = name + "_f"
        if name == "half":
            expected = expected.astype(np.float16).astype(np.float32)
            nodes.append(make_node("Cast", [weight], ["half_c"], to=TensorProto.FLOAT))
            weight = "half_c"
        if name == "hwio":
            expected = expected.transpose(3, 2, 0, 1)
            nodes.append(make_node("Transpose", [weight], ["hwio_t"], perm=[3, 2, 0, 1]))
            weight = "hwio_t"
        nodes.append(conv(value, weight, out, pads=[1] * 4))
        tensors += [raw(q[name], name), raw(np.asarray(s[name]), name + "_scale")]
        tensors += [raw(np.asarray(z[name]), name + "_zero")] if name in z else []
        layers.append(layer(name, i, expected))
        value = out
    # Small integers also stand in int32_data.
    tensors[0].int32_data.extend(q[names[0]].ravel().tolist())
    tensors[0].ClearField("raw_data")
    return model(nodes, tensors, opset=19, ir=9), layers


@case
def fake_quantization(rng):
    """QuantizeLinear and DequantizeLinear over float weights: halves go to even, what is too large saturates."""
    w = floats(rng, 4, 4, 3, 3)
    w[0, 0] = np.float32([[0.25, 0.75, 1.25], [-0.25, -0.75, 1000], [-1000, 63.5, -64]])
    scale, zero = np.float32(0.5), np.int8(0)
    u, u_scale, u_zero = floats(rng, 4, 4, 3, 3), np.float32([0.01, 0.02, 0.03, 0.04]), np.uint8([128, 0, 255, 7])
    nodes = [
        make_node("QuantizeLinear", ["w", "s", "z"], ["q"]),
        make_node("DequantizeLinear", ["q", "s", "z"], ["wf"]),
        conv("x", "wf", "v", pads=[1] * 4),
        make_node("QuantizeLinear", ["u", "us", "uz"], ["uq"], axis=0),
        make_node("DequantizeLinear", ["uq", "us", "uz"], ["uf"], axis=0),
        conv("v", "uf", "y", pads=[1] * 4),
    ]
    q = np.clip(np.rint(w / scale), -128, 127).astype(np.int8)
    by = lambda a: a.reshape(4, 1, 1, 1)
    uq = np.clip(np.rint(u / by(u_scale)) + by(u_zero).astype(np.float32), 0, 255).astype(np.uint8)
    tensors = [raw(np.asarray(v), k) for k, v in dict(w=w, s=scale, z=zero, u=u, us=u_scale, uz=u_zero).items()]
    layers = [layer("w", 0, dequantized(q, scale, zero)), layer("u", 1, dequantized(uq, u_scale, u_zero))]
    return model(nodes, tensors), layers


@case
def conv_integer(rng):
    """As ONNX Runtime quantises dynamically: the weight's scale is a factor of the product behind the node."""
    nodes, tensors, layers, value = [], [], [], "x"
    for i, (dtype, per_channel, swapped) in enumerate(
        [(np.uint8, False, False), (np.int8, False, True), (np.int8, True, False)]
    ):
        info = np.iinfo(dtype)
        q = rng.integers(info.min, info.max + 1, (4, 4, 3, 3)).astype(dtype)
        zero = dtype(128) if dtype is np.uint8 else dtype(-3)
        if per_channel:
            zero = np.zeros(4, dtype)
            scale = rng.uniform(0.001, 0.02, (1, 4, 1, 1)).astype(np.float32)
        else:
            scale = np.float32(0.0123 * (i + 1))
        n = lambda what: f"{what}{i}"
        pair = lambda a, b: [b, a] if swapped else [a, b]
        out = "y" if i == 2 else n("v")
        nodes += [
            make_node("DynamicQuantizeLinear", [value], [n("xq"), n("xs"), n("xz")]),  # 1, 7, 13
            make_node("ConvInteger", [n("xq"), n("w"), n("xz"), n("wz")], [n("i")], name=n("ci"), pads=[1] * 4),
            make_node("Cast", [n("i")], [n("f")], to=TensorProto.FLOAT),
            make_node("Mul", pair(n("xs"), n("ws")), [n("s")]),
            make_node("Mul", pair(n("f"), n("s")), [n("p")]),
            make_node("Add", [n("p"), n("bias")], [out]),
        ]
        tensors += [raw(q, n("w")), raw(np.asarray(zero), n("wz")), raw(np.asarray(scale), n("ws"))]
        tensors.append(raw(floats(rng, 1, 4, 1, 1), n("bias")))
        layers.append(layer(n("w"), i, dequantized(q, scale, zero)))
        value = out
    # The scale cannot be told: the layer is skipped, and its kernel is known.
    q = rng.integers(0, 256, (4, 4, 3, 3)).astype(np.uint8)
    nodes.append(make_node("ConvInteger", ["xq0", "lone"], ["lone_y"], name="lone_conv", pads=[1] * 4))
    tensors.append(raw(q, "lone"))
    layers.append(unread_layer("lone_conv", 0, [3, 3]))
    lone = make_tensor_value_info("lone_y", TensorProto.INT32, ["n", 4, "h", "w"])
    return model(nodes, tensors, outputs=["y", lone]), layers, ["lone_conv"]


@case
def qlinear_conv(rng):
    """Per tensor and per output channel."""
    a = rng.integers(0, 256, (4, 4, 3, 3), dtype=np.uint8)
    b = rng.integers(-128, 128, (4, 1, 3, 3), dtype=np.int8)
    a_scale, a_zero = np.float32(0.004), np.uint8(131)
    b_scale, b_zero = rng.uniform(0.001, 0.02, 4).astype(np.float32), np.int8([0, 1, -1, 5])
    nodes = [
        make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        make_node("QLinearConv", ["xq", "s", "z", "a", "as", "az", "s", "z"], ["v"], pads=[1] * 4),
        make_node("QLinearConv", ["v", "s", "z", "b", "bs", "bz", "s", "z"], ["u"], pads=[1] * 4, group=4),
        make_node("DequantizeLinear", ["u", "s", "z"], ["y"]),
    ]
    arrays = {"s": np.float32(0.02), "z": np.uint8(3), "a": a, "as": a_scale, "az": a_zero}
    arrays |= {"b": b, "bs": b_scale, "bz": b_zero}
    proto = model(nodes, [raw(np.asarray(v), k) for k, v in arrays.items()])
    return proto, [
        layer("a", 0, dequantized(a, a_scale, a_zero)),
        layer("b", 1, dequantized(b, b_scale, b_zero), groups=4),
    ]


@case
def fused_conv(rng):
    """ONNX Runtime's own operator, which its optimiser writes."""
    w = floats(rng, 4, 4, 3, 3)
    node = make_node("FusedConv", ["x", "w"], ["y"], domain="com.microsoft", activation="Relu", pads=[1] * 4)
    other = make_node("Conv", ["x", "w"], ["z"], domain="example.org", pads=[1] * 4)
    proto = model([node, other], [raw(w, "w")], outputs=["y", "z"], domains=["com.microsoft", "example.org"])
    return proto, [layer("w", 0, w)]


# ---- bodies and functions


@case
def if_bodies(rng):
    """Weights inside and outside of branches; branches capture values, and shadow no names."""
    a, b, c, d, e = (floats(rng, 4, 4, 3, 3) for _ in range(5))
    then = body("then", [conv("v", "b", "t", pads=[1] * 4)], [], [image("t")], [raw(b, "b")])  # 2
    other = body(
        "else",
        [
            make_node("Constant", [], ["c"], value=raw(c, "")),
            make_node("Relu", ["v"], ["er"]),  # 2
            conv("er", "c", "eu", pads=[1] * 4),  # 3
            conv("eu", "a", "et", pads=[1] * 4),  # 4: the outer weight again
        ],
        [],
        [image("et")],
    )
    nodes = [
        conv("x", "a", "v", pads=[1] * 4),  # 1
        make_node("If", ["cond"], ["i"], then_branch=then, else_branch=other),  # 5
        conv("i", "d", "y", pads=[1] * 4),  # 6
        *(make_node("Relu", [f"r{k}" if k else "x"], [f"r{k + 1}"]) for k in range(5)),
        conv("r5", "e", "z", pads=[1] * 4),  # 6: the rank of d
    ]
    cond = make_tensor_value_info("cond", TensorProto.BOOL, [])
    proto = model(nodes, [raw(a, "a"), raw(d, "d"), raw(e, "e")], ["x", cond], ["y", "z"])
    return proto, [
        layer("a", 0, a, uses=2),
        layer("b", 1, b),
        layer("c", 2, c),
        layer("d", 3, d),
        layer("e", 3, e),
    ]


@case
def loop_body(rng):
    """A body's inputs are as deep as the loop's, its outputs one deeper than the body; a carried weight is none."""
    a, b, c, d, e = (floats(rng, 4, 4, 3, 3) for _ in range(5))
    inner = body(
        "body",
        [
            make_node("Identity", ["go"], ["go_on"]),
            conv("carried", "b", "l1", pads=[1] * 4),  # 2
            make_node("Relu", ["l1"], ["l2"]),  # 3
            conv("l2", "c", "l3", pads=[1] * 4),  # 4
            make_node("Identity", ["kernel"], ["kernel_next"]),
            conv("l1", "kernel", "l4", pads=[1] * 4, kernel_shape=[3, 3]),  # 3
        ],
        [
            make_tensor_value_info("turn", TensorProto.INT64, []),
            make_tensor_value_info("go", TensorProto.BOOL, []),
            image("carried"),
            make_tensor_value_info("kernel", TensorProto.FLOAT, [4, 4, 3, 3]),
        ],
        [
            make_tensor_value_info("go_on", TensorProto.BOOL, []),
            image("l3"),
            make_tensor_value_info("kernel_next", TensorProto.FLOAT, [4, 4, 3, 3]),
        ],
        [raw(c, "c")],
    )
    nodes = [
        conv("x", "a", "v", pads=[1] * 4),  # 1
        make_node("Loop", ["turns", "", "v", "a"], ["looped", "kernel_out"], body=inner),  # 5
        conv("looped", "d", "y", pads=[1] * 4),  # 6
        *(make_node("Relu", [f"r{k}" if k else "x"], [f"r{k + 1}"]) for k in range(5)),
        conv("r5", "e", "z", pads=[1] * 4),  # 6
    ]
    tensors = [raw(a, "a"), raw(b, "b"), raw(d, "d"), raw(e, "e"), raw(np.int64(3), "turns")]
    layers = [
        layer("a", 0, a),
        layer("b", 1, b),
        unread_layer("conv_l4", 2, [3, 3]),
        layer("c", 3, c),
        layer("d", 4, d),
        layer("e", 4, e),
    ]
    return model(nodes, tensors, outputs=["y", "z"]), layers, ["conv_l4"]


@case
def scan_body(rng):
    a, b = floats(rng, 4, 4, 3, 3), floats(rng, 4, 4, 3, 3)
    slices = lambda n: make_tensor_value_info(n, TensorProto.FLOAT, [1, 4, 8, 8])
    inner = body(
        "body",
        [conv("piece", "b", "s1", pads=[1] * 4), make_node("Add", ["state", "s1"], ["state_next"])],
        [slices("state"), slices("piece")],
        [slices("state_next"), slices("s1")],
        [raw(b, "b")],
    )
    x = make_tensor_value_info("x", TensorProto.FLOAT, [5, 1, 4, 8, 8])
    y = make_tensor_value_info("y", TensorProto.FLOAT, [5, 1, 4, 8, 8])
    nodes = [
        make_node("Scan", ["start", "x"], ["end", "y"], body=inner, num_scan_inputs=1),  # 3, its body 1 and 2
        conv("end", "a", "z", pads=[1] * 4),  # 4
    ]
    tensors = [raw(a, "a"), raw(np.zeros((1, 4, 8, 8), np.float32), "start")]
    return model(nodes, tensors, [x], [y, slices("z")]), [layer("b", 0, b), layer("a", 1, a)]


@case
def local_functions(rng):
    """A function in a function, called twice: weights as inputs and inside, attributes by reference."""
    w1, w2, inside, last = floats(rng, 4, 4, 3, 3), floats(rng, 4, 2, 3, 3), floats(rng, 4, 4, 3, 3), floats(rng, 4, 4, 3, 3)

    def referring(node, name, attribute, kind):
        reference = node.attribute.add(name=name, ref_attr_name=attribute)
        reference.type = kind
        return node

    first = conv("a", "k", "b", pads=[1] * 4)
    referring(first, "group", "parts", onnx.AttributeProto.INT)
    block = helper.make_function(
        "local",
        "Block",
        ["a", "k"],
        ["d"],
        [
            first,  # 1
            make_node("Constant", [], ["inside"], value=raw(inside, "")),
            make_node("Relu", ["b"], ["c"]),  # 2
            conv("c", "inside", "d", pads=[1] * 4),  # 3
        ],
        [helper.make_opsetid("", OPSET)],
        ["parts"],
    )
    wrapped = helper.make_function(
        "local",
        "Wrapped",
        ["a", "k"],
        ["y"],
        [
            make_node("Identity", ["k"], ["k_same"]),
            referring(
                make_node("Block", ["a", "k_same"], ["y"], domain="local"), "parts", "count", onnx.AttributeProto.INT
            ),
        ],
        [helper.make_opsetid("", OPSET), helper.make_opsetid("local", 1)],
        ["count"],
    )
    constant = helper.make_function(
        "local",
        "Weight",
        [],
        ["k"],
        [referring(make_node("Constant", [], ["k"]), "value", "tensor", onnx.AttributeProto.TENSOR)],
        [helper.make_opsetid("", OPSET)],
        ["tensor"],
    )
    nodes = [
        make_node("Block", ["x", "w1"], ["v"], domain="local", parts=1),  # 1, 3
        make_node("Wrapped", ["v", "w2"], ["u"], domain="local", count=2),  # 4, 6
        make_node("Weight", [], ["w3"], domain="local", tensor=raw(last, "")),
        conv("u", "w3", "y", pads=[1] * 4),  # 7: calls themselves do not count
        *(make_node("Relu", [f"r{k}" if k else "x"], [f"r{k + 1}"]) for k in range(6)),
        conv("r6", "w1", "z", pads=[1] * 4),  # 7
    ]
    functions = [block, wrapped, constant]
    proto = model(nodes, [raw(w1, "w1"), raw(w2, "w2")], outputs=["y", "z"], functions=functions, domains=["local"])
    return proto, [
        layer("w1", 0, w1, uses=2),
        layer("inside", 1, inside, uses=2),
        layer("w2", 2, w2, groups=2),
        layer("k", 3, last),
    ]


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, make) in enumerate(CASES.items()):
        made = make(np.random.default_rng(number))
        proto, layers, skipped, files = (*made, *DEFAULTS[len(made) :])
        for place, content in files.items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / place).write_bytes(content)
        path = folder / f"{name}.onnx"
        path.write_bytes(proto.SerializeToString(deterministic=True))
        # The checker wants nodes in order and knows no operator of others' domains.
        if name not in ("not_topological", "fused_conv", "external_data"):
            onnx.checker.check_model(proto, full_check=False)
        (folder / f"{name}.json").write_text(json.dumps({"layers": layers, "skipped": skipped}, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python make_onnx.py OUTDIR")
    main(Path(sys.argv[1]))
