"""What other tools see of a data set: DuckDB through Hive paths, delta-rs's Python package through the logs.

    interop.py DATASET

prints {"duckdb": {...}, "deltalake": {table: {...}}} with counts and sums for the test to compare.
"""

import json
import sys

import duckdb
import pyarrow.compute as pc
from deltalake import DeltaTable


def from_duckdb(dataset):
    files = f"read_parquet('{dataset}/filters/**/*.parquet', hive_partitioning=true)"
    total, w0, w8 = duckdb.sql(f"SELECT count(*), sum(w0::DOUBLE), sum(w8::DOUBLE) FROM {files}").fetchall()[0]
    tasks = duckdb.sql(f"SELECT task, count(*) FROM {files} GROUP BY task ORDER BY task").fetchall()
    models = duckdb.sql(f"SELECT model, data_type, count(*), max(layer) FROM {files} GROUP BY ALL ORDER BY model").fetchall()
    return {"n": total, "w0": w0, "w8": w8, "tasks": dict(tasks), "models": models}


def from_deltalake(dataset):
    filters = DeltaTable(f"{dataset}/filters").to_pyarrow_table(columns=["task", "w0", "w8"])
    layers = DeltaTable(f"{dataset}/layers").to_pyarrow_table()
    models = DeltaTable(f"{dataset}/models").to_pyarrow_table()
    sums = {name: pc.sum(filters[name].cast("double")).as_py() for name in ("w0", "w8")}
    return {
        "filters": {"n": filters.num_rows, **sums, "tasks": len(pc.unique(filters["task"]))},
        "layers": {
            "n": layers.num_rows,
            "n_filters": pc.sum(layers["n_filters"]).as_py(),
            "moments_n": sum(moments["n"] for moments in layers["moments"].to_pylist()),
        },
        "models": {"n": models.num_rows, "columns": models.column_names},
    }


def main(dataset):
    json.dump({"duckdb": from_duckdb(dataset), "deltalake": from_deltalake(dataset)}, sys.stdout)


main(*sys.argv[1:])
