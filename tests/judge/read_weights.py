#!/usr/bin/env python3
"""An independent reader of weight files, for the test suite to hold filterdb's readers against.

    python read_weights.py FILE

prints {"layers": [{"name", "shape": [out, in, 3, 3], "sha256", "position"}, ...]} for the 3x3
convolutions of a PyTorch (zip or older stream), safetensors or Keras (HDF5 or .keras) file. sha256 is that of the
float32 weights, little-endian, in C order; position counts all 2-D convolutions of the file from 0.

Needs numpy and h5py, not torch or keras. Pickles are loaded by the standard library with classes that
do nothing, so only give it files that you trust or made.
"""

import hashlib
import io
import json
import pickle
import re
import struct
import sys
import zipfile
from collections import OrderedDict

import numpy as np

STREAM_MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {
    "DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": "bf16",
    "LongStorage": "i8", "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1",
    "BoolStorage": "u1",
}
TRAINING_STATE = re.compile(r"^optim|optimizer$|scheduler|rng_state|^scaler$", re.I)
WRAPPERS = {"state_dict", "model_state_dict", "model", "net", "network", "module", "params", "weights", "ema"}


def to_float32(raw, dtype, order):
    """The values in `raw`; bfloat16 is the upper half of a float32."""
    if dtype == "bf16":
        upper = np.frombuffer(raw, order + "u2").astype("<u4")
        return (upper << 16).view("<f4")
    with np.errstate(over="ignore"):
        return np.frombuffer(raw, order + dtype).astype("<f4")


# ---------------------------------------------------------------------------------------------- PyTorch


class Storage:
    """A storage as a persistent id names it; `part` is (offset, length) of old files' views."""

    def __init__(self, key, dtype, length, part):
        self.key, self.dtype, self.length, self.part = key, dtype, length, part


class Tensor:
    """A strided view of a storage."""

    def __init__(self, storage, offset, shape, strides):
        self.storage, self.offset, self.shape, self.strides = storage, offset, tuple(shape), tuple(strides)

    def identity(self):
        return self.storage.key, self.storage.part, self.storage.dtype, self.offset, self.shape, self.strides


class Inert:
    """An instance of any other class: keeps the state that BUILD gives it."""

    def __init__(self, *args, **kwargs):
        self.state = {}

    def __setstate__(self, state):
        self.state = state[0] if isinstance(state, tuple) else state


def rebuild_tensor(storage, offset, shape, strides, *_):
    return Tensor(storage, offset, shape, strides)


class Unpickler(pickle.Unpickler):
    """Resolves no global but by name to the stand-ins above."""

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return rebuild_tensor
        if module == "torch._utils" and name.startswith("_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if name.endswith("Storage"):
            return STORAGES[name]
        return type(name, (Inert,), {"__module__": module})

    def persistent_load(self, pid):
        kind, dtype, key, _, length, *rest = pid
        assert kind == "storage", kind
        part = tuple(rest[0][1:]) if rest and rest[0] else None
        return Storage(key, dtype, length, part)


def read_pytorch_zip(data):
    archive = zipfile.ZipFile(io.BytesIO(data))
    (pickled,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
    root = pickled[: -len("data.pkl")]
    order = "<"
    if root + "byteorder" in archive.namelist():
        order = {b"little": "<", b"big": ">"}[archive.read(root + "byteorder")]
    loaded = Unpickler(io.BytesIO(archive.read(pickled))).load()
    return loaded, lambda storage: archive.read(f"{root}data/{storage.key}"), order


def read_pytorch_stream(data):
    stream = io.BytesIO(data)
    assert Unpickler(stream).load() == STREAM_MAGIC
    assert Unpickler(stream).load() == 1001
    Unpickler(stream).load()
    seen = {}

    class Remembering(Unpickler):
        def persistent_load(self, pid):
            storage = super().persistent_load(pid)
            seen[storage.key] = storage.dtype
            return storage

    loaded = Remembering(stream).load()
    records = {}
    for key in Unpickler(stream).load():
        (length,) = struct.unpack("<q", stream.read(8))
        records[key] = stream.read(length * (2 if seen[key] == "bf16" else np.dtype(seen[key]).itemsize))
    # The stream is little-endian on every machine.
    return loaded, lambda storage: records[storage.key], "<"


def named_tensors(value, path=(), module=None):
    """(name, tensor, class name of the owning module) in the object's order."""
    if isinstance(value, Tensor):
        yield ".".join(path), value, module
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from named_tensors(item, path + (str(key),), module if isinstance(item, Tensor) else None)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from named_tensors(item, path + (str(index),))
    elif isinstance(value, Inert):
        state, name = value.state, type(value).__name__
        if "_parameters" in state:
            for part in ("_parameters", "_buffers", "_modules"):
                yield from named_tensors(state.get(part, {}), path, name)
        else:
            yield from named_tensors(state, path, name)


def checkpoint(loaded):
    """The model's tensors: no optimizer, no moving average beside the weights, no needless prefix."""
    if not isinstance(loaded, dict) or any(isinstance(value, Tensor) for value in loaded.values()):
        return list(named_tensors(loaded))
    parts = {key: list(named_tensors(value)) for key, value in loaded.items() if not TRAINING_STATE.search(key)}
    parts = {key: part for key, part in parts.items() if part}
    is_average = lambda key: "ema" in re.split(r"[^a-z0-9]", key.lower())
    if any(not is_average(key) for key in parts):
        parts = {key: part for key, part in parts.items() if not is_average(key)}
    if len(parts) == 1 and next(iter(parts)) in WRAPPERS:
        return next(iter(parts.values()))
    return [(f"{key}.{name}" if name else key, tensor, module) for key, part in parts.items() for name, tensor, module in part]


def read_pytorch(data):
    loaded, raw, order = (read_pytorch_zip if data[:2] == b"PK" else read_pytorch_stream)(data)

    def values(tensor):
        flat = to_float32(raw(tensor.storage), tensor.storage.dtype, order)
        if tensor.storage.part:
            flat = flat[tensor.storage.part[0] :]
        strides = [4 * stride for stride in tensor.strides]
        return np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides)

    return [
        (name, tensor.shape, tensor.storage.dtype, module, tensor.identity(), lambda tensor=tensor: values(tensor))
        for name, tensor, module in checkpoint(loaded)
    ]


# ------------------------------------------------------------------------------------------ safetensors


def read_safetensors(data):
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    dtypes = {"F16": "f2", "BF16": "bf16", "F32": "f4", "F64": "f8"}
    tensors = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        dtype, shape = dtypes.get(entry["dtype"], "i8"), tuple(entry["shape"])
        values = lambda begin=begin, end=end, dtype=dtype, shape=shape: to_float32(data[begin:end], dtype, "<").reshape(shape)
        tensors.append((name, shape, dtype, None, name, values))
    return tensors


# --------------------------------------------------------------------- the rule for bare state dicts


def says_transposed(name):
    words = [word.lower() for word in re.split(r"[^A-Za-z]+", name) if word]
    return any(
        "transpose" in word or "deconv" in word or word.startswith("convtran") or word in ("convt", "tconv", "upconv")
        for word in words
    )


def convolutions(tensors):
    """The 2-D convolutions of a state dict, in its order; weights used twice once."""
    if tensors and all(name.startswith("module.") for name, *_ in tensors):
        tensors = [(name[len("module.") :], *rest) for name, *rest in tensors]
    biases = {name[: -len("bias")]: shape[0] for name, shape, *_ in tensors if name.endswith("bias") and len(shape) == 1}
    found, seen = [], set()
    for name, shape, dtype, module, identity, values in tensors:
        if len(shape) != 4 or dtype not in ("f2", "bf16", "f4", "f8"):
            continue
        leaf = name.rsplit(".", 1)[-1]
        if module != "Conv2d":
            if module == "ConvTranspose2d":
                continue
            if leaf not in ("weight", "kernel"):
                continue
            bias = biases.get(name[: -len("weight")])
            if bias is not None and bias != shape[0] and bias % shape[1] == 0:
                continue
            proven = bias == shape[0] and shape[0] != shape[1] and shape[1] != 1
            if not proven and says_transposed(name):
                continue
        if identity in seen:
            continue
        seen.add(identity)
        found.append((name, values if shape[2:] == (3, 3) else None))
    return found


# ------------------------------------------------------------------------------------------------ Keras


def attribute_list(group, name):
    """A list attribute, or its pieces name0, name1, ..."""
    pieces = [name] if name in group.attrs else []
    if not pieces:
        while f"{name}{len(pieces)}" in group.attrs:
            pieces.append(f"{name}{len(pieces)}")
    return [text.decode() if isinstance(text, bytes) else text for piece in pieces for text in group.attrs[piece]]


def natural(name):
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def keras_classes(config, classes):
    """Layer name -> class, through nested models and wrappers."""
    inner = config.get("config", {})
    layers = inner if isinstance(inner, list) else inner.get("layers", [])
    name = config.get("name") or (inner.get("name") if isinstance(inner, dict) else None)
    wrapped = inner.get("layer") if isinstance(inner, dict) else None
    classes.setdefault(name, (wrapped or config)["class_name"])
    for layer in layers:
        keras_classes(layer, classes)
    return classes


def kernel_kind(where, leaf, kind):
    """'conv', 'depthwise' or None for a 4-D array; `kind` is the class where the file tells."""
    text = (kind or where).lower().replace("_", "")
    if "transpose" in text or "deconv" in text or "lstm" in text:
        return None
    if leaf == "depthwise_kernel" or "depthwiseconv" in text:
        return "depthwise"
    if "separableconv" in text:
        return "depthwise" if leaf == "0" else "conv"
    return "conv" if leaf in ("kernel", "pointwise_kernel", "0") else None


def snake_case(name):
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)).lower()


def saved_names(config):
    """The groups under which Keras 3 saves a model's layers, in order: class names, numbered."""
    names, counts = {}, {}
    for layer in config.get("config", {}).get("layers", []):
        base = snake_case(layer["class_name"])
        count = counts[base] = counts.get(base, -1) + 1
        names[f"{base}_{count}" if count else base] = layer
    return names


def keras_weight(kernel, kind):
    kernel = np.asarray(kernel, np.float32)
    if kind == "conv":
        return kernel.transpose(3, 2, 0, 1)
    height, width, inputs, multiplier = kernel.shape
    return kernel.transpose(2, 3, 0, 1).reshape(inputs * multiplier, 1, height, width)


def read_keras(path, archive_config=None):
    import h5py

    found = []

    def add(name, dataset, kind):
        if kind and dataset.ndim == 4:
            three = dataset.shape[:2] == (3, 3)
            found.append((name, (lambda: keras_weight(dataset[()], kind)) if three else None))

    def listed(weights, classes):
        for layer in attribute_list(weights, "layer_names"):
            for name in attribute_list(weights[layer], "weight_names"):
                *folders, leaf = name.split(":")[0].split("/")
                if leaf.endswith("kernel"):
                    known = [classes[part] for part in folders[::-1] + [layer] if part in classes]
                    own = classes.get(layer)
                    kind = own if own and own not in ("Model", "Functional", "Sequential") else (known or [None])[0]
                    inner = [part for part in folders if not re.fullmatch(re.escape(layer) + r"(_\d+)?", part)]
                    add("/".join([layer, *inner, leaf]), weights[layer][name], kernel_kind("/".join([layer, *folders]), leaf, kind))

    def numbered(group, path, config):
        saved = saved_names(config) if config and path[-1:] == ["layers"] else {}
        order = {name: index for index, name in enumerate(saved)}
        for name in sorted(sorted(group, key=natural), key=lambda name: order.get(name, len(order))):
            if not path and name in ("optimizer", "optimizer_weights"):
                continue
            if name == "vars":
                own = group["vars"].attrs.get("name", "")
                for variable in sorted(group["vars"], key=natural):
                    where = f"{path[-1] if path else ''} {own}"
                    shown = "/".join(part for part in path if part != "layers") or own
                    add(f"{shown}/vars/{variable}", group["vars"][variable], kernel_kind(where, variable, None))
            elif isinstance(group[name], h5py.Group):
                numbered(group[name], path + [name], saved.get(name) if path[-1:] == ["layers"] else config)

    with h5py.File(path, "r") as file:
        weights = file.get("model_weights", file)
        if "layer_names" in weights.attrs or "layer_names0" in weights.attrs:
            config = file.attrs.get("model_config")
            config = config.decode() if isinstance(config, bytes) else config
            listed(weights, keras_classes(json.loads(config), {}) if config else {})
        else:
            numbered(weights, [], archive_config)
        return [(name, values and values()) for name, values in found]


# ------------------------------------------------------------------------------------------------- main


def read(path):
    """The 3x3 layers of a file, as printed."""
    with open(path, "rb") as file:
        data = file.read()
    if b"\x89HDF\r\n\x1a\n" in (data[at : at + 8] for at in (0, 512, 1024, 2048)):
        found = read_keras(path)
    elif data[30:43] == b"metadata.json":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found = read_keras(io.BytesIO(archive.read("model.weights.h5")), json.loads(archive.read("config.json")))
    else:
        tensors = read_safetensors(data) if data[8:9] == b"{" else read_pytorch(data)
        found = [(name, values and values()) for name, values in convolutions(tensors)]
    layers = []
    for position, (name, weights) in enumerate(found):
        if weights is not None:
            weights = np.ascontiguousarray(weights, "<f4")
            digest = hashlib.sha256(weights.tobytes()).hexdigest()
            layers.append({"name": name, "shape": list(weights.shape), "sha256": digest, "position": position})
    return {"layers": layers}


if __name__ == "__main__":
    json.dump(read(sys.argv[1]), sys.stdout, indent=1)
    print()
