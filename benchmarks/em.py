"""EM against its peers: wall time, peak memory of the whole process tree, accuracy.

    python -m benchmarks.em                  # all cases at a tenth of their size
    python -m benchmarks.em full             # at full size, about 40 minutes on 4 cores
    python -m benchmarks.em case tasks=1000000 classes=10 workers=1000 contenders=merge,crowdkit
    python -m benchmarks.em case tasks=2000000 classes=21841 workers=1000 votes=700000 beliefs=1

Contenders: merge (this package in threads of one process, with confusion matrices as the peers have
them), spark (the same on local[*]), default (this package as it comes), crowdkit (DawidSkene),
dataframe (EM as a Spark user would write it), notebook (this package's DawidSkene),
kernel (bare kernels in one process on the arrays of merge; only its seconds an iteration count).
Each runs in a process of its own, from votes in Parquet to posterior in Parquet, and is timed from
outside: the interpreter's and Spark's start count. `peak MB` is of the whole process tree, `driver
MB` of the driver's Python process and its JVM; on local[*] that JVM runs the executor too, so it is
the most that a driver takes; Python workers are left out. Of contenders without Spark it is the
process itself. Ten iterations; three where votes are 5 M and
more with beliefs. Workers are right with a probability from Beta(8, 2). Compare within one run.
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
    """What is measured; scale: 1 for the sizes of the documentation."""

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
        # As many votes over ever more classes: nothing may grow with these.
        *(
            (Case(size(100_000), classes, 1000), ["merge", "spark"])
            for classes in (10, 100, 1000, 21_841)
        ),
        *beliefs,
    ]


# Measuring a command from outside.


def measure(command: list[str], seconds_at_most: float = 1800) -> dict[str, object]:
    """Wall seconds and peak memory (proportional set size) of a command: tree, and its driver."""
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
    found, open_ends = [root], [root]
    while open_ends:
        more = children.get(open_ends.pop(), [])
        found += more
        open_ends += more
    return found


def proportional_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


# Running cases.


def run(case: Case, contenders: list[str]) -> list[dict[str, object]]:
    """Every contender once on one case; a row each."""
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
        row |= findings(name, case, output) if "accuracy" not in row else {}
        row["times the first"] = round(row["seconds"] / (rows or [row])[0]["seconds"], 2)
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
        shutil.rmtree(output, ignore_errors=True)
    for row in rows:
        row["votes"] = rows[0].get("votes", "")
    return rows


def findings(name: str, case: Case, output: Path) -> dict[str, object]:
    """What a contender that ended well has left to read."""
    if name == "kernel":
        left = json.loads((output / "kernel.json").read_text())
        return {"s/iteration": round(left["seconds"], 3), "seconds": float("nan")}
    found: dict[str, object] = {"accuracy": round(accuracy(case, output), 4)}
    if name in STAGES:
        history = json.loads((output / "history.json").read_text())
        manifest = json.loads((output / "_manifest.json").read_text())
        seconds = [entry["seconds"] for entry in history["iterations"]]
        found["s/iteration"] = round(float(np.median(seconds)), 3)
        found["votes"] = manifest["tables"]["votes"]["out"]
        print(f"skills: {manifest['details']['skills']}", file=sys.stderr)
    return found


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
