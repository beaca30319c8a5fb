"""EM against its peers: wall time, peak memory of the whole process tree, accuracy.

    python -m benchmarks.em                  # all cases at a tenth of their size
    python -m benchmarks.em full             # at full size, about 40 minutes on 4 cores
    python -m benchmarks.em case tasks=1000000 classes=10 workers=1000 contenders=merge,crowdkit
    python -m benchmarks.em case tasks=2000000 classes=21841 workers=1000 votes=700000 beliefs=1

Contenders: merge (this package in threads of one process, with confusion matrices as the peers have
them), spark (the same on local[*]), default (this package with default settings), crowdkit
(DawidSkene), dataframe (EM as a Spark user would write it), notebook (this package's DawidSkene),
kernel (bare kernels in one process on the arrays of merge; only its seconds per iteration count).
Each runs in its own process, from votes in Parquet to a posterior in Parquet, and is timed from
outside, so the start of the interpreter and of Spark counts. `peak MB` covers the whole process
tree, `driver MB` the driver's Python process and its JVM, without Python workers. On local[*] that
JVM also runs the executor, so the figure is an upper bound for a driver; without Spark it is the
process itself. A case runs ten iterations, or three if it sets a million votes or more.
Workers are right with a probability from Beta(8, 2). Compare figures within one run only.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks.em_data import FOLDER, Case, accuracy, simulate
from benchmarks.em_peers import ITERATIONS, PEERS, STAGES, merge_command, peer_command

COLUMNS = (
    "contender", "tasks", "classes", "votes", "seconds", "times the first", "s/iteration",
    "peak MB", "driver MB", "accuracy",
)  # fmt: skip


def cases(scale: float) -> list[tuple[Case, list[str]]]:
    """The cases to measure. scale: 1 for the sizes of the documentation."""

    def size(n: int) -> int:
        return int(n * scale)

    beliefs = [
        (Case(size(2_000_000), 21_841, 1000, size(votes), beliefs=True), contenders)
        for votes, contenders in (
            (700_000, ["spark", "kernel", "default"]),
            (5_000_000, ["spark", "kernel", "default"]),
            (20_000_000, ["spark", "default"]),
        )
    ]
    return [
        (Case(size(1_000_000), 10, 1000), ["merge", "spark", "kernel", "crowdkit", "dataframe"]),
        (Case(size(100_000), 100, 100), ["merge", "spark", "crowdkit"]),
        (Case(size(10_000), 1000, 100), ["merge", "spark", "crowdkit"]),
        # The same number of votes over more and more classes: no cost may grow with them.
        *(
            (Case(size(100_000), classes, 1000), ["merge", "spark"])
            for classes in (10, 100, 1000, 21_841)
        ),
        *beliefs,
    ]


# Measuring a command from outside.


def measure(command: list[str], seconds_at_most: float = 1800) -> dict[str, object]:
    """Wall seconds of a command, and peak memory (proportional set size) of its tree and driver."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    peak, stop = [0, 0], threading.Event()
    watcher = threading.Thread(target=watch_memory, args=(process.pid, peak, stop), daemon=True)
    watcher.start()
    try:
        _, errors = process.communicate(timeout=seconds_at_most)
    except subprocess.TimeoutExpired:
        process.kill()
        errors = f"stopped after {seconds_at_most:.0f} s"
    stop.set()
    watcher.join()
    result: dict[str, object] = {
        "seconds": round(time.monotonic() - began, 1),
        "peak MB": round(peak[0] / 1e6),
        "driver MB": round(peak[1] / 1e6),
    }
    if process.returncode != 0:
        result["accuracy"] = errors.strip().splitlines()[-1] if errors.strip() else "killed"
    return result


def watch_memory(root: int, peak: list[int], stop: threading.Event) -> None:
    while not stop.wait(0.3):
        sizes = {pid: proportional_bytes(pid) for pid in descendants(root)}
        driver = sum(size for pid, size in sizes.items() if pid == root or is_java(pid))
        peak[0], peak[1] = max(peak[0], sum(sizes.values())), max(peak[1], driver)


def is_java(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "java"
    except OSError:
        return False  # it has ended


def descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended
            children.setdefault(int(stat[1]), []).append(int(entry.name))
    processes, unvisited = [root], [root]
    while unvisited:
        more = children.get(unvisited.pop(), [])
        processes += more
        unvisited += more
    return processes


def proportional_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


# Running cases.


def run(case: Case, contenders: list[str]) -> list[dict[str, object]]:
    """Run every contender once on one case; returns a row for each."""
    print(f"simulating {case}", file=sys.stderr, flush=True)
    simulate(case)
    iterations = 3 if (case.votes or 0) >= 1_000_000 else ITERATIONS
    rows = []
    for name in contenders:
        print(f"running {name}", file=sys.stderr, flush=True)
        output = case.folder / f"out-{name}"
        shutil.rmtree(output, ignore_errors=True)
        if name in STAGES:
            command = merge_command(case, output, iterations, STAGES[name])
        else:
            command = peer_command(name, case, output, iterations)
        row = {"contender": name, "tasks": case.tasks, "classes": case.classes, **measure(command)}
        row |= results_of(name, case, output) if "accuracy" not in row else {}
        row["times the first"] = round(row["seconds"] / (rows or [row])[0]["seconds"], 2)
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
        shutil.rmtree(output, ignore_errors=True)
    for row in rows:
        row["votes"] = rows[0].get("votes", "")
    return rows


def results_of(name: str, case: Case, output: Path) -> dict[str, object]:
    """The results that a successful contender has written."""
    if name == "kernel":
        kernel = json.loads((output / "kernel.json").read_text())
        return {"s/iteration": round(kernel["seconds"], 3), "seconds": float("nan")}
    results: dict[str, object] = {"accuracy": round(accuracy(case, output), 4)}
    if name in STAGES:
        history = json.loads((output / "history.json").read_text())
        manifest = json.loads((output / "_manifest.json").read_text())
        seconds = [entry["seconds"] for entry in history["iterations"]]
        results["s/iteration"] = round(float(np.median(seconds)), 3)
        results["votes"] = manifest["tables"]["votes"]["out"]
        print(f"skills: {manifest['details']['skills']}", file=sys.stderr)
    return results


def show(rows: list[dict[str, object]]) -> str:
    """Rows as an aligned table."""
    cells = [list(COLUMNS)]
    cells += [
        ["" if row.get(c) != row.get(c) else f"{row.get(c, '')}" for c in COLUMNS] for row in rows
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(v.rjust(w) for v, w in zip(line, widths, strict=True)) for line in cells
    )


def main() -> None:
    command, *words = sys.argv[1:] or ["quick"]
    if command.startswith("--"):
        PEERS[command[2:]](Case(**json.loads(words[0])), Path(words[1]), int(words[2]))
        return
    given = dict(word.split("=", 1) for word in words)
    if command == "case":
        contenders = given.pop("contenders", "merge").split(",")
        numbers = {key: int(value) for key, value in given.items()}
        numbers["beliefs"] = bool(numbers.get("beliefs", 0))
        chosen = [(Case(**numbers), contenders)]
    else:
        chosen = cases({"quick": 0.1, "full": 1.0}[command])
    rows: list[dict[str, object]] = []
    for case, contenders in chosen:
        rows += run(case, contenders)
    print(f"{os.cpu_count()} cores; crowd-kit {version('crowd-kit')}, pyspark {version('pyspark')}")
    print(show(rows))
    if command != "case":
        shutil.rmtree(FOLDER, ignore_errors=True)


if __name__ == "__main__":
    main()
