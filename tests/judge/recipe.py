"""The paper's notebook in numpy, scikit-learn and scipy, all in float64: the judge of the heatmap query.

    recipe.py DATASET METADATA.csv KEY...

prints one JSON object: n, mean, components, explained_variance_ratio, lo, hi of all scaled filters, and for each
KEY (a key of the data set or a free column of the CSV) the groups, their sizes and the matrix of shifts D.
Filters are read from the Parquet files by DuckDB, free columns from the CSV: nothing of filterdb's runs here.
"""

import csv
import json
import sys

import duckdb
import numpy as np
from scipy.stats import entropy
from sklearn.decomposition import PCA

BINS = 70
EPSILON = 1.1920929e-07  # float32 machine epsilon, as the notebook has it


def load(dataset):
    """Filters (n x 9, float32) and their keys."""
    columns = ", ".join(f"w{i}" for i in range(9))
    keys = ["task", "data_type", "model", "depth_decile"]
    table = duckdb.sql(
        f"SELECT {columns}, {', '.join(keys)} FROM read_parquet('{dataset}/filters/**/*.parquet', hive_partitioning=true)"
    ).fetchnumpy()
    filters = np.stack([table[f"w{i}"] for i in range(9)], axis=1)
    assert filters.dtype == np.float32
    return filters, {key: np.asarray(table[key]).astype(str) for key in keys}


def scale(filters):
    """Each filter over its largest absolute weight, in float32 as the weights are; zero filters stay zero."""
    largest = np.abs(filters).max(axis=1, keepdims=True)
    return np.divide(filters, largest, out=np.zeros_like(filters), where=largest > 0)


def histograms(coefficients, lo, hi):
    """Densities of the components, zeros replaced."""
    counts = [np.histogram(component, BINS, range=(lo, hi), density=True)[0] for component in coefficients.T]
    return np.where(np.array(counts) == 0, EPSILON, np.array(counts))


def shift(p, q, ratio):
    """D: scipy's entropy normalises both sides and takes the natural logarithm."""
    return sum(r * (entropy(a, b) + entropy(b, a)) for a, b, r in zip(p, q, ratio))


def heatmap(coefficients, labels, lo, hi, ratio):
    groups, index = np.unique(labels, return_inverse=True)
    density = [histograms(coefficients[index == g], lo, hi) for g in range(len(groups))]
    return {
        "groups": groups.tolist(),
        "n": np.bincount(index).tolist(),
        "shift": [[shift(p, q, ratio) for q in density] for p in density],
    }


def main(dataset, metadata, *keys):
    filters, columns = load(dataset)
    with open(metadata, newline="") as f:
        rows = {row["model"]: row for row in csv.DictReader(f)}
    scaled = scale(filters).astype(np.float64)
    pca = PCA(svd_solver="full").fit(scaled)
    coefficients = pca.transform(scaled)
    lo, hi = coefficients.min(), coefficients.max()
    ratio = pca.explained_variance_ratio_
    result = {
        "n": len(filters),
        "mean": pca.mean_.tolist(),
        "components": pca.components_.tolist(),
        "explained_variance": pca.explained_variance_.tolist(),
        "explained_variance_ratio": ratio.tolist(),
        "lo": lo,
        "hi": hi,
        "heatmaps": {},
    }
    for key in keys:
        labels = columns.get(key)
        if labels is None:
            models, index = np.unique(columns["model"], return_inverse=True)
            labels = np.array([rows[model][key] for model in models])[index]
        result["heatmaps"][key] = heatmap(coefficients, labels, lo, hi, ratio)
    json.dump(result, sys.stdout)


main(*sys.argv[1:])
