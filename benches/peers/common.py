"""What both numpy contestants share: the files of a data set by task, and D from histograms."""

import json
import pathlib
import sys
import urllib.parse

import numpy as np

COLUMNS = [f"w{i}" for i in range(9)]
BINS = 70
EPSILON = 1.1920929e-07  # float32 machine epsilon, as the study has it


def files_by_task(dataset):
    """[(task, path)] of the Parquet files, sorted by task: each task's filters are then one slice."""
    files = pathlib.Path(dataset, "filters").glob("task=*/*/*/*.parquet")
    tasks = [(urllib.parse.unquote(path.parts[-4].removeprefix("task=")), path) for path in files]
    if not tasks:
        raise SystemExit(f"{dataset}: no Parquet files below filters/task=*/")
    return sorted(tasks)


def copy_columns(batch, block):
    """The columns of a table or record batch into the rows of `block`, (9, n). By way of DLPack: `to_numpy` would
    import pandas where it is installed, which takes longer than the filters of a small data set."""
    for name, row in zip(COLUMNS, block):
        column, start = batch[name], 0
        for chunk in getattr(column, "chunks", [column]):
            row[start : start + len(chunk)] = np.from_dlpack(chunk)
            start += len(chunk)


def shift_matrix(counts, lo, hi, ratio):
    """D of every two tasks; `counts` is (tasks, 9, bins). KL(p||q) + KL(q||p) is the sum of (p - q) ln(p / q)."""
    counts = np.asarray(counts, np.float64)
    p = counts / (counts.sum(axis=2, keepdims=True) * (hi - lo) / BINS)
    p = np.where(p == 0, EPSILON, p)
    p /= p.sum(axis=2, keepdims=True)
    a, b = p[:, None], p[None]
    return ((a - b) * np.log(a / b)).sum(axis=3) @ np.asarray(ratio, np.float64)


def report(tasks, n, lo, hi, ratio, counts, seconds):
    """Prints the result as JSON."""
    result = {
        "n": int(n),
        "lo": float(lo),
        "hi": float(hi),
        "explained_variance_ratio": [float(x) for x in ratio],
        "tasks": tasks,
        "shift": shift_matrix(counts, float(lo), float(hi), ratio).tolist(),
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
    }
    json.dump(result, sys.stdout)
