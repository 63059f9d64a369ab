#!/usr/bin/env python3
"""The heatmap of tasks in numpy as tuned by hand as we can: blocks, all cores, bounded memory.

    numpy_blocks.py [--threads N] [--rows-per-block N] DATASET

Three passes over the Parquet files (moments, range, histograms), as a database does it; a pass is made of blocks that
fit in the cache, (9, rows) float32 in place; X X^T is summed in float64; bins are found by arithmetic and counted by
numpy.bincount. numpy and pyarrow release the interpreter's lock, so a thread per core works on files of its own.
"""

import os

# Before numpy: the threads are ours, one matrix product is not worth splitting.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import concurrent.futures
import time

import numpy as np
import pyarrow.parquet as pq
from common import BINS, COLUMNS, copy_columns, files_by_task, report


def blocks(path, rows):
    """The scaled filters of a file, (9, up to `rows`) float32 at a time; the next block overwrites the last one."""
    buffer = np.empty((9, rows), np.float32)
    file = pq.ParquetFile(path, memory_map=True)
    for batch in file.iter_batches(batch_size=rows, columns=COLUMNS, use_threads=False):
        block = buffer[:, : batch.num_rows]
        copy_columns(batch, block)
        largest = np.maximum(block.max(axis=0), -block.min(axis=0))
        largest[largest == 0] = 1
        block /= largest
        yield block


def moments(path, rows):
    """n, sum (9), sum of products (9, 9), float64."""
    n, total, products = 0, np.zeros(9), np.zeros((9, 9))
    for block in blocks(path, rows):
        wide = block.astype(np.float64)
        n += wide.shape[1]
        total += wide.sum(axis=1)
        products += wide @ wide.T
    return n, total, products


def pca(parts):
    """Mean, components (rows) and explained variance ratios."""
    n, total, products = (sum(part) for part in zip(*parts))
    mean = total / n
    values, vectors = np.linalg.eigh((products - n * np.outer(mean, mean)) / (n - 1))
    values, components = np.maximum(values[::-1], 0), vectors.T[::-1]
    largest = components[np.arange(9), np.abs(components).argmax(axis=1)]
    return n, mean, components * np.sign(largest)[:, None], values / values.sum()


class Projection:
    """Coefficients of the blocks of a file, in a buffer of its own."""

    def __init__(self, mean, components, rows):
        self.components = components.astype(np.float32)
        self.offset = (components @ mean).astype(np.float32)[:, None]
        self.rows = rows

    def of(self, path):
        for block in blocks(path, self.rows):
            coefficients = self.components @ block
            coefficients -= self.offset
            yield coefficients


def extent(path, projection):
    """The least and the largest coefficient."""
    extents = [(c.min(), c.max()) for c in projection.of(path)]
    return min(lo for lo, _ in extents), max(hi for _, hi in extents)


def histogram(path, projection, lo, hi):
    """Counts, (9, BINS): half-open bins, the last one closed."""
    counts = np.zeros(9 * BINS, np.int64)
    first = (np.arange(9) * BINS)[:, None]
    factor = np.float32(BINS / (hi - lo))
    for coefficients in projection.of(path):
        coefficients -= np.float32(lo)
        coefficients *= factor
        bins = coefficients.astype(np.intp)  # cuts, which is the floor: nothing is below 0
        np.minimum(bins, BINS - 1, out=bins)
        bins += first
        counts += np.bincount(bins.ravel(), minlength=9 * BINS)
    return counts.reshape(9, BINS)


def main(dataset, threads, rows):
    clock = [time.perf_counter()]
    files = files_by_task(dataset)
    tasks = list(dict.fromkeys(task for task, _ in files))
    # Largest first, so that no thread is left with a large file at the end.
    files.sort(key=lambda file: -file[1].stat().st_size)
    paths = [path for _, path in files]
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        n, mean, components, ratio = pca(pool.map(lambda path: moments(path, rows), paths))
        clock.append(time.perf_counter())
        projection = Projection(mean, components, rows)
        extents = list(pool.map(lambda path: extent(path, projection), paths))
        lo, hi = float(min(lo for lo, _ in extents)), float(max(hi for _, hi in extents))
        clock.append(time.perf_counter())
        counts = np.zeros((len(tasks), 9, BINS), np.int64)
        for (task, _), part in zip(files, pool.map(lambda path: histogram(path, projection, lo, hi), paths)):
            counts[tasks.index(task)] += part
    clock.append(time.perf_counter())
    seconds = dict(zip(["fit", "range", "histograms"], np.diff(clock).tolist()))
    seconds["total"] = clock[-1] - clock[0]
    report(tasks, n, lo, hi, ratio, counts, seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rows-per-block", type=int, default=1 << 15)
    parser.add_argument("dataset")
    arguments = parser.parse_args()
    main(arguments.dataset, arguments.threads, arguments.rows_per_block)
