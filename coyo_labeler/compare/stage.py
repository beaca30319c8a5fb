"""The stage `compare`: two sets of COCO instances of the same images, side by side."""

import logging
from collections import Counter
from importlib.metadata import version
from typing import Any

import numpy as np

from coyo_labeler import storage
from coyo_labeler.compare.batch import (
    IMAGE_COLUMNS,
    Job,
    Result,
    Task,
    compare_all,
    concatenate,
)
from coyo_labeler.compare.coco_files import InstanceSet, read_instances
from coyo_labeler.compare.document import Found, describe
from coyo_labeler.compare.draw import Example, draw_examples
from coyo_labeler.compare.image_pair import CLASS_PAIRS, OBJECTS, PAIRS, Columns
from coyo_labeler.compare.page import render
from coyo_labeler.compare.pairing import pair_sets
from coyo_labeler.compare.rejects import Rejects
from coyo_labeler.compare.summary import summarise
from coyo_labeler.config.compare import CompareSettings
from coyo_labeler.machine import cores_of_machine
from coyo_labeler.manifest import Counts, Outcome, Run
from coyo_labeler.progress import Progress

logger = logging.getLogger(__name__)


def compare(_: object, settings: CompareSettings, run: Run) -> Outcome:
    """Compare the COCO instances of `settings.a` and `settings.b` on one page.

    Writes index.html, compare.json and compare.txt.

    Raises: InputError where a file is no COCO file.
    """
    a, b = _read("a", settings.a), _read("b", settings.b)
    pairing = pair_sets(a, b)
    job = Job(pairing.a, pairing.b, a.files, b.files, settings.min_iou)
    processes = settings.processes or cores_of_machine()
    with Progress("compare", len(pairing.tasks), "images") as progress:
        results = list(compare_all(job, pairing.tasks, processes, progress.update))
    found = _put_together(results, a.rejects, b.rejects)
    about = {"version": version("coyo-labeler"), "fingerprint": run.fingerprint}
    document = describe(settings, (a, b), pairing, found, about)
    chosen = _most_different(pairing.tasks, found.images, settings.examples)
    examples = list(draw_examples(job, chosen, settings.images, pairing.classes))
    document["examples"] = [_without_pictures(example) for example in examples]
    text = summarise(document)
    storage.write_json(storage.join(settings.output, "compare.json"), document)
    storage.write_bytes(storage.join(settings.output, "compare.txt"), text.encode())
    page = render(document, examples, settings.top)
    storage.write_bytes(storage.join(settings.output, "index.html"), page.encode())
    logger.info("%s", text)
    return _outcome(a, b, found, text)


def _read(key: str, url: str) -> InstanceSet:
    with Progress(f"compare: reading {key}", None, "annotations") as progress:
        return read_instances(key, url, progress.update)


def _put_together(results: list[Result], rejects_a: Rejects, rejects_b: Rejects) -> Found:
    for result in results:
        rejects_a.merge(result.rejects_a)
        rejects_b.merge(result.rejects_b)
    return Found(
        concatenate([result.a for result in results], OBJECTS),
        concatenate([result.b for result in results], OBJECTS),
        concatenate([result.pairs for result in results], PAIRS),
        concatenate([result.class_pairs for result in results], CLASS_PAIRS),
        concatenate([result.images for result in results], IMAGE_COLUMNS),
        sum(result.weak for result in results),
        rejects_a,
        rejects_b,
    )


def _most_different(tasks: list[Task], images: Columns, count: int) -> list[Task]:
    """The images with the largest disagreement, then in the order of their names."""
    order = np.argsort(-images["disagreement"], kind="stable")[:count]
    return [tasks[index] for index in order.tolist() if images["disagreement"][index] > 0]


def _without_pictures(example: Example) -> dict[str, Any]:
    return {
        "image": example.name,
        "objects_a": example.objects_a,
        "objects_b": example.objects_b,
        "only_a": example.only_a,
        "only_b": example.only_b,
        "class_changed": example.changed,
    }


def _outcome(a: InstanceSet, b: InstanceSet, found: Found, text: str) -> Outcome:
    """Counts of the annotations; rows that go in are accepted or rejected by reason."""
    tables = {}
    for key, instances, columns, rejects in (
        ("a", a, found.a, found.rejects_a),
        ("b", b, found.b, found.rejects_b),
    ):
        accepted = len(columns["klass"])
        tables[key] = Counts(instances.counts["annotations"], accepted, rejects.of("annotations"))
    rejected: Counter[str] = Counter()
    for counts in tables.values():
        rejected.update(counts.rejected)
    rows_in = sum(counts.rows_in for counts in tables.values())
    rows_out = sum(counts.rows_out for counts in tables.values())
    return Outcome(
        Counts(rows_in, rows_out, dict(rejected)), tables, {"summary": text.splitlines()}
    )
