"""Policies of asking, tried with a simulated crowd on images whose truth is known: the wiring."""

import logging
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from coyo_labeler import storage
from coyo_labeler.config.simulate import SimulateSettings
from coyo_labeler.learn.features import principal_components
from coyo_labeler.learn.softmax import one_thread_blas
from coyo_labeler.machine import cores_of_machine
from coyo_labeler.manifest import Counts, Outcome, Run
from coyo_labeler.simulate.answers import curves_of, summary_of
from coyo_labeler.simulate.crowd import Crowd
from coyo_labeler.simulate.crowd_table import largest_label, read_crowd
from coyo_labeler.simulate.inputs import Images, read_images
from coyo_labeler.simulate.notes import notes_of
from coyo_labeler.simulate.page import render
from coyo_labeler.simulate.processes import Task, processes_for, run_all
from coyo_labeler.simulate.work import Simulator

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)


def simulate(_: "SparkSession | None", settings: SimulateSettings, run: Run) -> Outcome:
    """Simulate every policy with every seed.

    Reads `settings.embeddings` and `settings.beliefs`, `settings.gold`, `settings.seed_gold` and a
    crowd; writes curve.parquet (curve.CURVE), summary.json and index.html.
    Raises: InputError naming the key at fault; WorkError where a process was killed.
    """
    images = read_images(settings, _classes_of_crowd(settings))
    crowd = _read_crowd(settings, images.classes)
    images = _in_components(images, settings.components)
    tasks = [
        Task(policy, settings.seed + number)
        for policy in settings.policies
        for number in range(settings.seeds)
    ]
    simulator = Simulator(settings, images.classes, crowd)
    processes = processes_for(settings.processes, len(tasks), len(images.image), images.classes)
    results = run_all(simulator, images.arrays(), tasks, settings.rounds, processes)
    stopped = defaultdict(list)
    for task, (_table, why) in zip(tasks, results, strict=True):
        stopped[task.policy].append(why)
    table = pa.concat_tables([curve for curve, _why in results])
    return _write(settings, run, images, crowd, table, stopped)


def _classes_of_crowd(settings: SimulateSettings) -> int:
    """How many classes a table of confusions names; 0 for other crowds."""
    return 0 if settings.crowd_kind else largest_label(settings.crowd) + 1


def _read_crowd(settings: SimulateSettings, classes: int) -> Crowd | None:
    return None if settings.crowd_kind else read_crowd(settings.crowd, classes)


def _in_components(images: Images, components: int) -> Images:
    """The images with their features in principal components, on all cores."""
    with one_thread_blas(), ThreadPoolExecutor(cores_of_machine(), "components") as threads:
        projection = principal_components(images.features, components, threads.map)
        return images.with_features(projection.apply(images.features))


def _write(
    settings: SimulateSettings,
    run: Run,
    images: Images,
    crowd: Crowd | None,
    table: pa.Table,
    stopped: dict[str, list[str]],
) -> Outcome:
    curves = curves_of(table, settings.policies, stopped)
    counted = int((~images.known).sum())
    facts: dict[str, Any] = {
        "images": counted,
        "known_at_start": int(images.known.sum()),
        "classes": images.classes,
        "features": images.features.shape[1],
        "crowd": settings.crowd,
        "workers": settings.workers if crowd is None else crowd.workers,
        "worker_accuracy": None if crowd is None else round(crowd.accuracy, 4),
        "seeds": settings.seeds,
        "left_out": images.left_out,
        "notes": notes_of(images, _accuracy_of(settings, crowd)),
    }
    summary = summary_of(curves, settings.wanted_accuracy, facts)
    run.check_owner()
    storage.write_parquet(storage.join(settings.output, "curve.parquet"), table)
    storage.write_json(storage.join(settings.output, "summary.json"), summary)
    page = render(curves, summary, settings)
    storage.write_bytes(storage.join(settings.output, "index.html"), page.encode())
    for note in facts["notes"]:
        logger.warning("simulate: %s", note)
    logger.info("simulate: %s", summary["answer"])
    for curve in curves:
        for why in curve.stopped:
            logger.info("simulate: %s ended: %s", curve.policy, why)
    rows = len(images.image)
    return Outcome(
        Counts(rows, rows),
        {"curve": Counts(table.num_rows, table.num_rows)},
        {
            "answer": summary["answer"],
            "notes": facts["notes"],
            "stopped": {k: sorted(set(v)) for k, v in stopped.items()},
        },
    )


def _accuracy_of(settings: SimulateSettings, crowd: Crowd | None) -> float:
    """The mean accuracy of the workers: of a table, or what a drawn crowd aims at."""
    return float(settings.crowd.partition(":")[2]) if crowd is None else crowd.accuracy
