#!/usr/bin/env python3
"""Valid but unusual weight files, and what a reader must find in them.

    python make_weights.py OUTDIR

writes OUTDIR/<name>.<ending> and OUTDIR/<name>.json = {"layers": [{"name", "shape", "sha256",
"position"}, ...]} as read_weights.py prints it, but computed from the arrays before they are written.
Needs numpy and h5py, not torch or keras: the pickles are written by a pickler that gives stand-in
classes the names of PyTorch's.
"""

import collections
import hashlib
import io
import json
import pathlib
import pickle
import struct
import sys
import types
import zipfile

import h5py
import numpy as np

random = np.random.default_rng(20261124)


def weights(*shape):
    return random.standard_normal(shape).astype("<f4")


# --------------------------------------------------------------------------------- stand-ins for PyTorch


def stand_in_modules():
    """Modules whose members pickle under PyTorch's names."""
    for name in ("torch", "torch._utils", "torch.nn", "torch.nn.modules", "torch.nn.modules.conv",
                 "torch.nn.modules.container", "torch.optim", "mine"):
        sys.modules[name] = types.ModuleType(name)
    utils = sys.modules["torch._utils"]
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"):
        exec(f"def {name}(*arguments): raise NotImplementedError", utils.__dict__)
        utils.__dict__[name].__module__ = "torch._utils"
    for module, names in {
        "torch": ["FloatStorage", "HalfStorage", "BFloat16Storage", "DoubleStorage", "LongStorage"],
        "torch.nn.modules.conv": ["Conv2d", "ConvTranspose2d"],
        "torch.nn.modules.container": ["Sequential"],
        "mine": ["Net"],
    }.items():
        for name in names:
            setattr(sys.modules[module], name, type(name, (), {"__module__": module}))


STORAGE_CLASSES = {"<f4": "FloatStorage", "<f2": "HalfStorage", "bf16": "BFloat16Storage", "<f8": "DoubleStorage", "<i8": "LongStorage"}


class Storage:
    """Raw little-endian elements; `dtype` is NumPy's name or bf16."""

    def __init__(self, array, dtype=None):
        self.dtype = dtype or array.dtype.str
        self.size = 2 if dtype == "bf16" else array.dtype.itemsize
        self.raw = array.tobytes()
        self.length = len(self.raw) // self.size

    def big_endian(self):
        return np.frombuffer(self.raw, f"<u{self.size}").astype(f">u{self.size}").tobytes()


class Tensor:
    """A view of a storage: strides and offset in elements."""

    def __init__(self, array=None, storage=None, shape=None, strides=None, offset=0, old=False):
        if array is not None:
            storage, shape = Storage(np.ascontiguousarray(array)), array.shape
        if strides is None:
            strides = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
        self.storage, self.shape, self.strides, self.offset, self.old = storage, tuple(shape), tuple(strides), offset, old

    def __reduce_ex__(self, _):
        utils = sys.modules["torch._utils"]
        place = (self.storage, self.offset, self.shape, self.strides)
        if self.old:
            return utils._rebuild_tensor, place
        return utils._rebuild_tensor_v2, (*place, False, collections.OrderedDict())


class Parameter:
    """A tensor as a module holds it."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __reduce_ex__(self, _):
        return sys.modules["torch._utils"]._rebuild_parameter, (self.tensor, True, collections.OrderedDict())


def pickled(value, storages, protocol=2, stream=False):
    """The pickle of `value`; its storages are added to `storages`, a dict by key."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            if not isinstance(item, Storage):
                return None
            key = next((key for key, known in storages.items() if known is item), None)
            if key is None:
                key = str(len(storages) if not stream else 94000000000000 + len(storages))
                storages[key] = item
            pid = ("storage", getattr(sys.modules["torch"], STORAGE_CLASSES[item.dtype]), key, "cpu", item.length)
            return pid + (None,) if stream else pid

    buffer = io.BytesIO()
    Pickler(buffer, protocol=protocol).dump(value)
    return buffer.getvalue()


class Unseekable(io.RawIOBase):
    """Makes zipfile write sizes behind the data, as PyTorch's own writer does."""

    def __init__(self, file):
        self.file = file

    def writable(self):
        return True

    def write(self, data):
        return self.file.write(data)

    def flush(self):
        self.file.flush()


def save_zip(path, value, big=False, compression=zipfile.ZIP_STORED, descriptors=False, protocol=2, extra=()):
    storages = {}
    data = pickled(value, storages, protocol)
    with open(path, "wb") as file, zipfile.ZipFile(Unseekable(file) if descriptors else file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data)
        if big is not None:
            archive.writestr("archive/byteorder", "big" if big else "little")
        for name, text in extra:
            archive.writestr(f"archive/{name}", text)
        for key, storage in storages.items():
            archive.writestr(f"archive/data/{key}", storage.big_endian() if big else storage.raw)
        archive.writestr("archive/version", "3\n")


def save_stream(path, value, protocol=2):
    storages = {}
    data = pickled(value, storages, protocol, stream=True)
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    with open(path, "wb") as file:
        for part in (0x1950A86A20F9469CFC6C, 1001, system):
            file.write(pickle.dumps(part, protocol))
        file.write(data)
        file.write(pickle.dumps(sorted(storages), protocol))
        for key in sorted(storages):
            file.write(struct.pack("<q", storages[key].length) + storages[key].raw)


def save_safetensors(path, tensors, metadata=None):
    """`tensors`: name -> (dtype, shape, raw bytes)."""
    header, data = {"__metadata__": metadata} if metadata else {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    pathlib.Path(path).write_bytes(struct.pack("<Q", len(text)) + text + data)


# ------------------------------------------------------------------------------------------- expectations


def expect(out, name, layers):
    """`layers`: (name, weights as (out, in, 3, 3), position)."""
    rows = []
    for layer, array, position in layers:
        array = np.ascontiguousarray(array, "<f4")
        digest = hashlib.sha256(array.tobytes()).hexdigest()
        rows.append({"name": layer, "shape": list(array.shape), "sha256": digest, "position": position})
    (out / f"{name}.json").write_text(json.dumps({"layers": rows}, indent=1) + "\n")


def bfloat16(array):
    """The upper halves of float32 values, and the values that they stand for."""
    upper = (array.view("<u4") >> 16).astype("<u2")
    return upper, (upper.astype("<u4") << 16).view("<f4")


# ------------------------------------------------------------------------------------------ PyTorch files


def state_dict(a, b, c):
    return collections.OrderedDict([
        ("stem.weight", Tensor(a)), ("stem.bias", Tensor(weights(a.shape[0]))), ("body.0.weight", Tensor(b)),
        ("body.0.running_mean", Tensor(weights(4))), ("fc.weight", Tensor(weights(5, 4))), ("head.weight", Tensor(c)),
    ])


def pytorch(out):
    a, b, c = weights(4, 3, 7, 7), weights(6, 4, 3, 3), weights(2, 6, 3, 3)
    plain = [("body.0.weight", b, 1), ("head.weight", c, 2)]
    for name, save, options in [
        ("torch_zip", save_zip, {}), ("torch_zip_descriptors", save_zip, {"descriptors": True}),
        ("torch_zip_big_endian", save_zip, {"big": True}), ("torch_zip_no_byteorder", save_zip, {"big": None}),
        ("torch_zip_deflated", save_zip, {"compression": zipfile.ZIP_DEFLATED}),
        ("torch_stream", save_stream, {}), ("torch_zip_protocol4", save_zip, {"protocol": 4}),
        ("torch_zip_protocol5", save_zip, {"protocol": 5}), ("torch_stream_protocol4", save_stream, {"protocol": 4}),
    ]:
        save(out / f"{name}.pth", state_dict(a, b, c), **options)
        expect(out, name, plain)

    optimizer = {"state": {0: {"step": 7, "exp_avg": Tensor(weights(6, 4, 3, 3))}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
    checkpoint = {
        "epoch": 12, "best": 0.75, "big": 1 << 80, "state_dict": collections.OrderedDict(
            (f"module.{name}", tensor) for name, tensor in state_dict(a, b, c).items()),
        "ema_state_dict": state_dict(a, b + 1, c), "optimizer": optimizer, "lr_scheduler": {"last": 3}, "args": None,
    }
    save_zip(out / "torch_checkpoint.pt", checkpoint)
    # Every remaining name begins with module., once the wrapper and the moving average are gone.
    expect(out, "torch_checkpoint", plain)

    save_zip(out / "torch_two_models.pt", {"generator": state_dict(a, b, c), "discriminator": state_dict(c, c, b)})
    expect(out, "torch_two_models", [
        ("generator.body.0.weight", b, 1), ("generator.head.weight", c, 2), ("discriminator.stem.weight", c, 3),
        ("discriminator.body.0.weight", c, 4), ("discriminator.head.weight", b, 5)])

    flat = weights(1000)
    storage = Storage(flat)
    views = collections.OrderedDict([
        ("offset.weight", Tensor(storage=storage, shape=(2, 3, 3, 3), offset=100)),
        ("channels_last.weight", Tensor(storage=storage, shape=(4, 5, 3, 3), strides=(45, 1, 15, 5), offset=7)),
        ("expanded.weight", Tensor(storage=storage, shape=(2, 3, 3, 3), strides=(9, 0, 3, 1), offset=500)),
        ("last.weight", Tensor(storage=storage, shape=(1, 1, 3, 3), offset=991, old=True)),
        ("again.weight", Tensor(storage=storage, shape=(2, 3, 3, 3), offset=100)),
    ])
    strided = lambda shape, strides, offset: np.lib.stride_tricks.as_strided(flat[offset:], shape, [4 * s for s in strides]).copy()
    viewed = [
        ("offset.weight", strided((2, 3, 3, 3), (27, 9, 3, 1), 100), 0),
        ("channels_last.weight", strided((4, 5, 3, 3), (45, 1, 15, 5), 7), 1),
        ("expanded.weight", strided((2, 3, 3, 3), (9, 0, 3, 1), 500), 2),
        ("last.weight", flat[991:].reshape(1, 1, 3, 3), 3),
    ]
    for name, save in [("torch_views", save_zip), ("torch_views_stream", save_stream)]:
        save(out / f"{name}.pt", views)
        expect(out, name, viewed)

    half, double = weights(3, 2, 3, 3).astype("<f2"), random.standard_normal((3, 2, 3, 3))
    upper, brain = bfloat16(weights(3, 2, 3, 3))
    save_zip(out / "torch_dtypes.pt", collections.OrderedDict([
        ("half.weight", Tensor(half)), ("double.weight", Tensor(double)),
        ("brain.weight", Tensor(storage=Storage(upper, "bf16"), shape=upper.shape)),
        ("steps.num_batches_tracked", Tensor(np.array([3], "<i8"))),
        ("integers.weight", Tensor(np.ones((1, 1, 3, 3), "<i8"))),
    ]))
    expect(out, "torch_dtypes", [("half.weight", half, 0), ("double.weight", double, 1), ("brain.weight", brain, 2)])

    square, tall = weights(4, 4, 3, 3), weights(8, 4, 3, 3)
    save_zip(out / "torch_transposed.pt", collections.OrderedDict([
        ("a.weight", Tensor(square)), ("up1.weight", Tensor(tall)), ("up1.bias", Tensor(weights(4))),
        ("deconv2.weight", Tensor(square)), ("up_conv.weight", Tensor(square + 1)), ("conv_transpose.weight", Tensor(square)),
        ("upconv3.weight", Tensor(tall)), ("upconv3.bias", Tensor(weights(8))),
    ]))
    expect(out, "torch_transposed", [("a.weight", square, 0), ("up_conv.weight", square + 1, 1), ("upconv3.weight", tall, 2)])

    grouped = weights(6, 1, 3, 3)
    conv, transposed, box, net = (getattr(sys.modules[module], name)() for module, name in [
        ("torch.nn.modules.conv", "Conv2d"), ("torch.nn.modules.conv", "ConvTranspose2d"),
        ("torch.nn.modules.container", "Sequential"), ("mine", "Net")])
    module = lambda parameters, modules=(), **more: {
        "training": False, "_parameters": collections.OrderedDict(parameters), "_buffers": collections.OrderedDict(),
        "_modules": collections.OrderedDict(modules), **more}
    conv.__dict__ = module([("weight", Parameter(Tensor(grouped))), ("bias", None)], groups=6, kernel_size=(3, 3))
    transposed.__dict__ = module([("weight", Parameter(Tensor(square)))], groups=1)
    box.__dict__ = module([], [("0", conv), ("1", transposed)])
    net.__dict__ = module([("scale", Parameter(Tensor(weights(1))))], [("body", box)], parent=net)
    for name, save in [("torch_module", save_zip), ("torch_module_stream", save_stream)]:
        save(out / f"{name}.pt", net)
        expect(out, name, [("body.0.weight", grouped, 0)])


def safetensors(out):
    a, b = weights(4, 3, 3, 3), weights(2, 4, 5, 5)
    upper, brain = bfloat16(weights(1, 2, 3, 3))
    half = weights(2, 2, 3, 3).astype("<f2")
    save_safetensors(out / "safetensors_dtypes.safetensors", {
        "a.weight": ("F32", a.shape, a.tobytes()), "b.weight": ("F32", b.shape, b.tobytes()),
        "brain.weight": ("BF16", upper.shape, upper.tobytes()), "half.weight": ("F16", half.shape, half.tobytes()),
        "fp8_linear.weight": ("F8_E4M3", (2, 2), b"\0" * 4), "empty": ("F32", (0,), b""),
        "up.deconv.weight": ("F32", a.shape, a.tobytes()),
    }, {"format": "pt"})
    expect(out, "safetensors_dtypes", [("a.weight", a, 0), ("brain.weight", brain, 2), ("half.weight", half, 3)])


# -------------------------------------------------------------------------------------------- Keras files


def to_oihw(kernel):
    return kernel.transpose(3, 2, 0, 1)


def depthwise_to_oihw(kernel):
    height, width, inputs, multiplier = kernel.shape
    return kernel.transpose(2, 3, 0, 1).reshape(inputs * multiplier, 1, height, width)


def keras_layers(group, layers, pieces=None):
    """`layers`: (layer name, [(weight name, array), ...])."""
    names = np.array([name.encode() for name, _ in layers])
    if pieces:
        for index, piece in enumerate(np.array_split(names, pieces)):
            group.attrs[f"layer_names{index}"] = piece
    else:
        group.attrs["layer_names"] = names
    for name, arrays in layers:
        layer = group.create_group(name)
        layer.attrs["weight_names"] = np.array([weight.encode() for weight, _ in arrays]) if arrays else []
        for weight, array in arrays:
            layer.create_dataset(weight, data=array)


def keras(out):
    a, big, half = weights(3, 3, 3, 8), weights(3, 3, 8, 4).astype(">f4"), weights(3, 3, 4, 2).astype("<f2")
    deep, point, up, inner = weights(3, 3, 4, 2), weights(1, 1, 8, 6), weights(3, 3, 4, 4), weights(3, 3, 3, 5)
    layer = lambda kind, name, **config: {"class_name": kind, "name": name, "config": {"name": name, **config}}
    config = {"class_name": "Functional", "config": {"name": "net", "layers": [
        layer("InputLayer", "input"), layer("Conv2D", "z_first", groups=1), layer("Conv2D", "a_second", groups=1),
        layer("SeparableConv2D", "separable"), layer("DepthwiseConv2D", "spatial"), layer("Conv2DTranspose", "enlarge"),
        {"class_name": "Sequential", "name": "tail", "config": {"name": "tail", "layers": [layer("Conv2D", "inner"), layer("Conv2DTranspose", "grow")]}},
        layer("Lambda", "l", function=["4wEAAAAAAAAA", None, None]), layer("Conv2D", "grouped", groups=2)]}}
    layers = [
        ("input", []), ("z_first", [("z_first/kernel:0", a), ("z_first/bias:0", weights(8))]),
        ("a_second", [("a_second_1/kernel:0", big)]),
        ("separable", [("separable/depthwise_kernel:0", deep), ("separable/pointwise_kernel:0", point)]),
        ("spatial", [("spatial/kernel:0", half)]), ("enlarge", [("enlarge/kernel:0", up)]),
        ("tail", [("tail/inner/kernel:0", inner), ("tail/grow/kernel:0", up)]), ("l", []),
        ("grouped", [("grouped/kernel:0", a)]),
    ]
    expected = [
        ("z_first/kernel", to_oihw(a), 0), ("a_second/kernel", to_oihw(big), 1),
        ("separable/depthwise_kernel", depthwise_to_oihw(deep), 2), ("spatial/kernel", depthwise_to_oihw(half), 4),
        ("tail/inner/kernel", to_oihw(inner), 5), ("grouped/kernel", to_oihw(a), 6)]
    for name, options in [("keras2_model", {}), ("keras2_user_block", {"userblock_size": 1024}), ("keras2_latest", {"libver": "latest"})]:
        with h5py.File(out / f"{name}.h5", "w", **options) as file:
            file.attrs["keras_version"] = "2.11.0"
            file.attrs["model_config"] = json.dumps(config)
            keras_layers(file.create_group("model_weights"), layers)
            file.create_group("optimizer_weights").create_dataset("Adam/m/kernel:0", data=a)
        expect(out, name, expected)

    named = [("conv2d", [("conv2d/kernel:0", a)]), ("depthwise_conv2d", [("depthwise_conv2d/depthwise_kernel:0", deep)]),
             ("conv2d_transpose", [("conv2d_transpose/kernel:0", up)]), ("conv2d_1", [("conv2d_1/kernel:0", inner)])]
    with h5py.File(out / "keras2_weights.h5", "w") as file:
        keras_layers(file, named, pieces=3)
    expect(out, "keras2_weights", [("conv2d/kernel", to_oihw(a), 0),
           ("depthwise_conv2d/depthwise_kernel", depthwise_to_oihw(deep), 1), ("conv2d_1/kernel", to_oihw(inner), 2)])

    kernels = [weights(3, 3, 2, 2) for _ in range(12)]
    with h5py.File(out / "keras3.weights.h5", "w") as file:
        for index, kernel in enumerate(kernels):
            path = f"layers/conv2d{f'_{index}' if index else ''}/vars"
            file.create_dataset(f"{path}/0", data=kernel, chunks=kernel.shape, compression="gzip", shuffle=True)
            file.create_dataset(f"{path}/1", data=weights(2))
            file[path].attrs["name"] = f"layer_{index}"
        file.create_dataset("layers/conv2d_transpose/vars/0", data=up)
        file.create_dataset("layers/depthwise_conv2d/vars/0", data=deep)
        file.create_dataset("layers/separable_conv2d/vars/0", data=deep)
        file.create_dataset("layers/separable_conv2d/vars/1", data=point)
        file.create_dataset("layers/sequential/layers/conv2d/vars/0", data=inner.astype(">f8"))
        file.create_dataset("optimizer/vars/3", data=a)
    expect(out, "keras3.weights", [
        (f"conv2d{f'_{index}' if index else ''}/vars/0", to_oihw(kernel), index) for index, kernel in enumerate(kernels)] + [
        ("depthwise_conv2d/vars/0", depthwise_to_oihw(deep), 12), ("separable_conv2d/vars/0", depthwise_to_oihw(deep), 13),
        ("sequential/conv2d/vars/0", to_oihw(inner), 15)])


def keras_archive(out):
    """A .keras file; its configuration, not the groups' names, tells the order."""
    first, second, third, deep = weights(3, 3, 3, 8), weights(3, 3, 8, 8), weights(3, 3, 8, 4), weights(3, 3, 8, 1)
    layer = lambda kind, name, **config: {"class_name": kind, "config": {"name": name, **config}}
    config = {"class_name": "Functional", "config": {"name": "net", "layers": [
        layer("InputLayer", "input"), layer("Conv2D", "stem", groups=1), layer("SeparableConv2D", "wide"),
        layer("Conv2D", "middle", groups=1), layer("DepthwiseConv2D", "spatial"), layer("Conv2D", "head", groups=1)]}}
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for path, array in [("conv2d", first), ("conv2d_1", second), ("conv2d_2", third), ("depthwise_conv2d", deep), ("separable_conv2d", deep)]:
            file.create_dataset(f"layers/{path}/vars/0", data=array)
        file.create_dataset("layers/separable_conv2d/vars/1", data=weights(1, 1, 8, 8))
    with zipfile.ZipFile(out / "keras3_archive.keras", "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.5.0"}))
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", buffer.getvalue())
    expect(out, "keras3_archive", [
        ("conv2d/vars/0", to_oihw(first), 0), ("separable_conv2d/vars/0", depthwise_to_oihw(deep), 1),
        ("conv2d_1/vars/0", to_oihw(second), 3), ("depthwise_conv2d/vars/0", depthwise_to_oihw(deep), 4),
        ("conv2d_2/vars/0", to_oihw(third), 5)])


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    stand_in_modules()
    pytorch(out)
    safetensors(out)
    keras(out)
    keras_archive(out)


if __name__ == "__main__":
    main()
