#!/usr/bin/env python3
"""The heatmap benchmark: filterdb beside numpy and scikit-learn on the same files, in the same run.

    run.py [DATASET] [--runs N] [--filters N] [--filterdb BINARY] [--python PYTHON] [--output FILE.md]

Without DATASET one is made in .cache/bench (generate.py, then `filterdb ingest`) and kept there. Every contestant is a
whole process, start and imports included; contestants alternate, so that a noisy minute hits all of them; one round
before the first warms the page cache and is not counted. Wall time is ours, processor time and peak resident
memory are the kernel's (wait4). All matrices D must agree, or nothing is written.

Standard library only; the contestants' Python needs numpy, scikit-learn and pyarrow.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

BENCHES = pathlib.Path(__file__).resolve().parent
ROOT = BENCHES.parent
CACHE = ROOT / ".cache"

# Some machines set these for other programs; they give OpenBLAS a wrong processor and slow numpy down.
UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")

RELATIVE, ABSOLUTE = 1e-3, 1e-6  # agreement of D; the absolute one for the diagonal

HEATMAP = "filterdb: heatmap"
PARTS = {
    "filterdb: open": "SELECT count(*) FROM models",
    "filterdb: scan + filter_range": "SELECT count(*) FROM filters WHERE filter_range(weights) < 0",
    "filterdb: pca_fit": "SELECT pca_fit(filter_scale(weights)) FROM filters",
    "filterdb: pca_fit by task": "SELECT task, pca_fit(filter_scale(weights)) FROM filters GROUP BY task",
    "filterdb: pca_fit by layer": "SELECT count(fit) FROM"
    " (SELECT pca_fit(filter_scale(weights)) AS fit FROM filters GROUP BY model, layer)",
}
PEERS = {
    "numpy + scikit-learn": ["numpy_sklearn.py"],
    "numpy in blocks": ["numpy_blocks.py"],
}


class Run:
    """One process: its output, and what it cost."""

    def __init__(self, command, environment):
        with tempfile.TemporaryFile() as out:
            start = time.perf_counter()
            process = subprocess.Popen(command, stdout=out, env=environment, stdin=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            self.wall = time.perf_counter() - start
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != 0:
                sys.exit(f"run.py: exit code {process.returncode} of: {shlex.join(map(str, command))}")
            out.seek(0)
            self.output = out.read().decode()
        self.cpu = usage.ru_utime + usage.ru_stime
        self.peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def text(command, **options):
    """A command's output, or what went wrong."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, **options).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"unknown ({type(error).__name__})"


def prepare(arguments, environment):
    """The data set: the one given, or one made in the cache. With lines about its making."""
    if arguments.dataset:
        return arguments.dataset, []
    folder = CACHE / "bench" / f"{arguments.filters}-seed{arguments.seed}"
    models, dataset, notes = folder / "models", folder / "db", folder / "made.json"
    if not notes.exists():
        options = ["--filters", arguments.filters, "--seed", arguments.seed]
        generate = [arguments.python, BENCHES / "generate.py", *options, models]
        ingest = [arguments.filterdb, "ingest", dataset, models, "--metadata", models / "models.csv"]
        made = []
        for name, command in [("generate.py", generate), ("filterdb ingest", ingest)]:
            print(f"{name} ...", file=sys.stderr)
            run = Run([str(part) for part in command], environment)
            made.append(f"{name}: {run.wall:.1f} s, peak {run.peak / 2**20:.0f} MB (once, when the data set was made)")
        notes.write_text(json.dumps(made))
    return str(dataset), json.loads(notes.read_text())


def contestants(arguments, dataset):
    """{name: command}, in the order in which they run."""
    query = [arguments.filterdb, "query", dataset, "--format", "json"]
    commands = {HEATMAP: [*query, "-f", str(BENCHES / "heatmap.sql")]}
    for name, (script, *options) in PEERS.items():
        commands[name] = [arguments.python, str(BENCHES / "peers" / script), *options, dataset]
    if not arguments.no_parts:
        commands.update({name: [*query, sql] for name, sql in PARTS.items()})
    return commands


def matrix(name, output):
    """{(a, b): D} and the number of filters, from what a contestant printed."""
    result = json.loads(output)
    if name == HEATMAP:
        pairs = [row["pair"] for row in result]
        return {(p["a"], p["b"]): p["shift"] for p in pairs}, sum({p["a"]: p["n_a"] for p in pairs}.values())
    tasks = result["tasks"]
    return {(a, b): result["shift"][i][j] for i, a in enumerate(tasks) for j, b in enumerate(tasks)}, result["n"]


def disagreement(outputs):
    """The largest relative difference of D between filterdb and each peer; exits where it is too large."""
    expected, n = matrix(HEATMAP, outputs[HEATMAP])
    found = {}
    for name in PEERS:
        shifts, n_peer = matrix(name, outputs[name])
        if n_peer != n or shifts.keys() != expected.keys():
            sys.exit(f"run.py: {name} has {n_peer} filters and {len(shifts)} pairs, filterdb {n} and {len(expected)}")
        for pair, d in expected.items():
            if abs(shifts[pair] - d) > max(RELATIVE * abs(d), ABSOLUTE):
                sys.exit(f"run.py: D{pair} is {shifts[pair]} for {name}, {d} for filterdb")
        found[name] = max(abs(shifts[pair] - d) / d for pair, d in expected.items() if d > ABSOLUTE)
    shifts = sorted(d for (a, b), d in expected.items() if a < b)
    return found, n, shifts


def machine():
    """Processor, cores, memory, system."""
    model, memory = platform.processor() or "unknown", "unknown memory"
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
        total = pathlib.Path("/proc/meminfo").read_text().split("MemTotal:", 1)[1].split()[0]
        memory = f"{int(total) / 2**20:.1f} GiB memory"
    except (OSError, IndexError):
        pass
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {memory}; {platform.system()} {platform.release()}"


def versions(arguments, environment):
    """Of everything that took part."""
    program = "import platform, numpy, sklearn, pyarrow; print(f'Python {platform.python_version()}, numpy " \
        "{numpy.__version__}, scikit-learn {sklearn.__version__}, pyarrow {pyarrow.__version__}')"  # fmt: skip
    git = ["git", "--no-optional-locks", "-C", str(ROOT)]
    changed = text([*git, "status", "--porcelain", "--untracked-files=no"])
    commit = text([*git, "rev-parse", "HEAD"])
    if changed and not commit.startswith("unknown"):
        commit += " with uncommitted changes"
    return [
        f"{text([arguments.filterdb, '--version'])}, repository at commit {commit}",
        text([arguments.python, "-c", program], env=environment),
    ]


def table(runs):
    """Markdown: what each contestant took."""
    lines = [
        "| contestant | median s | min s | max s | times filterdb | CPU s | peak MB |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    reference = statistics.median(run.wall for run in runs[HEATMAP])
    for name, done in runs.items():
        walls = [run.wall for run in done]
        median = statistics.median(walls)
        lines.append(
            f"| {name} | {median:.2f} | {min(walls):.2f} | {max(walls):.2f} | {median / reference:.2f}"
            f" | {statistics.median(run.cpu for run in done):.2f} | {max(run.peak for run in done) / 2**20:.0f} |"
        )
    return lines


def stages(runs):
    """Markdown: what the peers say of their stages, medians."""
    lines = []
    for name in PEERS:
        seconds = [json.loads(run.output)["seconds"] for run in runs[name]]
        medians = (f"{stage} {statistics.median(s[stage] for s in seconds):.2f}" for stage in seconds[0])
        lines.append(f"- {name}: {', '.join(medians)}; the rest is Python's start and imports")
    return lines


def shown(command):
    """A command with paths as from the repository's root."""
    return shlex.join(part.removeprefix(f"{ROOT}/") for part in command)


def write(arguments, environment, runs, commands, made, load):
    found, n, shifts = disagreement({name: done[0].output for name, done in runs.items()})
    agreement = ", ".join(f"{name} {difference:.1e}" for name, difference in found.items())
    was_set = [f"{name}={os.environ[name]}" for name in UNSET if name in os.environ]
    lines = [
        f"# Heatmap of tasks, {n:,} filters, {datetime.date.today()}",
        "",
        f"{arguments.runs} runs each, alternating, page cache warm; whole processes, start and imports included."
        " Peak: the largest of all runs. MB are 2^20 bytes.",
        "",
        *table(runs),
        "",
        f"All matrices D agree; largest relative difference from filterdb's: {agreement}.",
        f"D of two tasks: min {shifts[0]:.4f}, median {statistics.median(shifts):.4f}, max {shifts[-1]:.4f}."
        if shifts
        else "One task: no pair.",
        "",
        "Seconds within the peers' processes, medians:",
        "",
        *stages(runs),
        "",
        f"- Machine: {machine()}; load average {load:.2f} before the first run",
        *(f"- {line}" for line in versions(arguments, environment)),
        f"- Environment: {' and '.join(UNSET)} unset for all ({', '.join(was_set) or 'they were not set'})",
        *(f"- {line}" for line in made),
        "",
        "```sh",
        *(f"{shown(command)}  # {name}" for name, command in commands.items()),
        "```",
        "",
    ]
    output = arguments.output or BENCHES / "runs" / f"{datetime.date.today()}-heatmap.md"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("\n".join(lines))
    print(f"{output} written", file=sys.stderr)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("dataset", nargs="?", metavar="DATASET")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--filters", type=int, default=40_000_000, help="of the data set that is made")
    parser.add_argument("--seed", type=int, default=0, help="of the data set that is made")
    parser.add_argument("--filterdb", default=str(ROOT / "target" / "release" / "filterdb"))
    parser.add_argument("--python", help="of the peers; .cache/venv/bin/python where it exists")
    parser.add_argument("--no-parts", action="store_true", help="only the heatmap, not filterdb's parts of it")
    parser.add_argument("--output", type=pathlib.Path, metavar="FILE.md", help="benches/runs/<date>-heatmap.md")
    arguments = parser.parse_args()
    if arguments.python is None:
        venv = CACHE / "venv" / "bin" / "python"
        arguments.python = str(venv) if venv.exists() else sys.executable
    if arguments.runs < 1:
        parser.error("--runs: expected at least 1")
    if not pathlib.Path(arguments.filterdb).exists():
        parser.error(f"{arguments.filterdb} is not there: cargo build --release")
    return arguments


def main():
    arguments = parse()
    environment = {name: value for name, value in os.environ.items() if name not in UNSET}
    dataset, made = prepare(arguments, environment)
    commands = contestants(arguments, dataset)
    load = os.getloadavg()[0]
    runs = {name: [] for name in commands}
    for number in range(arguments.runs + 1):
        for name, command in commands.items():
            run = Run(command, environment)
            print(f"{number or 'warm-up'}: {name}: {run.wall:.2f} s, {run.peak / 2**20:.0f} MB", file=sys.stderr)
            if number:
                runs[name].append(run)
    write(arguments, environment, runs, commands, made, load)


if __name__ == "__main__":
    main()
