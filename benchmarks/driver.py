"""The driver at the number of shards of COYO-700M: seconds, CPU and memory of what it does alone.

    python -m benchmarks.driver                 # 70,000 shards on the local disk
    python -m benchmarks.driver shards=7000 only=fetch

The shards are fakes of a few bytes. One of each kind is made by the stage itself, and copied under
the numbers of all others with its receipt; ten are missing, so that a resumed run has work to do.
Each case is a process of its own, as a user starts it. Python MB is the peak of the driver's Python
process, JVM MB that of the JVM, which on local[*] runs the executor too; CPU s are the seconds of
CPU of these two. `label` runs without Spark, so its Python process holds the teacher; `relabel` is
the same with no shard missing.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.em import descendants, is_java, proportional_bytes
from coyo_labeler.formats import schemas
from tests.label.jobs import FILES
from tests.label.tars import write_tar
from tests.label.teachers import MODEL, save_teacher

FOLDER = Path(__file__).parents[1] / "out" / "bench" / "driver"
MISSING = 10
COMMAND = [sys.executable, "-m", "coyo_labeler"]


def cpu_seconds(pid: int) -> float:
    """Seconds of CPU of a process and its threads so far; 0 where it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def run(words: list[str]) -> dict[str, float]:
    """Wall seconds of a command; peak memory and CPU of its Python process and of its JVM."""
    peak, stop, began = {"Python": 0.0, "JVM": 0.0}, threading.Event(), time.monotonic()
    cpu = {"Python": 0.0, "JVM": 0.0}
    process = subprocess.Popen([*COMMAND, *words], stderr=subprocess.PIPE, text=True)

    def watch() -> None:
        while not stop.wait(0.2):
            java = [pid for pid in descendants(process.pid) if is_java(pid)]
            now = {"Python": proportional_bytes(process.pid)}
            now["JVM"] = sum(proportional_bytes(pid) for pid in java)
            peak.update({name: max(peak[name], size) for name, size in now.items()})
            used = {"Python": cpu_seconds(process.pid), "JVM": sum(map(cpu_seconds, java))}
            cpu.update({name: max(cpu[name], seconds) for name, seconds in used.items()})

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    _, errors = process.communicate()
    seconds = time.monotonic() - began
    stop.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(words)}\n{errors}")
    return {
        "seconds": seconds,
        **{f"{name} CPU s": seconds for name, seconds in cpu.items()},
        **{f"{name} MB": size / 1e6 for name, size in peak.items()},
    }


def copy_shards(output: Path, shards: int, names: tuple[str, ...], receipt: str) -> None:
    """Copy the files of shard 0, with its receipt, under the numbers of all others but ten."""
    contents = {name: (output / name.format(shard=0)).read_bytes() for name in names}
    document = json.loads((output / receipt.format(shard=0)).read_text())

    def write(shard: int) -> None:
        for name, content in contents.items():
            (output / name.format(shard=shard)).write_bytes(content)
        text = json.dumps(document | {"shard": shard}).replace("00000.", f"{shard:05d}.")
        (output / receipt.format(shard=shard)).write_text(text)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(1, shards - MISSING)))
    for shard in range(max(shards - MISSING, 1), shards):
        for name in (*names, receipt):
            (output / name.format(shard=shard)).unlink(missing_ok=True)


def write_beliefs(folder: Path, shards: int) -> None:
    """One file of two rows per shard."""
    folder.mkdir(parents=True)

    def write(shard: int) -> None:
        columns = [
            pa.array([2 * shard, 2 * shard + 1]), pa.nulls(2), pa.nulls(2),
            pa.array([[1, 2], [2, 1]]), pa.array([[0.6, 0.3], [0.7, 0.2]]), [64, 64], [64, 64],
        ]  # fmt: skip
        table = pa.table(columns, names=schemas.BELIEFS.names).cast(schemas.BELIEFS)
        pq.write_table(table, folder / f"{shard:05d}.parquet")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(shards)))


def fetch_case(shards: int) -> list[str]:
    """A resumed fetch: every URL is refused at once."""
    catalog, output = FOLDER / "catalog", FOLDER / "images"
    catalog.mkdir(parents=True)
    urls = [f"http://127.0.0.1:9/{shard}.jpg" for shard in range(shards)]
    table = pa.table(
        [range(shards), urls, pa.nulls(shards), pa.nulls(shards), pa.nulls(shards), range(shards)],
        names=schemas.CATALOG.names,
    ).cast(schemas.CATALOG)
    words = ["fetch", f"catalog={catalog}", f"output={output}", "allow_private=true", "retries=0"]
    pq.write_table(table.slice(0, 1), catalog / "0.parquet")
    run(words)
    pq.write_table(table, catalog / "0.parquet")
    # The claim of the whole catalog, as a killed run leaves it.
    shutil.move(output, FOLDER / "one")
    print("the fetch of all shards is begun, and stopped", file=sys.stderr)
    process = subprocess.Popen([*COMMAND, *words], stderr=subprocess.DEVNULL)
    while not (output / "_run.json").exists():
        time.sleep(0.05)
    process.kill()
    process.wait()
    claim = json.loads((output / "_run.json").read_text())
    shutil.rmtree(output / "_next", ignore_errors=True)
    receipt = json.loads((FOLDER / "one" / "00000_stats.json").read_text())
    receipt["fingerprint"] = claim["fingerprint"]
    for name in ("00000.tar", "00000.parquet"):
        shutil.copy(FOLDER / "one" / name, output / name)
    (output / "00000_stats.json").write_text(json.dumps(receipt))
    copy_shards(
        output, shards, ("{shard:05d}.tar", "{shard:05d}.parquet"), "{shard:05d}_stats.json"
    )
    return words


def label_case(shards: int) -> list[str]:
    """Tars of two small images, all labelled but ten: they were added since."""
    images, teacher, output = FOLDER / "tars", FOLDER / "teacher", FOLDER / "labelled"
    images.mkdir(parents=True)
    teacher.mkdir()
    save_teacher(teacher / "model.safetensors", 10, 64)
    (teacher / "labels.txt").write_text("\n".join(f"class {i}" for i in range(10)))
    tar = write_tar(images, 0, FILES[:2])
    time_ns = tar.stat().st_mtime_ns
    words = [
        "label", f"images={images}", f"output={output}", "engine=local", "device=cpu",
        f"model={MODEL}", f"checkpoint={teacher / 'model.safetensors'}", "activation=sigmoid",
        f"label_space={teacher / 'labels.txt'}", "preprocess=automl_64", "precision=float32",
    ]  # fmt: skip
    run(words)
    content = tar.read_bytes()

    def write(shard: int) -> None:  # with the size and the time of the tar that was labelled
        path = images / f"{shard:05d}.tar"
        path.write_bytes(content)
        os.utime(path, ns=(time_ns, time_ns))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(1, shards)))
    tables = ("{shard:05d}.parquet", "failures/{shard:05d}.parquet")
    copy_shards(output, shards, tables, "_receipts/{shard:05d}.json")
    return words


def relabel_case(shards: int) -> list[str]:
    """What `label` has finished, as a run leaves it that was killed before its manifest."""
    words = label_case(shards)
    run(words)
    (FOLDER / "labelled" / "_manifest.json").unlink()
    return words


def merge_case(_: int) -> list[str]:
    """A merge of few votes with the beliefs of all shards."""
    votes = pa.table(
        {
            "image_id": np.arange(1000),
            "worker_id": [f"w{n % 10}" for n in range(1000)],
            "label": np.full(1000, 1, np.int32),
        }
    )
    pq.write_table(votes, FOLDER / "votes.parquet")
    return [
        "merge", f"beliefs={FOLDER / 'beliefs'}", f"votes={FOLDER / 'votes.parquet'}",
        f"output={FOLDER / 'merged'}", "engine=spark",
    ]  # fmt: skip


def report_case(_: int) -> list[str]:
    return ["report", f"labels={FOLDER / 'beliefs'}", f"output={FOLDER / 'report'}"]


def export_case(_: int) -> list[str]:
    return ["export", f"labels={FOLDER / 'beliefs'}", f"output={FOLDER / 'export'}"]


def plans(shards: int) -> None:
    """What merge, export and report do before their first task, in this process."""
    from coyo_labeler.export.plan import find_labels, plan_shards  # noqa: PLC0415
    from coyo_labeler.formats.parquet_splits import plan_splits  # noqa: PLC0415
    from coyo_labeler.inputs import fingerprint_input  # noqa: PLC0415
    from coyo_labeler.merge.settings import ROWS_PER_SPLIT  # noqa: PLC0415
    from coyo_labeler.report.queries import read_labels  # noqa: PLC0415
    from coyo_labeler.session import open_session  # noqa: PLC0415
    from coyo_labeler.stages import STAGES, read_stage_settings  # noqa: PLC0415

    settings = read_stage_settings(STAGES["report"], report_case(shards)[1:])
    spark = open_session(settings.spark, "report")

    def plan_report() -> object:
        frame = read_labels(spark, "labels", settings.labels)
        return frame._jdf.queryExecution().executedPlan()

    url = str(FOLDER / "beliefs")
    work: dict[str, Callable[[], object]] = {
        "fingerprint of beliefs": lambda: fingerprint_input("merge", "beliefs", url),
        "plan of merge": lambda: plan_splits("beliefs", url, schemas.BELIEFS, ROWS_PER_SPLIT),
        "plan of export": lambda: plan_shards(find_labels(url).rows, 1_000_000),
        "plan of report, with Spark's": plan_report,
    }
    for name, function in work.items():
        wall, cpu = time.monotonic(), time.process_time()
        function()
        used = f"{time.monotonic() - wall:6.1f} s, {time.process_time() - cpu:6.1f} s of CPU"
        print(f"{name}: {used} for {shards:,} files", flush=True)
    spark.stop()


CASES: dict[str, Callable[[int], list[str]]] = {
    "fetch": fetch_case,
    "label": label_case,
    "relabel": relabel_case,
    "merge": merge_case,
    "report": report_case,
    "export": export_case,
}


def main() -> None:
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    shards, only = (
        int(given.get("shards", 70_000)),
        given.get("only", ",".join([*CASES, "plans"])).split(","),
    )
    shutil.rmtree(FOLDER, ignore_errors=True)
    if {"merge", "report", "export", "plans"} & set(only):
        write_beliefs(FOLDER / "beliefs", shards)
    print(f"{shards:,} shards", flush=True)
    for name in only:
        if name == "plans":
            plans(shards)
            continue
        words = CASES[name](shards)
        print(f"{name} begins", file=sys.stderr)
        figures = run(words)
        print(f"{name:<8}" + "  ".join(f"{k} {v:8.1f}" for k, v in figures.items()), flush=True)
    shutil.rmtree(FOLDER)


if __name__ == "__main__":
    main()
