"""Measures what a row costs on this machine, in about two minutes.

A stage is run on few rows and on many; what the difference takes, times the cores, is the cost of
the rows alone. Other work on the machine makes everything look dearer.
"""

import logging
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coyo_labeler.machine import cores_of_machine
from coyo_labeler.plan import samples
from coyo_labeler.plan.unit_costs import UnitCosts
from coyo_labeler.progress import Progress
from coyo_labeler.stages import STAGES, read_stage_settings, run_stage

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: A task of `fetch` spends this much more than decoding and hashing: on the network, parsing,
#: scheduling, writing (docs/benchmarks.md: 4.1 ms where these take 2.9).
_FETCH_OVERHEAD = 4.1 / 2.9
_FEW, _MANY = 20_000, 220_000
_SOURCE_MANY = 820_000
_VOTES = 100_000
_SECONDS = 10.0


def calibrate(
    model: str,
    label_space: str = "imagenet21k",
    source_rows: int = _SOURCE_MANY,
    rows: int = _MANY,
    seconds: float = _SECONDS,
) -> UnitCosts:
    """The unit costs of this machine; model: the teacher, of timm, with random weights.

    label_space: of its head. source_rows, rows: of the larger of the two inputs that a stage is run
    on. seconds: that the teacher works.

    Raises: InputError without Java, or where the model is not known.
    """
    from coyo_labeler.config.base import SparkSettings  # noqa: PLC0415
    from coyo_labeler.session import open_session  # noqa: PLC0415

    for stage in ("ingest", "merge", "report", "export"):  # what they say is of no interest here
        logging.getLogger(f"coyo_labeler.{stage}").setLevel(logging.WARNING)
    steps = 7
    with (
        tempfile.TemporaryDirectory(prefix="coyo-labeler-plan-") as folder,
        Progress("plan: measuring this machine", steps, "steps") as progress,
    ):
        device, rate, label = _label(model, label_space, seconds)
        progress.update(1)
        fetch = _fetch(seconds / 3)
        progress.update(2)
        spark = open_session(SparkSettings(), "plan")
        at = Path(folder)
        few = min(_FEW, rows // 2)
        for name, count in (("few", few), ("many", rows)):
            samples.write_beliefs(at / name / "beliefs", count)
        for name, count in (("few", few), ("many", source_rows)):
            samples.write_source(at / name / "source", count)
        samples.write_votes(at / "few.parquet", few, 1_000)
        samples.write_votes(at / "many.parquet", few, _VOTES)
        progress.update(3)

        def per_row(stage: str, key: str, table: str, more: int, *words: str) -> float:
            # The first run of a stage compiles it: that is no cost of the rows.
            _, start, whole = (
                _seconds(spark, at, stage, f"{key}={at / name / table}", *words)
                for name in ("few", "few", "many")
            )
            return _cost(whole - start, more - few)

        ingest = per_row("ingest", "source", "source", source_rows)
        progress.update(4)
        report = per_row("report", "labels", "beliefs", rows)
        export = per_row("export", "labels", "beliefs", rows)
        progress.update(5)
        votes = ("engine=local", "worker_model=confusion", "max_iterations=2", "tolerance=0")
        merge = per_row("merge", "beliefs", "beliefs", rows, f"votes={at / 'few.parquet'}", *votes)
        progress.update(6)
        em = _em(at, votes)
        progress.update(7)
        return UnitCosts(
            machine=f"{cores_of_machine()} cores, {platform.machine()}, {platform.system()}",
            measured=datetime.now(UTC).date().isoformat(),
            ingest=ingest,
            fetch=fetch,
            label=label,
            device=device,
            model=model,
            device_images_per_second=rate,
            merge=merge,
            em=em,
            report=report,
            export=export,
            source_bytes=_bytes(at / "many" / "source") / source_rows,
            catalog_bytes=_bytes(at / "out-ingest" / "catalog") / (0.8 * source_rows),
            belief_bytes=_bytes(at / "many" / "beliefs") / rows,
        )


def _seconds(spark: "SparkSession", folder: Path, stage: str, *words: str) -> float:
    """Wall time of a stage, from its claim to its manifest."""
    settings = read_stage_settings(
        STAGES[stage], [*words, f"output={folder / f'out-{stage}'}", "overwrite=true"]
    )
    began = time.monotonic()
    run_stage(STAGES[stage], settings, spark)
    return time.monotonic() - began


def _em(folder: Path, words: tuple[str, ...]) -> float:
    """Core microseconds per vote and iteration, from the iterations that a merge records."""
    from coyo_labeler import storage  # noqa: PLC0415

    _seconds(
        None,  # type: ignore[arg-type]
        folder, "merge", f"beliefs={folder / 'few' / 'beliefs'}",
        f"votes={folder / 'many.parquet'}", *words[:-2], "max_iterations=4", "tolerance=0",
    )  # fmt: skip
    history: Any = storage.read_json(str(folder / "out-merge" / "history.json"))
    seconds = min(entry["seconds"] for entry in history["iterations"])
    return _cost(seconds, _VOTES)


def _cost(seconds: float, rows: int) -> float:
    """Core microseconds per row; never nothing, however noisy the machine."""
    return max(seconds, 1e-3) * cores_of_machine() / rows * 1e6


def _fetch(seconds: float) -> float:
    from coyo_labeler.fetch.verify import verify  # noqa: PLC0415

    data = samples.photograph()
    return _repeated(lambda: verify(data, 10**8), seconds) * 1e6 * _FETCH_OVERHEAD


def _label(model: str, label_space: str, seconds: float) -> tuple[str, float, float]:
    """The device, its images per second (on the CPU: of one core), core µs of decoding."""
    import torch  # noqa: PLC0415

    from coyo_labeler.formats.pictures import decode  # noqa: PLC0415
    from coyo_labeler.label.model import Teacher  # noqa: PLC0415
    from coyo_labeler.label.preprocess import prepare  # noqa: PLC0415
    from coyo_labeler.label.spec import TeacherSpec  # noqa: PLC0415

    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    precision = "float16" if on_gpu else "float32"
    spec = TeacherSpec(model, pretrained=False, label_space=label_space, precision=precision)
    teacher = Teacher(spec, device)
    data = samples.photograph()
    picture = prepare(decode(data), teacher.preset)
    decoding = _repeated(lambda: prepare(decode(data), teacher.preset), seconds / 3) * 1e6
    images = torch.stack([picture] * teacher.batch)

    def forward() -> None:
        teacher.answer(images)
        if on_gpu:
            torch.cuda.synchronize()

    forward()  # compiles
    rate = teacher.batch / _repeated(forward, seconds)
    if on_gpu:
        return torch.cuda.get_device_name(), rate, decoding
    return "cpu", rate / min(torch.get_num_threads(), cores_of_machine()), decoding


def _repeated(work: Callable[[], object], seconds: float) -> float:
    """Mean seconds of one call, over so many seconds of them."""
    work()
    began, calls = time.monotonic(), 0
    while calls == 0 or time.monotonic() - began < seconds:
        work()
        calls += 1
    return (time.monotonic() - began) / calls


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.parquet") if path.is_file())
