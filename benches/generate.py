#!/usr/bin/env python3
"""Generated models for the benchmarks: safetensors files of 3x3 filters, and the models.csv that describes them.

    generate.py [--filters N] [--models N] [--layers N] [--tasks N] [--seed N] OUTDIR

Needs numpy only. The same arguments and the same version of numpy give the same bytes. Memory: one layer at a time
(at most 2**20 filters), about 250 MB. The filters are not trained ones, but have what the query's cost and the
numbers' difficulty depend on: layers from 9 to 2**20 filters, as unequal as in real networks; smooth filters, whose
explained variance ratios fall as those of the published data set; heavy tails; a scale of its own for every layer;
layers that are zero throughout, and layers that are mostly near zero; tasks that differ in all of this.
"""

import argparse
import csv
import functools
import json
import pathlib

import numpy as np

SMALLEST, LARGEST = 9, 1 << 20  # filters of a layer
SIGMA = 2.0  # of the logarithm of a layer's size
DEPTHWISE, SPARSE, ZERO = 0.08, 0.06, 0.01  # shares of the layers
# Variances of the cosine coefficients. Scaling each filter to a largest weight of 1 flattens them: the explained
# variance ratios of the scaled filters come out at about .40 .18 .12 .10 .07 .06 .03 .03 .02.
VARIANCES = np.array([0.486, 0.186, 0.113, 0.085, 0.042, 0.042, 0.017, 0.018, 0.010])
TASKS = (
    "classification", "segmentation", "object detection", "super-resolution", "denoising", "depth estimation",
    "face recognition", "auto-encoder", "style transfer", "pose estimation", "text detection", "demosaicking",
)  # fmt: skip
DATA_TYPES = ("natural", "medical", "face", "document", "satellite")


def smooth_basis():
    """The orthonormal cosine basis of 3x3 images, 9 x 9, the smoothest first."""
    i = np.arange(3)
    one = np.array([np.cos(np.pi * k * (2 * i + 1) / 6) for k in range(3)])
    one /= np.linalg.norm(one, axis=1, keepdims=True)
    order = sorted(((u, v) for u in range(3) for v in range(3)), key=lambda uv: (uv[0] ** 2 + uv[1] ** 2, uv))
    return np.array([np.outer(one[u], one[v]).ravel() for u, v in order])


BASIS = smooth_basis()


def layer_sizes(rng, layers, filters):
    """Log-normal sizes between the limits; their sum is `filters` up to rounding."""
    raw = np.exp(SIGMA * rng.standard_normal(layers))
    low, high = 1e-6, 1e12
    for _ in range(200):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if np.clip(raw * middle, SMALLEST, LARGEST).sum() < filters else (low, middle)
    return np.clip(raw * high, SMALLEST, LARGEST)


def shapes(rng, layers, filters):
    """(out, in) of every layer; the products' sum is exactly `filters`."""
    pairs = []
    for size in layer_sizes(rng, layers, filters):
        if rng.random() < DEPTHWISE and size <= 2048:
            pairs.append([int(size), 1])
            continue
        out = np.sqrt(size) * 2 ** rng.uniform(-0.7, 0.7)
        out = int(8 * round(out / 8)) if out >= 16 else max(1, int(out))
        pairs.append([out, min(max(round(size / out), -(-SMALLEST // out)), LARGEST // out)])
    # Rounding is made good by channels more or less, widest layers first; the layer of one channel (as networks
    # that return an image have) takes the rest.
    smallest = min(range(layers), key=lambda i: pairs[i][0] * pairs[i][1])
    pairs[smallest] = [1, max(SMALLEST, pairs[smallest][0] * pairs[smallest][1])]
    rest = filters - sum(out * into for out, into in pairs)
    for i in sorted(range(layers), key=lambda i: -pairs[i][0]):
        out, into = pairs[i]
        # Rounded down: what is left is to be added, and the smallest layer could not give any.
        change = max(min(rest // out, LARGEST // out - into), -(-SMALLEST // out) - into)
        pairs[i][1] += change
        rest -= change * out
    if rest:
        raise SystemExit(f"generate.py: cannot cut {filters} filters into {layers} layers of {SMALLEST} to {LARGEST}")
    return pairs


def split_layers(rng, layers, models):
    """How many layers each model has: at least one, unequal, `layers` in all."""
    shares = np.exp(0.6 * rng.standard_normal(models))
    counts = 1 + np.floor((layers - models) * shares / shares.sum()).astype(int)
    counts[: layers - counts.sum()] += 1
    return counts


def task_spectrum(rng):
    """What the filters of a task have in common: standard deviations of the coefficients, and a mean of the first."""
    deviations = np.sqrt(VARIANCES) * np.exp(0.15 * rng.standard_normal(9))
    return deviations, 0.15 * rng.standard_normal()


def layer_filters(rng, shape, spectrum, kind):
    """Filters of one layer, (n, 9) float32."""
    n = shape[0] * shape[1]
    if kind == "zero":
        return np.zeros((n, 9), np.float32)
    deviations, mean = spectrum
    deviations = deviations * np.exp(0.15 * rng.standard_normal(9))
    coefficients = rng.standard_normal((n, 9), dtype=np.float32)
    tail = np.float32(rng.uniform(0, 0.15))
    coefficients *= 1 + tail * coefficients * coefficients
    coefficients *= (deviations / (1 + 3 * tail)).astype(np.float32)
    coefficients[:, 0] += np.float32(mean * deviations[0])
    filters = coefficients @ BASIS.astype(np.float32)
    filters *= np.float32(np.sqrt(2 / (9 * shape[1])) * np.exp(0.5 * rng.standard_normal()))
    if kind == "sparse":
        dead = rng.random(n) < rng.uniform(0.3, 0.95)
        filters[dead] *= np.float32(1e-4)
        filters[dead & (rng.random(n) < 0.5)] = 0
    return filters


def kinds(rng, layers):
    """Which layers are zero or sparse; at least one of each where there are enough layers."""
    drawn = rng.random(layers)
    result = np.where(drawn < ZERO, "zero", np.where(drawn < ZERO + SPARSE, "sparse", "plain"))
    if layers >= 20:
        result[layers // 3], result[layers // 2] = "zero", "sparse"
    return result


def write_safetensors(path, tensors):
    """`tensors`: name, shape and a function that makes the filters when their turn has come."""
    header, offset = {}, 0
    for name, shape, _ in tensors:
        size = shape[0] * shape[1] * 9 * 4
        header[name] = {"dtype": "F32", "shape": [*shape, 3, 3], "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for _, _, make in tensors:
            file.write(make().astype("<f4", copy=False).data)


def generate(outdir, filters, models, layers, tasks, seed):
    if not 1 <= tasks <= models <= layers:
        raise SystemExit("generate.py: expected 1 <= tasks <= models <= layers")
    outdir.mkdir(parents=True, exist_ok=True)
    plan_seed, *layer_seeds = np.random.SeedSequence(seed).spawn(1 + layers)
    rng = np.random.default_rng(plan_seed)
    pairs, kind = shapes(rng, layers, filters), kinds(rng, layers)
    counts = split_layers(rng, layers, models)
    names = [TASKS[i] if i < len(TASKS) else f"task {i}" for i in range(tasks)]
    spectra = [task_spectrum(rng) for _ in names]
    # Every task has a model; the others fall where they fall, the first tasks having more.
    of_model = list(range(tasks)) + sorted((rng.random(models - tasks) ** 2 * tasks).astype(int).tolist())
    rows, layer = [], 0
    for model, (count, task) in enumerate(zip(counts.tolist(), of_model)):
        tensors = []
        for i in range(count):
            layer_rng = np.random.default_rng(layer_seeds[layer])
            make = functools.partial(layer_filters, layer_rng, pairs[layer], spectra[task], kind[layer])
            tensors.append((f"layer{i:03}.weight", pairs[layer], make))
            layer += 1
        name = f"model{model:03}"
        write_safetensors(outdir / f"{name}.safetensors", tensors)
        data_type = DATA_TYPES[int(rng.integers(len(DATA_TYPES)))]
        rows.append([f"{name}.safetensors", name, names[task], data_type, f"family{model // 3}"])
    # Last: a folder that has it is complete.
    with open(outdir / "models.csv", "w", newline="") as file:
        csv.writer(file).writerows([["file", "model", "task", "data_type", "family"], *rows])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--filters", type=int, default=40_000_000)
    parser.add_argument("--models", type=int, default=30)
    parser.add_argument("--layers", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("outdir", type=pathlib.Path)
    generate(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
