#!/usr/bin/env python3
"""The notebook's recipe for the heatmap of tasks: numpy and scikit-learn, float32, everything in memory.

    numpy_sklearn.py [--rows] DATASET

Kept from the notebook: all filters in one array, scale, PCA fit, transform, numpy.histogram of each component and task
over one common range. Made as fast as it gets without leaving it:
- svd_solver "covariance_eigh" (what "auto" takes for this shape too): "full" copies the data and decomposes N x 9.
- The array is column-major, as the data come from Parquet: faster than row-major throughout (--rows shows it), and
  more exact: numpy adds a contiguous float32 column pairwise, but the columns of a row-major array one by one,
  which stops adding at 2**24 (the notebook's known defect).
- Tasks are slices of the array, not masks.
- The filters are scaled in place; only the coefficients are a second array.
"""

import argparse
import time

import numpy as np
import pyarrow.parquet as pq
from common import BINS, COLUMNS, copy_columns, files_by_task, report
from sklearn.decomposition import PCA


def load(dataset, order):
    """All filters, (n, 9) float32, and [(task, slice)]."""
    files = files_by_task(dataset)
    rows = [pq.read_metadata(path).num_rows for _, path in files]
    filters = np.empty((sum(rows), 9), np.float32, order=order)
    spans, start = {}, 0
    for (task, path), n in zip(files, rows):
        table = pq.read_table(path, columns=COLUMNS, partitioning=None)
        copy_columns(table, filters[start : start + n].T)
        spans[task] = slice(spans[task].start if task in spans else start, start + n)
        start += n
    return filters, spans


def scale(filters):
    """Each filter over its largest absolute weight; zero filters stay zero."""
    largest = np.maximum(filters.max(axis=1), -filters.min(axis=1))
    largest[largest == 0] = 1
    filters /= largest[:, None]


def main(dataset, rows):
    clock = [time.perf_counter()]
    filters, spans = load(dataset, "C" if rows else "F")
    clock.append(time.perf_counter())
    scale(filters)
    clock.append(time.perf_counter())
    pca = PCA(svd_solver="covariance_eigh").fit(filters)
    clock.append(time.perf_counter())
    coefficients = pca.transform(filters)
    n = len(filters)
    del filters
    clock.append(time.perf_counter())
    lo, hi = float(coefficients.min()), float(coefficients.max())
    counts = [
        [np.histogram(coefficients[span, i], BINS, range=(lo, hi))[0] for i in range(9)] for span in spans.values()
    ]
    clock.append(time.perf_counter())
    seconds = dict(zip(["load", "scale", "fit", "transform", "histograms"], np.diff(clock).tolist()))
    seconds["total"] = clock[-1] - clock[0]
    report(list(spans), n, lo, hi, pca.explained_variance_ratio_, counts, seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rows", action="store_true", help="row-major, as the notebook has it")
    parser.add_argument("dataset")
    arguments = parser.parse_args()
    main(arguments.dataset, arguments.rows)
